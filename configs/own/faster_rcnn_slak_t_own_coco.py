"""Faster R-CNN + SLaK-T on your own boxes in COCO's format, without masks. See docs/finetune.md.

Copy this file, and change data_root and classes.
"""

_base_ = 'mmslak::faster_rcnn_slak_t_voc.py'

data_root = 'data/mine/'
# As in `categories` of the annotation files, in the same order.
classes = ('cat', 'dog', 'bird')

dataset = dict(type='CocoDataset', data_root=data_root, metainfo=dict(classes=classes))
train = dict(ann_file='train.json', data_prefix=dict(img='train/'), **dataset)
val = dict(ann_file='val.json', data_prefix=dict(img='val/'), test_mode=True, **dataset)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=_base_.train_pipeline,
        **train,
    )
)
val_dataloader = dict(dataset=dict(_delete_=True, pipeline=_base_.test_pipeline, **val))
test_dataloader = dict(dataset=dict(_delete_=True, pipeline=_base_.test_pipeline, **val))
metric = dict(type='CocoMetric', metric='bbox', ann_file=data_root + 'val.json', classwise=True)
val_evaluator = dict(_delete_=True, **metric)
test_evaluator = dict(_delete_=True, **metric)
model = dict(roi_head=dict(bbox_head=dict(num_classes=len(classes))))
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
