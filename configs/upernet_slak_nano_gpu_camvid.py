"""A last part of the training of SLaK-nano on CamVid, for one GPU.

It has the images, batches and class weights of SLaK-micro's second part, and starts from the best
checkpoint of the third or the fourth part on a CPU:
--amp --cfg-options load_from=work_dirs/upernet_slak_nano_final_camvid/best_mIoU_iter_2400.pth
"""

_base_ = 'upernet_slak_micro_gpu_camvid.py'

widths = [20, 41, 83, 166]
model = dict(
    backbone=dict(arch='nano', drop_path_rate=0.05),
    decode_head=dict(in_channels=widths),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
