"""Cascade Mask R-CNN + SLaK-T on COCO, 12 epochs. Paper, table 6: 48.4 box AP, 41.8 mask AP."""

_base_ = 'cascade_mask_rcnn_slak_t_coco.py'

max_epochs = 12
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[8, 11]),
]
train_cfg = dict(max_epochs=max_epochs)
