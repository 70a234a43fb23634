"""The second part of the training on CamVid: larger images and class weights as in ENet.

After the first part, poles and signs are hardly predicted. This part starts from its best checkpoint:
--cfg-options load_from=work_dirs/upernet_slak_nano_camvid/best_mIoU_iter_5000.pth
"""

_base_ = 'upernet_slak_nano_camvid.py'

max_iters = 1600  # 35 epochs
# 1 / ln(1.02 + p) for the share p of a class (ENet, arXiv 1606.02147), with a mean of 1.
class_weight = [0.8, 0.61, 4.79, 0.48, 2.21, 1.25, 4.5, 4.57, 1.83, 5.43, 6.27]
train_pipeline = [
    *_base_.train_pipeline[:2],
    dict(_base_.train_pipeline[2], ratio_range=(0.75, 2.0)),
    *_base_.train_pipeline[3:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(decode_head=dict(loss_decode=dict(class_weight=class_weight)))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=100),
    dict(_base_.param_scheduler[1], begin=100, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=400)
default_hooks = dict(
    checkpoint=dict(interval=400),
    # The masks of the first part are those of its weights.
    sparsity=dict(init='from_weights'),
    ema=dict(momentum=2e-3),
)
