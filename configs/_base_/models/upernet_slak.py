"""UperNet with SLaK-T (paper, section 5.2): UPerHead with 512 channels, FCN head on stage 3."""

_base_ = 'mmseg::_base_/models/upernet_r50.py'

# Synchronised in distributed training, ordinary batch norm otherwise.
norm_cfg = dict(type='SyncBN', requires_grad=True)
widths = [124, 249, 499, 998]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='mmslak.SLaK',
        arch='tiny',
        norm_cfg=norm_cfg,
        # For training from scratch; a pre-trained checkpoint overwrites the layer scale.
        layer_scale_init_value=1.0,
        drop_path_rate=0.4,
        # Pre-trained weights: init_cfg=dict(type='Pretrained', checkpoint=FILE)
    ),
    decode_head=dict(in_channels=widths, channels=512, num_classes=150),
    auxiliary_head=dict(in_channels=widths[2], num_classes=150),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
