"""SLaK-T on ImageNet-1K, 300 epochs. Paper, table 3: 82.5 % top-1."""

_base_ = [
    '_base_/models/slak_cls.py',
    '_base_/datasets/in1k.py',
    '_base_/schedules/in1k_300e.py',
    '_base_/cls_runtime.py',
]

train_dataloader = dict(batch_size=128)
default_hooks = dict(
    sparsity=dict(
        type='mmslak.DynamicSparsityHook',
        sparsity=0.4,
        allocation='snip',
        targets='all',
        update=dict(every=2000, rate=0.5, rate_min=0.005, schedule='cosine', grow='random'),
    )
)
