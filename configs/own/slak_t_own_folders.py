"""SLaK-T on your own images, with one directory for each class. See docs/finetune.md.

Copy this file, and change data_root and classes. The schedule is that of slak_b_384_in1k.py, at
224 x 224.
"""

_base_ = 'mmslak::slak_t_in1k.py'

data_root = 'data/mine/'
# The names of the directories, in alphabetical order.
classes = ('bird', 'cat', 'dog')
max_epochs = 30

dataset = dict(type='CustomDataset', data_root=data_root, metainfo=dict(classes=classes))
train = dict(data_prefix='train', pipeline=_base_.train_pipeline, **dataset)
val = dict(data_prefix='val', pipeline=_base_.test_pipeline, **dataset)
train_dataloader = dict(batch_size=32, dataset=dict(_delete_=True, **train))
val_dataloader = dict(dataset=dict(_delete_=True, **val))
test_dataloader = dict(dataset=dict(_delete_=True, **val))
val_evaluator = dict(topk=(1,))
test_evaluator = dict(topk=(1,))

data_preprocessor = dict(num_classes=len(classes))
model = dict(head=dict(num_classes=len(classes)), train_cfg=None)
optim_wrapper = dict(
    optimizer=dict(lr=5e-5, weight_decay=1e-8),
    constructor='mmslak.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.7, decay_type='layer_wise'),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, end=max_epochs,
        convert_to_iter_based=True,
    )
]  # fmt: skip
train_cfg = dict(max_epochs=max_epochs)
auto_scale_lr = dict(base_batch_size=512)
default_hooks = dict(
    # The average of a short training needs a short memory.
    ema=dict(momentum=0.01),
    # The masks of a sparse pre-trained backbone stay fixed; a dense backbone trains dense.
    sparsity=dict(_delete_=True, type='mmslak.DynamicSparsityHook', mode='fixed'),
)
