"""Faster R-CNN + ResNet-50 on PASCAL VOC 2007, SLaK-T's recipe. Paper, table 5: 74.0 mAP."""

_base_ = '../faster_rcnn_slak_t_voc.py'

default_hooks = dict(sparsity=dict(mode='off'))
model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        frozen_stages=1,
        norm_eval=True,
        # The frozen stage needs pre-trained weights: torchvision's, or checkpoint=FILE.
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
# ResNet has no layer-wise lr decay, and its norms and biases have no weight decay.
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
