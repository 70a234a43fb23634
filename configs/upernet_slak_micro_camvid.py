"""UperNet with a SLaK of 2 M active parameters on CamVid, trained from scratch in one part.

Scales, sizes and class weights are those of the second part of SLaK-nano.
"""

_base_ = 'upernet_slak_nano_finetune_camvid.py'

max_iters = 3200
widths = [31, 62, 124, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths, channels=48),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=200),
    dict(_base_.param_scheduler[1], begin=200, end=max_iters),
]
train_cfg = dict(max_iters=max_iters)
default_hooks = dict(sparsity=dict(init='random'))
