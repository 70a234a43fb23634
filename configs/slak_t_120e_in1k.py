"""SLaK-T on ImageNet-1K, 120 epochs. Paper, table 2: 81.6 % top-1."""

_base_ = 'slak_t_in1k.py'

max_epochs = 120
param_scheduler = [
    dict(_base_.param_scheduler[0]),
    dict(_base_.param_scheduler[1], end=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs)
