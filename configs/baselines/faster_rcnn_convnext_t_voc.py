"""Faster R-CNN + ConvNeXt-T on PASCAL VOC 2007, SLaK-T's recipe. Paper, table 5: 80.6 mAP."""

_base_ = ['../faster_rcnn_slak_t_voc.py', '../_base_/models/convnext_backbone.py']

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
default_hooks = dict(sparsity=dict(mode='off'))
model = dict(
    backbone=dict(_base_.convnext, _delete_=True),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
