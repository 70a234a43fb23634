"""UperNet with SLaK-nano on CamVid, trained from scratch: under two hours on one CPU core."""

_base_ = [
    '_base_/models/upernet_slak.py',
    '_base_/datasets/camvid.py',
    'mmseg::_base_/schedules/schedule_20k.py',
    '_base_/seg_runtime.py',
]

max_iters = 5000  # 109 epochs
widths = [20, 41, 83, 166]
batch_size, crop_size = _base_.batch_size, _base_.crop_size
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch='nano', drop_path_rate=0.05),
    decode_head=dict(
        in_channels=widths,
        channels=32,
        num_classes=11,
        loss_decode=dict(
            class_weight=_base_.class_weight,
            # MMSegmentation's mean over weighted pixels cannot ignore label 255, the sum can.
            reduction='sum',
            loss_weight=1 / (batch_size * crop_size[0] * crop_size[1]),
        ),
    ),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),
)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    # Two groups of parameters instead of one for each: shorter steps on GPUs, and shorter logs.
    constructor='mmslak.GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=300),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=300, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=500)
default_hooks = dict(
    checkpoint=dict(interval=500, save_best='mIoU', max_keep_ckpts=1),
    plain_checkpoint=dict(type='mmslak.PlainCheckpointHook'),
    sparsity=dict(
        type='mmslak.DynamicSparsityHook',
        sparsity=0.4,
        allocation='snip',
        update=dict(every=100, rate=0.3, rate_min=0.005, schedule='cosine', grow='random'),
        targets='all',
    ),
    # The validation scores the averaged weights.
    ema=dict(
        type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-3, update_buffers=True
    ),
)
randomness = dict(seed=0)
