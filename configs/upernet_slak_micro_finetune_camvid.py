"""The second part of the training of upernet_slak_micro_camvid.py, from its best checkpoint:
--cfg-options load_from=work_dirs/upernet_slak_micro_camvid/best_mIoU_iter_2500.pth
"""

_base_ = 'upernet_slak_nano_finetune_camvid.py'

widths = [31, 62, 124, 249]
model = dict(
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 6, 2), widths=widths), drop_path_rate=0.1),
    decode_head=dict(in_channels=widths, channels=64),
)
