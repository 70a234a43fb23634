"""SLaK-B fine-tuned on ImageNet-1K at 384 x 384. Paper, table 3: 85.5 % top-1.

The paper does not describe this step. These are the settings of ConvNeXt, whose recipe the paper
follows otherwise: 30 epochs with batch size 512, layer-wise lr decay 0.7, no Mixup and no CutMix.
Pre-trained model: --cfg-options load_from=work_dirs/slak_b_in1k/averaged.pth
"""

_base_ = 'slak_b_in1k.py'

input_size = 384
max_epochs = 30
model = dict(
    backbone=dict(drop_path_rate=0.8),
    train_cfg=None,
)
train_pipeline = [dict(step) for step in _base_.train_pipeline]
train_pipeline[1]['scale'] = input_size
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(input_size, input_size), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
optim_wrapper = dict(
    optimizer=dict(lr=5e-5, weight_decay=1e-8),
    constructor='mmslak.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7, decay_type='layer_wise'),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, end=max_epochs,
        convert_to_iter_based=True,
    )
]  # fmt: skip
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=512)
# The masks of the pre-trained model stay fixed.
default_hooks = dict(sparsity=dict(_delete_=True, type='mmslak.DynamicSparsityHook', mode='fixed'))
