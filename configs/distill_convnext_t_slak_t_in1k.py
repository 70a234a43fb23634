"""ConvNeXt-T distilled from SLaK-T on ImageNet-1K, normalised knowledge distillation, 300 epochs.

Any classifier of MMPretrain can be the student: put its model in the place of `student`. Weights of
the teacher: --cfg-options model.teacher_checkpoint=work_dirs/slak_t_in1k/averaged.pth
"""

_base_ = ['baselines/convnext_t_in1k.py', '_base_/models/slak_teacher.py']

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
student = _base_.model
model = dict(
    _delete_=True,
    type='mmslak.DistilledClassifier',
    student=student,
    teacher=_base_.teacher,
    teacher_checkpoint=None,
    gamma=1.5,
    temperature=1.0,
    weight=1.0,
)
