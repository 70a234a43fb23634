"""Cascade Mask R-CNN + ConvNeXt-T on COCO, 12 epochs, SLaK-T's recipe. Paper, table 6: 47.3."""

_base_ = '../cascade_mask_rcnn_slak_t_1x_coco.py'

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
