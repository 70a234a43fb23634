"""UperNet + SLaK-T on your own images and label maps, 20k iterations. See docs/finetune.md.

Copy this file, and change data_root, classes and palette.
"""

_base_ = 'mmslak::upernet_slak_t_ade20k.py'

data_root = 'data/mine/'
# Pixels of class i have the value i, from 0; 255 is ignored.
classes = ('background', 'cat', 'dog')
palette = [[0, 0, 0], [220, 50, 47], [38, 139, 210]]
max_iters = 20000

labels = dict(type='LoadAnnotations')
train_pipeline, test_pipeline = (
    [labels if step['type'] == 'LoadAnnotations' else step for step in steps]
    for steps in (_base_.train_pipeline, _base_.test_pipeline)
)
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    reduce_zero_label=False,
)
train = dict(
    data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
    pipeline=train_pipeline,
    **dataset,
)
val = dict(
    data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
    pipeline=test_pipeline,
    **dataset,
)
train_dataloader = dict(dataset=train)
val_dataloader = dict(dataset=val)
test_dataloader = dict(dataset=val)

model = dict(
    decode_head=dict(num_classes=len(classes)), auxiliary_head=dict(num_classes=len(classes))
)
param_scheduler = [
    dict(_base_.param_scheduler[0]),
    dict(_base_.param_scheduler[1], end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=2000))
