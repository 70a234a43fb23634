"""UperNet + SLaK-B on ADE20K, 160k iterations. Paper, table 4: 50.2 mIoU, single scale."""

_base_ = 'upernet_slak_s_ade20k.py'

widths = [166, 332, 665, 1331]
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4),
    decode_head=dict(in_channels=widths),
    auxiliary_head=dict(in_channels=widths[2]),
)
