"""The second part of the training of SLaK-micro on CamVid, for one CPU core.

It is as the last part of SLaK-nano: images of twice the size and stronger colour distortion. It
starts from the best checkpoint of the first part:
--cfg-options load_from=work_dirs/upernet_slak_micro_camvid/best_mIoU_iter_2700.pth
"""

_base_ = 'upernet_slak_nano_final_camvid.py'

max_iters = 1000
# The network of upernet_slak_micro_camvid.py.
widths = [20, 41, 166, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(1, 1, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths),
)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=500)
