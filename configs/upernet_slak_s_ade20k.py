"""UperNet + SLaK-S on ADE20K, 160k iterations. Paper, table 4: 49.4 mIoU, single scale."""

_base_ = 'upernet_slak_t_ade20k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
