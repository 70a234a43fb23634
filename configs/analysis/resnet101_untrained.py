"""ResNet-101 for a look at what an untrained network sees (tools/analysis/erf.py).

The last norm of each residual branch usually starts at zero: such a network would see through its
shortcuts alone.
"""

_base_ = '../baselines/faster_rcnn_resnet101_voc.py'

model = dict(backbone=dict(zero_init_residual=False, init_cfg=None))
