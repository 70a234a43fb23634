"""ConvNeXt-T on ImageNet-1K, SLaK's recipe. Paper, table 3: 82.1 % top-1."""

_base_ = [
    'mmpretrain::_base_/models/convnext/convnext-tiny.py',
    '../_base_/datasets/in1k.py',
    '../_base_/schedules/in1k_300e.py',
    '../_base_/cls_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
train_dataloader = dict(batch_size=128)
