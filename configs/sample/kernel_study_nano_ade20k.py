"""SLaK-nano with a head of 1 x 1 convolutions, so that only the backbone sees distant pixels.

Whole scenes of up to 96 x 96 pixels: large enough for the largest kernels to differ, and the distant
cue is never cropped. For tools/analysis/kernel_study.py.
"""

_base_ = 'upernet_slak_nano_ade20k.py'

crop_size = (96, 96)
max_iters = 400

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
# No worker processes, because a study runs several trainings at a time.
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline), **loader)
val_dataloader = dict(batch_size=1, dataset=dict(pipeline=test_pipeline), **loader)
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(layer_scale_init_value=1.0),
    decode_head=dict(
        _delete_=True,
        type='FCNHead',
        in_channels=_base_.widths,
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        kernel_size=1,
        num_convs=1,
        concat_input=False,
        channels=64,
        dropout_ratio=0.0,
        num_classes=12,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
    test_cfg=dict(_delete_=True, mode='whole'),
)
# Such a short training needs a high learning rate: at 4e-3 most objects get a wrong class.
optim_wrapper = dict(optimizer=dict(lr=2e-2))
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=1e-3, end=40),
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_iters))
