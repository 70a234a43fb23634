"""MMPretrain's runtime, with this package registered, TensorBoard files and the best model kept."""

_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['mmslak'], allow_failed_imports=False)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(
    plain_checkpoint=dict(type='mmslak.PlainCheckpointHook'),
    checkpoint=dict(
        interval=1, max_keep_ckpts=2, save_best='accuracy/top1', rule='greater'
    ),
)  # fmt: skip
