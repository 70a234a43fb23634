"""SLaK-B on ImageNet-1K, 300 epochs. Paper, table 3: 84.0 % top-1."""

_base_ = 'slak_s_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.5), head=dict(in_channels=1331))
