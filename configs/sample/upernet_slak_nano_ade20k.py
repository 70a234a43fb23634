"""UperNet + SLaK-nano on the sample data: ADE20K's layout, minutes on a laptop's CPU."""

_base_ = '../upernet_slak_t_ade20k.py'

data_root = 'data/sample/ADEChallengeData2016'
crop_size = (128, 128)
max_iters = 1200

metainfo = dict(
    classes=[
        'sky', 'grass', 'water', 'sand', 'ball', 'buoy', 'clover', 'crate', 'donut', 'melon',
        'starfish', 'tent',
    ],
    palette=[
        [135, 190, 240], [80, 155, 60], [35, 100, 170], [225, 200, 140], [220, 50, 47],
        [255, 140, 0], [0, 200, 120], [130, 80, 35], [240, 110, 190], [160, 20, 90],
        [255, 230, 40], [110, 70, 210],
    ],
)  # fmt: skip
# The classes are not those of ADE20K, so the dataset is the general one with the same layout.
dataset = dict(
    type='BaseSegDataset', data_root=data_root, metainfo=metainfo, reduce_zero_label=True
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomResize', scale=(512, 128), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 128), keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
# A second worker would compete with the training for the cores of a laptop.
loader = dict(num_workers=1, persistent_workers=True)
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset), **loader)

widths = [20, 41, 83, 166]
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch='nano', drop_path_rate=0.0),
    decode_head=dict(in_channels=widths, channels=64, num_classes=12),
    auxiliary_head=dict(in_channels=widths[2], channels=32, num_classes=12),
    test_cfg=dict(crop_size=crop_size, stride=(85, 85)),
)
# Training from scratch: a higher learning rate, the same for all layers.
optim_wrapper = dict(optimizer=dict(lr=4e-3), paramwise_cfg=dict(decay_rate=1.0, num_layers=4))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=100),
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=300)
default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=300),
    sparsity=dict(
        _delete_=True,
        type='mmslak.DynamicSparsityHook',
        sparsity=0.4,
        allocation='snip',
        update=dict(every=50, rate=0.3, rate_min=0.005, schedule='cosine', grow='random'),
        targets='all',
    ),
)
randomness = dict(seed=0)
