"""Faster R-CNN + SLaK-nano on the sample data: VOC2007's layout, minutes on a laptop's CPU."""

_base_ = [
    '../_base_/models/faster_rcnn_slak.py',
    '../_base_/datasets/voc07.py',
    '../_base_/sample_det.py',
]

data_root = 'data/sample/VOCdevkit/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=[(112, 112), (128, 128), (144, 144)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
# The classes are not those of VOC, so the dataset is the general one with the same layout.
dataset = dict(type='XMLDataset', data_root=data_root, metainfo=_base_.metainfo)
loader = _base_.loader
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)

channels = _base_.channels
model = dict(
    **_base_.nano,
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=128, num_classes=8),
    ),
    train_cfg=dict(
        rpn_proposal=_base_.proposals, rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))
    ),
)
max_epochs = 24
param_scheduler = [
    dict(_base_.param_scheduler[0]),
    dict(_base_.param_scheduler[1], end=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(save_best='pascal_voc/mAP'))
