"""Cascade Mask R-CNN with SLaK-T (paper, section 5.4).

Box heads have four convolutions and one fully connected layer, and a GIoU loss on decoded boxes.
"""

_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

# Synchronised in distributed training, ordinary batch norm otherwise.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmslak.SLaK',
        arch='tiny',
        norm_cfg=norm_cfg,
        # For training from scratch; a pre-trained checkpoint overwrites the layer scale.
        layer_scale_init_value=1.0,
        drop_path_rate=0.4,
        # Pre-trained weights: init_cfg=dict(type='Pretrained', checkpoint=FILE)
    ),
    neck=dict(in_channels=[124, 249, 499, 998]),
    roi_head=dict(
        bbox_head=[
            dict(
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=norm_cfg,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder',
                    target_means=[0.0, 0.0, 0.0, 0.0],
                    target_stds=[centre, centre, size, size],
                ),
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            # The three stages of the cascade.
            for centre, size in ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
        ]
    ),
)
