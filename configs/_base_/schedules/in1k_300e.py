"""Paper, appendix A.1: 300 epochs, batch size 4096, AdamW with lr 4e-3, 20 epochs warm-up, cosine.

`tools/train.py --effective-batch 4096` accumulates gradients to this batch size on any number of
processes.
"""

max_epochs = 300
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    # Two parameter groups instead of one for each parameter.
    constructor='mmslak.GroupedOptimWrapperConstructor',
    # No weight decay on norms, biases, layer scale and position biases.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            '.absolute_pos_embed': dict(decay_mult=0.0),
            '.relative_position_bias_table': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=20, end=max_epochs,
        convert_to_iter_based=True,
    ),
]  # fmt: skip
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=4096)
