"""SLaK-T as the teacher of a distillation."""

teacher = dict(
    type='ImageClassifier',
    backbone=dict(type='mmslak.SLaK', arch='tiny', out_indices=(3,), gap_before_final_norm=True),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=998),
)
