"""A small ConvNeXt on the sample data, to compare with distill_convnext_nano_in1k.py."""

_base_ = 'slak_nano_in1k.py'

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvNeXt',
        arch=dict(depths=[1, 1, 2, 1], channels=[12, 24, 48, 96]),
        layer_scale_init_value=1.0,
    ),
    head=dict(in_channels=96),
)
default_hooks = dict(sparsity=dict(mode='off'))
