"""ADE20K with MMSegmentation's pipeline, 2 images on each of 8 processes."""

_base_ = 'mmseg::_base_/datasets/ade20k.py'

data_root = 'data/ADEChallengeData2016'
train_dataloader = dict(batch_size=2, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
