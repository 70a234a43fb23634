"""Swin-S on ImageNet-1K, SLaK's recipe with Swin's own drop path. Paper, table 3: 83.0 % top-1."""

_base_ = [
    'mmpretrain::_base_/models/swin_transformer/small_224.py',
    '../_base_/datasets/in1k.py',
    '../_base_/schedules/in1k_300e.py',
    '../_base_/cls_runtime.py',
]

train_dataloader = dict(batch_size=64)
