"""ConvNeXt-S on ImageNet-1K, SLaK's recipe. Paper, table 3: 83.1 % top-1."""

_base_ = [
    'mmpretrain::_base_/models/convnext/convnext-small.py',
    '../_base_/datasets/in1k.py',
    '../_base_/schedules/in1k_300e.py',
    '../_base_/cls_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.4))
train_dataloader = dict(batch_size=64)
