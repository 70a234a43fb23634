"""Faster R-CNN on SLaK-T (paper, section 5.3), for the 20 classes of PASCAL VOC."""

_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmslak.SLaK',
        arch='tiny',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        # Fine-tuning starts from a checkpoint's layer scale; 1.0 is for what it lacks.
        layer_scale_init_value=1.0,
        drop_path_rate=0.4,
        # A pre-trained backbone: init_cfg=dict(type='Pretrained', checkpoint=FILE)
    ),
    neck=dict(in_channels=[124, 249, 499, 998]),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
