"""Faster R-CNN + ResNet-101 on PASCAL VOC 2007, SLaK-T's recipe. Paper, table 5: 74.3 mAP."""

_base_ = 'faster_rcnn_resnet50_voc.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
