"""A small ConvNeXt taught by SLaK-nano on the sample data, which has to be trained first:

python tools/train.py configs/sample/slak_nano_in1k.py
"""

_base_ = 'convnext_nano_in1k.py'

student = _base_.model
model = dict(
    _delete_=True,
    type='mmslak.DistilledClassifier',
    student=student,
    teacher=dict(
        type='ImageClassifier',
        backbone=dict(
            type='mmslak.SLaK',
            arch='nano',
            kernel_sizes=(15, 13, 11, 5),
            out_indices=(3,),
            gap_before_final_norm=True,
        ),
        head=dict(type='LinearClsHead', num_classes=8, in_channels=166),
    ),
    teacher_checkpoint='work_dirs/slak_nano_in1k/averaged.pth',
)
