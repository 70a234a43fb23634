"""ResNet-101 for the ERF of an untrained network (tools/analysis/erf.py).

The weight of the last norm of each residual branch is usually initialised with zero. With that, the
ERF would be that of the shortcuts alone.
"""

_base_ = '../baselines/faster_rcnn_resnet101_voc.py'

model = dict(backbone=dict(zero_init_residual=False, init_cfg=None))
