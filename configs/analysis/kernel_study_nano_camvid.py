"""SLaK-nano on CamVid at 240 x 180, with a head of 1 x 1 convolutions.

Only the backbone sees distant pixels, and images are not cropped. For
tools/analysis/camvid_study.py.
"""

_base_ = '../upernet_slak_nano_camvid.py'

size = (180, 240)
max_iters = 460  # 5 epochs
batch_size = 4

# Scores are those of the full resolution, because label maps of the validation are not resized.
resize = dict(type='Resize', scale=size[::-1])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# No worker processes, because a study runs several trainings at a time.
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=batch_size, dataset=dict(pipeline=train_pipeline), **loader)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **loader)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline), **loader)

model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(drop_path_rate=0.0),
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
        num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True),
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss',
            class_weight=_base_.class_weight,
            reduction='sum',
            loss_weight=1 / (batch_size * size[0] * size[1]),
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=max_iters // 10),
    dict(_base_.param_scheduler[1], begin=max_iters // 10, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
# One checkpoint, after the validation at the end.
default_hooks = dict(
    logger=dict(interval=46),
    checkpoint=dict(interval=-1, save_last=False),
    ema=dict(momentum=5e-3),
)
