"""UperNet + SLaK-T on ADE20K, 80k iterations. Paper, table 4: 46.2 mIoU, single scale."""

_base_ = 'upernet_slak_t_ade20k.py'

max_iters = 80000
model = dict(backbone=dict(drop_path_rate=0.1))
# The same learning rate for all layers, and weight decay on everything except norms.
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    constructor='mmslak.GroupedOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
)
param_scheduler = [
    dict(_base_.param_scheduler[0]),
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000))
