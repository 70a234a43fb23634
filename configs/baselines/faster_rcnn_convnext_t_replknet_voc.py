"""Faster R-CNN + ConvNeXt-T with RepLKNet's kernels on PASCAL VOC 2007, SLaK-T's recipe.

Paper, table 5: 81.3 mAP.
"""

_base_ = '../faster_rcnn_slak_t_voc.py'

default_hooks = dict(sparsity=dict(mode='off'))
model = dict(
    backbone=dict(mode='reparam', kernel_sizes=(31, 29, 27, 13), width_factor=1.0),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
