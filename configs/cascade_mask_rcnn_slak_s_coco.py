"""Cascade Mask R-CNN + SLaK-S on COCO, 36 epochs; not in the paper, ConvNeXt-S's settings."""

_base_ = 'cascade_mask_rcnn_slak_t_coco.py'

model = dict(backbone=dict(arch='small', drop_path_rate=0.6))
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
