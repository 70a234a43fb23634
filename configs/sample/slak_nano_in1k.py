"""SLaK-nano on the sample data: ImageNet's layout, minutes on a laptop's CPU."""

_base_ = '../slak_t_in1k.py'

data_root = 'data/sample/imagenet'
max_epochs = 50
input_size = 64
classes = ['ball', 'buoy', 'clover', 'crate', 'donut', 'melon', 'starfish', 'tent']
dataset = dict(data_root=data_root, metainfo=dict(classes=classes))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=input_size, crop_ratio_range=(0.4, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=72, edge='short'),
    dict(type='CenterCrop', crop_size=input_size),
    dict(type='PackInputs'),
]
# A second worker would compete with the training for the cores of a laptop.
loader = dict(batch_size=16, num_workers=1, persistent_workers=True)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
val_evaluator = dict(topk=(1, 5))

data_preprocessor = dict(num_classes=len(classes))
model = dict(
    backbone=dict(
        arch='nano', kernel_sizes=(15, 13, 11, 5), drop_path_rate=0.0, layer_scale_init_value=1.0
    ),
    head=dict(num_classes=len(classes), in_channels=166),
    # So few images need less augmentation: no Mixup and no CutMix.
    train_cfg=None,
)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=2),
    dict(_base_.param_scheduler[1], begin=2, end=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=25)
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=25),
    # The average of a short training needs a short memory.
    ema=dict(momentum=0.02),
    sparsity=dict(update=dict(every=25, rate=0.3)),
)
randomness = dict(seed=0)
