"""Cascade Mask R-CNN + SLaK-nano on the sample data: COCO's layout, minutes on a laptop's CPU."""

_base_ = '../cascade_mask_rcnn_slak_t_coco.py'

data_root = 'data/sample/coco/'
metainfo = dict(
    classes=('ball', 'buoy', 'clover', 'crate', 'donut', 'melon', 'starfish', 'tent'),
    palette=[
        (220, 50, 47), (255, 140, 0), (0, 200, 120), (130, 80, 35), (240, 110, 190),
        (160, 20, 90), (255, 230, 40), (110, 70, 210),
    ],
)  # fmt: skip
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
dataset = dict(data_root=data_root, metainfo=metainfo)
# Two workers would compete with the training itself for a laptop's cores.
loader = dict(num_workers=1, persistent_workers=True)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')

channels = 48
proposals = dict(nms_pre=256, max_per_img=64)
model = dict(
    backbone=dict(arch='nano', drop_path_rate=0.0),
    neck=dict(in_channels=[20, 41, 83, 166], out_channels=channels, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[4])),
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
        rpn_proposal=proposals,
        rcnn=[
            dict(stage, sampler=dict(stage.sampler, num=32, pos_fraction=0.5))
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=proposals),
)
# From scratch: a higher rate, the same for all layers, clipped.
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    paramwise_cfg=dict(decay_rate=1.0, num_layers=4),
    clip_grad=dict(max_norm=10),
)
max_epochs = 16
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR', begin=0, end=max_epochs, by_epoch=True, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
custom_hooks = [
    dict(
        type='mmslak.DynamicSparsityHook',
        sparsity=0.4,
        allocation='snip',
        update=dict(every=100, rate=0.3, rate_min=0.005, schedule='cosine', grow='random'),
        targets='all',
    )
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=4))
randomness = dict(seed=0)
