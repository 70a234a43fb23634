"""ConvNeXt-T with plain 31 x 31 kernels, 120 epochs. Paper, table 1: 80.5 % top-1."""

_base_ = '../slak_t_120e_in1k.py'

model = dict(
    backbone=dict(mode='naive', kernel_sizes=(31, 29, 27, 13), width_factor=1.0),
    head=dict(in_channels=768),
)
default_hooks = dict(sparsity=dict(mode='off'))
