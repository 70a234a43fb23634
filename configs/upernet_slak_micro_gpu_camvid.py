"""The second part of the training of SLaK-micro on CamVid: images of twice the size, for one GPU.

After the first part, poles and signs are hardly predicted, because they are about as thin as the
output stride of 4 pixels. This part starts from the best checkpoint of the first:
--amp --cfg-options load_from=work_dirs/upernet_slak_micro_camvid/best_mIoU_iter_2700.pth
"""

_base_ = 'upernet_slak_micro_camvid.py'

max_iters = 5000
batch_size, crop_size = 24, (480, 640)
scale = (960, 720)
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], scale=scale),
    dict(_base_.train_pipeline[3], crop_size=crop_size),
    _base_.train_pipeline[4],
    _base_.strong_distortion,
    *_base_.train_pipeline[6:],
]
# The scores are computed at full resolution, because only the images are resized.
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=scale, keep_ratio=True),
    *_base_.test_pipeline[1:],
]
train_dataloader = dict(
    batch_size=batch_size, num_workers=7, pin_memory=True, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=4, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(loss_decode=dict(loss_weight=1 / (batch_size * crop_size[0] * crop_size[1]))),
)
optim_wrapper = dict(dtype='bfloat16')
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=1250)
default_hooks = dict(
    checkpoint=dict(interval=1250),
    # The masks of the first part are those of its weights.
    sparsity=dict(init='from_weights'),
    ema=dict(momentum=1e-2, interval=5),
)
randomness = dict(seed=1)
