"""The fourth part of the training of SLaK-nano on CamVid: with the class weights of the first.

The class weights of ENet, of the second and third part, cost the large classes more than the small
ones gain. This part starts from the best checkpoint of the third:
--cfg-options load_from=work_dirs/upernet_slak_nano_colour_camvid/best_mIoU_iter_2400.pth
"""

_base_ = 'upernet_slak_nano_colour_camvid.py'

batch_size, crop_size = 6, (360, 480)
train_dataloader = dict(batch_size=batch_size)
model = dict(
    decode_head=dict(
        loss_decode=dict(
            class_weight=[0.98, 0.81, 2.28, 0.67, 1.74, 1.3, 2.24, 2.25, 1.6, 2.36, 2.43],
            loss_weight=1 / (batch_size * crop_size[0] * crop_size[1]),
        )
    )
)
train_cfg = dict(val_interval=600)
default_hooks = dict(checkpoint=dict(interval=200))
randomness = dict(seed=2)
