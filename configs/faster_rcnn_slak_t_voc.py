"""Faster R-CNN + SLaK-T on PASCAL VOC 2007, 36 epochs. Paper, table 5: 82.7 mAP."""

_base_ = [
    '_base_/models/faster_rcnn_slak.py',
    '_base_/datasets/voc07.py',
    '_base_/schedules/adamw_3x.py',
    '_base_/det_runtime.py',
]

# Learning rate and weight decay of appendix A.4, the same for all layers.
optim_wrapper = dict(optimizer=dict(lr=1e-4), paramwise_cfg=dict(decay_rate=1.0))
default_hooks = dict(
    checkpoint=dict(save_best='pascal_voc/mAP'),
    # The masks of a sparse pre-trained backbone stay fixed; a dense backbone trains dense.
    sparsity=dict(type='mmslak.DynamicSparsityHook', mode='fixed'),
)
