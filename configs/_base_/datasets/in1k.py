"""ImageNet-1K at 224 x 224 with RandAugment (m9, std 0.5, increasing) and random erasing 0.25."""

_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

# One variable, so that --cfg-options data_root=PATH moves the whole dataset.
data_root = 'data/imagenet'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
