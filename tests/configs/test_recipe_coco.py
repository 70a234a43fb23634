"""The recipe of detection on COCO: appendix A.3 and the recipe that it refers to."""

import pytest
from helpers import ROOT

from mmslak.cli.config import load_config

pytest.importorskip('mmdet')


@pytest.mark.parametrize(
    ('name', 'widths', 'drop_path', 'decay', 'layers', 'epochs'),
    [
        ('cascade_mask_rcnn_slak_t_coco', [124, 249, 499, 998], 0.4, 0.7, 6, 36),
        ('cascade_mask_rcnn_slak_t_1x_coco', [124, 249, 499, 998], 0.4, 0.7, 6, 12),
        ('cascade_mask_rcnn_slak_s_coco', [124, 249, 499, 998], 0.6, 0.7, 12, 36),
        ('cascade_mask_rcnn_slak_b_coco', [166, 332, 665, 1331], 0.7, 0.8, 12, 36),
        ('baselines/cascade_mask_rcnn_convnext_t_coco', [96, 192, 384, 768], 0.4, 0.7, 6, 36),
        ('baselines/cascade_mask_rcnn_convnext_t_1x_coco', [96, 192, 384, 768], 0.4, 0.7, 6, 12),
        (
            'baselines/cascade_mask_rcnn_convnext_t_replknet_1x_coco',
            [96, 192, 384, 768], 0.4, 0.7, 6, 12,
        ),
    ],
)  # fmt: skip
def test_recipe(name, widths, drop_path, decay, layers, epochs):
    cfg = load_config(ROOT / f'configs/{name}.py')
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.model.neck.in_channels == widths
    heads = cfg.model.roi_head.bbox_head
    assert [head.bbox_coder.target_stds[0] for head in heads] == [0.1, 0.05, 0.033]
    for head in heads:
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.norm_cfg.type == 'SyncBN' and head.reg_decoded_bbox
        assert head.loss_bbox == dict(type='GIoULoss', loss_weight=10.0)
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert cfg.optim_wrapper.paramwise_cfg == dict(
        decay_rate=decay, decay_type='layer_wise', num_layers=layers
    )
    steps = {36: [27, 33], 12: [8, 11]}[epochs]
    assert cfg.train_cfg.max_epochs == epochs == cfg.param_scheduler[1].end
    assert cfg.param_scheduler[1].milestones == steps
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)
    assert cfg.train_dataloader.batch_size == 2
