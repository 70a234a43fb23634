"""ImageNet-1K at 224 x 224: RandAugment m9 std 0.5 increasing, random erasing 0.25."""

_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

# Named here, so that an option can move all of it.
data_root = 'data/imagenet'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
