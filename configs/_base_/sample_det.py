"""Schedule, hooks, classes and backbone of the detectors on the sample data."""

_base_ = ['schedules/adamw_3x.py', 'det_runtime.py']

metainfo = dict(
    classes=('ball', 'buoy', 'clover', 'crate', 'donut', 'melon', 'starfish', 'tent'),
    palette=[
        (220, 50, 47), (255, 140, 0), (0, 200, 120), (130, 80, 35), (240, 110, 190),
        (160, 20, 90), (255, 230, 40), (110, 70, 210),
    ],
)  # fmt: skip
# A second worker would compete with the training for the cores of a laptop.
loader = dict(num_workers=1, persistent_workers=True)

channels = 48
proposals = dict(nms_pre=256, max_per_img=64)
nano = dict(
    backbone=dict(arch='nano', drop_path_rate=0.0),
    neck=dict(in_channels=[20, 41, 83, 166], out_channels=channels, norm_cfg=dict(type='BN')),
    rpn_head=dict(in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[4])),
    test_cfg=dict(rpn=proposals),
)

# Training from scratch: a higher learning rate, the same for all layers, and clipped gradients.
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
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=4),
    sparsity=dict(
        type='mmslak.DynamicSparsityHook',
        sparsity=0.4,
        allocation='snip',
        update=dict(every=100, rate=0.3, rate_min=0.005, schedule='cosine', grow='random'),
        targets='all',
    ),
)
randomness = dict(seed=0)
