"""SLaK-S on ImageNet-1K, 300 epochs. Paper, table 3: 83.8 % top-1."""

_base_ = 'slak_t_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.4))
train_dataloader = dict(batch_size=64)
custom_hooks = [
    dict(_base_.custom_hooks[0]),
    dict(_base_.custom_hooks[1]),
    dict(
        _base_.custom_hooks[2],
        update=dict(every=100, rate=0.3, rate_min=0.005, schedule='cosine', grow='random'),
    ),
]
