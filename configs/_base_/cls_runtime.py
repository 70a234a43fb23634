"""MMPretrain's runtime with this package, TensorBoard files, and an average of the weights."""

_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['mmslak'], allow_failed_imports=False)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
default_hooks = dict(
    plain_checkpoint=dict(type='mmslak.PlainCheckpointHook'),
    checkpoint=dict(interval=1, max_keep_ckpts=2, save_best='accuracy/top1', rule='greater'),
    # Averages weights and batch norm statistics after each optimiser step. Both models are
    # evaluated.
    ema=dict(
        type='mmpretrain.EMAHook',
        momentum=1e-4,
        update_buffers=True,
        evaluate_on_origin=True,
        priority='ABOVE_NORMAL',
    ),
    # At the end: batch norm statistics of the average, scores, raw.pth and averaged.pth.
    finish_training=dict(type='mmslak.FinishTrainingHook'),
)
