"""MMSegmentation's runtime with this package and TensorBoard files."""

_base_ = 'mmseg::_base_/default_runtime.py'

custom_imports = dict(imports=['mmslak'], allow_failed_imports=False)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
