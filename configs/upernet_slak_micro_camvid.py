"""UperNet with SLaK-micro on CamVid, a SLaK of 1.9 M active parameters, trained from scratch."""

_base_ = 'upernet_slak_nano_camvid.py'

widths = [31, 62, 124, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.2),
    decode_head=dict(in_channels=widths),
)
