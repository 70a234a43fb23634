"""The second part of the training of SLaK-micro on CamVid: longer, with stronger colour distortion.

It starts from the best checkpoint of the first:
--cfg-options load_from=work_dirs/upernet_slak_micro_camvid/best_mIoU_iter_2700.pth
"""

_base_ = 'upernet_slak_micro_camvid.py'

max_iters = 8000  # 174 epochs
train_pipeline = [
    *_base_.train_pipeline[:5],
    _base_.strong_distortion,
    *_base_.train_pipeline[6:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=1000)
default_hooks = dict(
    checkpoint=dict(interval=200),
    # The masks of the first part are those of its weights.
    sparsity=dict(init='from_weights'),
)
randomness = dict(seed=1)
