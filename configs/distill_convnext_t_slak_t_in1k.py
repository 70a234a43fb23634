"""ConvNeXt-T taught by SLaK-T on ImageNet-1K, normalised knowledge distillation, 300 epochs.

Any MMPretrain classifier can be the student: put its model in the place of `student`. The teacher's
weights: --cfg-options model.teacher_checkpoint=work_dirs/slak_t_in1k/averaged.pth
"""

_base_ = 'baselines/convnext_t_in1k.py'

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
student = _base_.model
model = dict(
    _delete_=True,
    type='mmslak.DistilledClassifier',
    student=student,
    teacher=dict(
        type='ImageClassifier',
        backbone=dict(
            type='mmslak.SLaK', arch='tiny', out_indices=(3,), gap_before_final_norm=True
        ),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=998),
    ),
    teacher_checkpoint=None,
    gamma=1.5,
    temperature=1.0,
    weight=1.0,
)
