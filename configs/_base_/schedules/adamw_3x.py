"""36 epochs with batch size 16: AdamW, layer-wise lr decay, steps at 27 and 33 (appendix A.3)."""

_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

max_epochs = 36
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmslak.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[27, 33]),
]
train_cfg = dict(max_epochs=max_epochs)
