"""160k iterations with batch size 16: AdamW, stage-wise lr decay, warm-up, polynomial decay."""

_base_ = 'mmseg::_base_/schedules/schedule_160k.py'

max_iters = 160000
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmslak.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6),
)
# The polynomial decay starts at iteration 0, and the warm-up multiplies it, as in
# MMSegmentation 0.x.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    plain_checkpoint=dict(type='mmslak.PlainCheckpointHook'),
    checkpoint=dict(save_best='mIoU', max_keep_ckpts=2),
)
