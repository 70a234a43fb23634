"""SLaK-S on ImageNet-1K, 300 epochs. Paper, table 3: 83.8 % top-1."""

_base_ = 'slak_t_in1k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.4))
train_dataloader = dict(batch_size=64)
default_hooks = dict(sparsity=dict(update=dict(every=100, rate=0.3)))
