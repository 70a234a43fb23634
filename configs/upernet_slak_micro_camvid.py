"""UperNet + a SLaK of 2.5 M parameters on CamVid, trained from scratch at 480 x 360."""

_base_ = 'upernet_slak_nano_camvid.py'

widths = [31, 62, 124, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths, channels=96),
    auxiliary_head=dict(in_channels=widths[2], channels=48),
)
