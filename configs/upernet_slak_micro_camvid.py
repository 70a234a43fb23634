"""UperNet with a SLaK of 2 M active parameters on CamVid, trained from scratch.

The first two stages are those of SLaK-nano: there the feature maps are large and a channel costs
most. The other two are deeper and wider. Training takes an hour and a quarter on one CPU core.
"""

_base_ = 'upernet_slak_nano_camvid.py'

max_iters = 2700  # 59 epochs
widths = [20, 41, 166, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(1, 1, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths),
)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=900)
