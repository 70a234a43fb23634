"""Cascade Mask R-CNN + SLaK-nano on the sample data: COCO's layout, minutes on a laptop's CPU."""

_base_ = [
    '../_base_/models/cascade_mask_rcnn_slak.py',
    '../_base_/datasets/coco.py',
    '../_base_/sample_det.py',
]

data_root = 'data/sample/coco/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomChoiceResize', scales=[(112, 112), (128, 128), (144, 144)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(data_root=data_root, metainfo=_base_.metainfo)
loader = _base_.loader
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')

channels = _base_.channels
model = dict(
    **_base_.nano,
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=[
            dict(
                head,
                num_shared_convs=1,
                in_channels=channels,
                conv_out_channels=channels,
                fc_out_channels=128,
                num_classes=8,
            )
            for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(
            num_convs=2, in_channels=channels, conv_out_channels=channels, num_classes=8
        ),
    ),
    train_cfg=dict(
        rpn_proposal=_base_.proposals,
        rcnn=[
            dict(stage, sampler=dict(stage.sampler, num=32, pos_fraction=0.5))
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
