"""UperNet + ConvNeXt-T on ADE20K, SLaK-T's recipe. Paper, table 4: 46.0 mIoU."""

_base_ = ['../upernet_slak_t_ade20k.py', '../_base_/models/convnext_backbone.py']

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
default_hooks = dict(sparsity=dict(mode='off'))
widths = [96, 192, 384, 768]
model = dict(
    backbone=dict(_base_.convnext, _delete_=True),
    decode_head=dict(in_channels=widths),
    auxiliary_head=dict(in_channels=widths[2]),
)
