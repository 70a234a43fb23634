"""SLaK-T on ImageNet-1K from two LMDB files, which tools/pack_lmdb.py writes."""

_base_ = 'slak_t_in1k.py'

train_images, val_images = 'data/imagenet_train.lmdb', 'data/imagenet_val.lmdb'
# Each line has a file, with its name in the LMDB, and its label.
train_list, val_list = 'data/imagenet/meta/train.txt', 'data/imagenet/meta/val.txt'

train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=dict(backend='lmdb', db_path=train_images)),
    *_base_.train_pipeline[1:],
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=dict(backend='lmdb', db_path=val_images)),
    *_base_.test_pipeline[1:],
]
train_dataset = dict(
    _delete_=True, type='CustomDataset', ann_file=train_list, pipeline=train_pipeline
)
val_dataset = dict(_delete_=True, type='CustomDataset', ann_file=val_list, pipeline=test_pipeline)
train_dataloader = dict(dataset=train_dataset)
val_dataloader = dict(dataset=val_dataset)
test_dataloader = dict(dataset=val_dataset)
