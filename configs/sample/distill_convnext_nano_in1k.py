"""A small ConvNeXt distilled from SLaK-nano on the sample data. Train the teacher first:

python tools/train.py configs/sample/slak_nano_in1k.py
"""

_base_ = ['convnext_nano_in1k.py', '../_base_/models/slak_teacher.py']

student = _base_.model
model = dict(
    _delete_=True,
    type='mmslak.DistilledClassifier',
    student=student,
    teacher=dict(
        _base_.teacher,
        backbone=dict(_base_.teacher.backbone, arch='nano', kernel_sizes=(15, 13, 11, 5)),
        head=dict(_base_.teacher.head, num_classes=8, in_channels=166),
    ),
    teacher_checkpoint='work_dirs/slak_nano_in1k/averaged.pth',
)
