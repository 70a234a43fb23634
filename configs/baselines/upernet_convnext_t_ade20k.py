"""UperNet + ConvNeXt-T on ADE20K, SLaK-T's recipe. Paper, table 4: 46.0 mIoU."""

_base_ = '../upernet_slak_t_ade20k.py'

custom_imports = dict(imports=['mmslak', 'mmpretrain.models'], allow_failed_imports=False)
custom_hooks = []
widths = [96, 192, 384, 768]
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        out_indices=[0, 1, 2, 3],
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    ),
    decode_head=dict(in_channels=widths),
    auxiliary_head=dict(in_channels=widths[2]),
)
