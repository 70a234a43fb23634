"""CamVid with 11 classes at 480 x 360, as tools/prepare_camvid.py writes it."""

data_root = 'data/camvid'
batch_size = 8
crop_size = (240, 320)
# 1 / ln(1.1 + p) for the share p of a class in the training pixels (ENet, arXiv 1606.02147, has 1.02),
# with a mean of 1 over these pixels.
class_weight = [0.98, 0.81, 2.28, 0.67, 1.74, 1.3, 2.24, 2.25, 1.6, 2.36, 2.43]
metainfo = dict(
    classes=[
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
        'pedestrian', 'bicyclist',
    ],
    palette=[
        [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222],
        [128, 128, 0], [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
    ],
)  # fmt: skip
strong_distortion = dict(
    type='PhotoMetricDistortion',
    brightness_delta=48,
    contrast_range=(0.5, 1.6),
    saturation_range=(0.4, 1.6),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.5, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(type='BaseSegDataset', data_root=data_root, metainfo=metainfo, img_suffix='.png')
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        val_dataloader['dataset'],
        data_prefix=dict(img_path='images/test', seg_map_path='annotations/test'),
    ),
)
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
