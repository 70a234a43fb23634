"""UperNet + SLaK-nano on CamVid, trained from scratch at 480 x 360."""

_base_ = [
    '_base_/models/upernet_slak.py',
    '_base_/datasets/camvid.py',
    '_base_/seg_runtime.py',
]

max_iters = 9200  # 200 epochs of 46 iterations
widths = [20, 41, 83, 166]
# The Tversky loss, here the Dice loss of each class, counts rare classes as much as others.
losses = [
    dict(type='CrossEntropyLoss', use_sigmoid=False, avg_non_ignore=True, loss_weight=1.0),
    dict(type='TverskyLoss', alpha=0.5, beta=0.5, loss_weight=1.0),
]
model = dict(
    data_preprocessor=dict(size=(288, 384)),
    backbone=dict(arch='nano', drop_path_rate=0.05),
    decode_head=dict(in_channels=widths, channels=48, num_classes=11, dropout_ratio=0.1, loss_decode=losses),
    auxiliary_head=dict(in_channels=widths[2], channels=32, num_classes=11, loss_decode=dict(avg_non_ignore=True)),
    test_cfg=dict(_delete_=True, mode='whole'),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=460),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=460, end=max_iters),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=460)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=46, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=460, save_best='mIoU', max_keep_ckpts=1
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
    plain_checkpoint=dict(type='mmslak.PlainCheckpointHook'),
    sparsity=dict(
        type='mmslak.DynamicSparsityHook',
        sparsity=0.4,
        allocation='snip',
        update=dict(every=100, rate=0.3, rate_min=0.005, schedule='cosine', grow='random'),
        targets='all',
    ),
    ema=dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=1e-3, update_buffers=True),
)
randomness = dict(seed=0)
