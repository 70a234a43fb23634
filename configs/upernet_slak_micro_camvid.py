"""UperNet with a SLaK of 2 M active parameters on CamVid, trained from scratch on one GPU.

Poles and signs are about as thin as the output stride of 4 pixels. Images are therefore resized to
twice their size. Scores are computed at full resolution, because labels are not resized. Training
with --amp takes a few minutes.
"""

_base_ = 'upernet_slak_nano_camvid.py'

max_iters = 1823  # 119 epochs
widths = [32, 64, 160, 240]
batch_size, crop_size = 24, (480, 640)
scale = (960, 720)
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], scale=scale),
    # Crops of half the image nearly always have several classes, and counting them is slow.
    dict(type='RandomCrop', crop_size=crop_size),
    _base_.train_pipeline[4],
    _base_.strong_distortion,
    *_base_.train_pipeline[6:],
]
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=scale, keep_ratio=True),
    *_base_.test_pipeline[1:],
]
train_dataloader = dict(
    batch_size=batch_size, num_workers=7, pin_memory=True, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=4, num_workers=4, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(
        in_channels=widths,
        channels=64,
        loss_decode=dict(loss_weight=1 / (batch_size * crop_size[0] * crop_size[1])),
    ),
)
optim_wrapper = dict(dtype='bfloat16')
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
default_hooks = dict(
    checkpoint=dict(interval=2000),
    ema=dict(momentum=1e-2, interval=5),
    # A step is computed faster than its kernels are launched.
    cuda_graph=dict(type='mmslak.CUDAGraphHook', modules=['backbone', 'decode_head']),
)
