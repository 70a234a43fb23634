"""The second part of the training on CamVid: images of twice the size, class weights as in ENet.

After the first part, poles and signs are hardly predicted, because they are about as thin as the
output stride of 4 pixels. This part starts from the best checkpoint of the first:
--cfg-options load_from=work_dirs/upernet_slak_nano_camvid/best_mIoU_iter_5000.pth
"""

_base_ = 'upernet_slak_nano_camvid.py'

max_iters = 2400
batch_size, crop_size = 4, (360, 480)
scale = (960, 720)
# 1 / ln(1.02 + p) for the share p of a class (ENet, arXiv 1606.02147), with a mean of 1.
class_weight = [0.8, 0.61, 4.79, 0.48, 2.21, 1.25, 4.5, 4.57, 1.83, 5.43, 6.27]
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], scale=scale, ratio_range=(0.5, 1.25)),
    dict(_base_.train_pipeline[3], crop_size=crop_size),
    *_base_.train_pipeline[4:],
]
# The scores are computed at full resolution, because only the images are resized.
test_pipeline = [
    _base_.test_pipeline[0],
    dict(type='Resize', scale=scale, keep_ratio=True),
    *_base_.test_pipeline[1:],
]
train_dataloader = dict(batch_size=batch_size, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(
        loss_decode=dict(
            class_weight=class_weight,
            loss_weight=1 / (batch_size * crop_size[0] * crop_size[1]),
        )
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=100),
    dict(_base_.param_scheduler[1], begin=100, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=800)
default_hooks = dict(
    checkpoint=dict(interval=400),
    # The masks of the first part are those of its weights.
    sparsity=dict(init='from_weights'),
    ema=dict(momentum=2e-3),
)
