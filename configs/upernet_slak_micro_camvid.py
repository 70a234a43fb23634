"""UperNet with a SLaK of 2 M parameters on CamVid, trained from scratch in a night on two CPU cores."""

_base_ = 'upernet_slak_nano_camvid.py'

max_iters = 9200  # 200 epochs
widths = [31, 62, 124, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths, channels=64),
)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
