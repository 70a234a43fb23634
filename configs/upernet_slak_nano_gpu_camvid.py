"""A last part of the training of SLaK-nano on CamVid, for one GPU.

It has the images and batches of SLaK-micro, and starts from the best checkpoint of the fifth part.
The model in the package is its result:
--amp --cfg-options load_from=work_dirs/upernet_slak_nano_final_2_camvid/best_mIoU_iter_2400.pth
"""

_base_ = 'upernet_slak_micro_camvid.py'

widths = [20, 41, 83, 166]
model = dict(
    backbone=dict(arch='nano', drop_path_rate=0.05),
    decode_head=dict(in_channels=widths, channels=32),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(sparsity=dict(init='from_weights'))
