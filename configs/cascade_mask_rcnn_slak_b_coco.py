"""Cascade Mask R-CNN + SLaK-B on COCO, 36 epochs; not in the paper, ConvNeXt-B's settings."""

_base_ = 'cascade_mask_rcnn_slak_s_coco.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.7),
    neck=dict(in_channels=[166, 332, 665, 1331]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
