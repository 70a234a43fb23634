"""UperNet with a SLaK of 2 M parameters on CamVid, trained from scratch: the first of two parts."""

_base_ = 'upernet_slak_nano_camvid.py'

widths = [31, 62, 124, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths, channels=64),
)
