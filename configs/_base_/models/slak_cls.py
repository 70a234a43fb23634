"""SLaK-T as a classifier: label smoothing 0.1, Mixup 0.8, CutMix 1.0."""

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mmslak.SLaK',
        arch='tiny',
        kernel_sizes=(51, 49, 47, 13),
        drop_path_rate=0.1,
        layer_scale_init_value=1e-6,
        out_indices=(3,),
        gap_before_final_norm=True,
        norm_cfg=dict(type='BN'),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=998,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
