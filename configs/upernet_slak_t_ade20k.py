"""UperNet + SLaK-T on ADE20K, 160k iterations. Paper, table 4: 47.6 mIoU, single scale."""

_base_ = [
    '_base_/models/upernet_slak.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    '_base_/seg_runtime.py',
]

# The masks of a sparse pre-trained backbone stay fixed; a dense backbone trains dense.
default_hooks = dict(sparsity=dict(type='mmslak.DynamicSparsityHook', mode='fixed'))
