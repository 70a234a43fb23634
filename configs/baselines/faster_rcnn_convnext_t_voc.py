"""Faster R-CNN + ConvNeXt-T on PASCAL VOC 2007, SLaK-T's recipe. Paper, table 5: 80.6 mAP."""

_base_ = '../faster_rcnn_slak_t_voc.py'

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
custom_hooks = []
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
