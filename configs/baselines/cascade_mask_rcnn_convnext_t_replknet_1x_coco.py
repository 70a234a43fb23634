"""Cascade Mask R-CNN + ConvNeXt-T with RepLKNet's kernels on COCO, 12 epochs, SLaK-T's recipe.

Paper, table 6: 47.8 box AP.
"""

_base_ = '../cascade_mask_rcnn_slak_t_1x_coco.py'

default_hooks = dict(sparsity=dict(mode='off'))
model = dict(
    backbone=dict(mode='reparam', kernel_sizes=(31, 29, 27, 13), width_factor=1.0),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
