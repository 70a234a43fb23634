"""UperNet + ConvNeXt-S on ADE20K, SLaK-S's recipe. Paper, table 4: 48.7 mIoU."""

_base_ = 'upernet_convnext_t_ade20k.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.3))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
