"""The third part of the training on CamVid: as the second, with stronger colour distortion.

The test images are from another drive and another light than the training images. This part starts
from the best checkpoint of the second:
--cfg-options load_from=work_dirs/upernet_slak_nano_finetune_camvid/best_mIoU_iter_2400.pth
"""

_base_ = 'upernet_slak_nano_finetune_camvid.py'

train_pipeline = [
    *_base_.train_pipeline[:5],
    _base_.strong_distortion,
    *_base_.train_pipeline[6:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
randomness = dict(seed=1)
