"""The second part of the training of SLaK-micro on CamVid, for one CPU core.

It is as the last part of SLaK-nano on a CPU, with smaller steps. It starts from the first part:
--cfg-options load_from=work_dirs/upernet_slak_micro_camvid/best_mIoU_iter_1823.pth
"""

_base_ = 'upernet_slak_nano_final_camvid.py'

max_iters = 1000
# The network of upernet_slak_micro_camvid.py.
widths = [32, 64, 160, 240]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths, channels=64),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=500)
