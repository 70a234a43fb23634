"""Cascade Mask R-CNN + ConvNeXt-T on COCO, SLaK-T's recipe. Paper, table 6: 50.4 box AP."""

_base_ = ['../cascade_mask_rcnn_slak_t_coco.py', '../_base_/models/convnext_backbone.py']

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
default_hooks = dict(sparsity=dict(mode='off'))
model = dict(
    backbone=dict(_base_.convnext, _delete_=True),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
