"""Cascade Mask R-CNN + SLaK-T on COCO, 12 epochs. Paper, table 6: 48.4 box AP, 41.8 mask AP."""

_base_ = 'cascade_mask_rcnn_slak_t_coco.py'

max_epochs = 12
param_scheduler = [
    dict(_base_.param_scheduler[0]),
    dict(_base_.param_scheduler[1], end=max_epochs, milestones=[8, 11]),
]
train_cfg = dict(max_epochs=max_epochs)
