"""UperNet on SLaK-T (paper, section 5.2): UPerHead of 512 channels, FCN head on stage 3.

A pre-trained backbone: ``model=dict(backbone=dict(init_cfg=dict(type='Pretrained',
checkpoint=FILE)))`` in a config of one's own.
"""

_base_ = 'mmseg::_base_/models/upernet_r50.py'

# Batch norms are synchronised when training is distributed and ordinary when it is not.
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
        # Fine-tuning starts from a checkpoint's layer scale; 1.0 is for what it lacks.
        layer_scale_init_value=1.0,
        drop_path_rate=0.4,
        # A pre-trained backbone: dict(type='Pretrained', checkpoint=FILE)
    ),
    decode_head=dict(in_channels=widths, channels=512, num_classes=150),
    auxiliary_head=dict(in_channels=widths[2], num_classes=150),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
