"""Cascade Mask R-CNN + SLaK-T on COCO, 36 epochs. Paper, table 6: 51.3 box AP, 44.3 mask AP."""

_base_ = [
    '_base_/models/cascade_mask_rcnn_slak.py',
    '_base_/datasets/coco.py',
    '_base_/schedules/adamw_3x.py',
    '_base_/det_runtime.py',
]

default_hooks = dict(
    checkpoint=dict(save_best='coco/bbox_mAP'),
    # The masks of a sparse pre-trained backbone stay fixed; a dense backbone trains dense.
    sparsity=dict(type='mmslak.DynamicSparsityHook', mode='fixed'),
)
