"""Faster R-CNN with SLaK-T (paper, section 5.3), for the 20 classes of PASCAL VOC."""

_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmslak.SLaK',
        arch='tiny',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        # For training from scratch; a pre-trained checkpoint overwrites the layer scale.
        layer_scale_init_value=1.0,
        drop_path_rate=0.4,
        # Pre-trained weights: init_cfg=dict(type='Pretrained', checkpoint=FILE)
    ),
    neck=dict(in_channels=[124, 249, 499, 998]),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
