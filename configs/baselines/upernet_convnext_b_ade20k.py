"""UperNet + ConvNeXt-B on ADE20K, SLaK-B's recipe. Paper, table 4: 49.1 mIoU."""

_base_ = 'upernet_convnext_s_ade20k.py'

widths = [128, 256, 512, 1024]
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.4),
    decode_head=dict(in_channels=widths),
    auxiliary_head=dict(in_channels=widths[2]),
)
