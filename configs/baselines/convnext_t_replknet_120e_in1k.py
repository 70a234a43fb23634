"""ConvNeXt-T with RepLKNet's recipe for 31 x 31 kernels, 120 epochs. Paper, table 1: 81.5 % top-1."""

_base_ = 'convnext_t_naive_120e_in1k.py'

model = dict(backbone=dict(mode='reparam'))
