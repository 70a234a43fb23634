"""The recipe of semantic segmentation on ADE20K: appendix A.2 and the recipe that it refers to."""

import pytest
import torch
from helpers import ROOT
from mmengine.optim import PolyLR
from mmengine.optim.scheduler import LinearLR

from mmslak.cli.config import load_config

pytest.importorskip('mmseg')


@pytest.mark.parametrize(
    ('name', 'arch', 'widths', 'drop_path', 'layers'),
    [
        ('upernet_slak_t_ade20k', 'tiny', [124, 249, 499, 998], 0.4, 6),
        ('upernet_slak_s_ade20k', 'small', [124, 249, 499, 998], 0.3, 12),
        ('upernet_slak_b_ade20k', 'base', [166, 332, 665, 1331], 0.4, 12),
        ('baselines/upernet_convnext_t_ade20k', 'tiny', [96, 192, 384, 768], 0.4, 6),
        ('baselines/upernet_convnext_s_ade20k', 'small', [96, 192, 384, 768], 0.3, 12),
        ('baselines/upernet_convnext_b_ade20k', 'base', [128, 256, 512, 1024], 0.4, 12),
    ],
)
def test_recipe(name, arch, widths, drop_path, layers):
    cfg = load_config(ROOT / f'configs/{name}.py')
    assert cfg.model.backbone.arch == arch
    assert cfg.model.backbone.drop_path_rate == drop_path
    assert cfg.model.backbone.layer_scale_init_value == 1.0
    head, aux = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (head.type, head.in_channels, head.channels) == ('UPerHead', widths, 512)
    assert (aux.in_channels, aux.in_index, aux.loss_decode.loss_weight) == (widths[2], 2, 0.4)
    assert head.num_classes == aux.num_classes == 150
    assert head.norm_cfg.type == 'SyncBN'
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    )
    assert cfg.optim_wrapper.paramwise_cfg == dict(
        decay_rate=0.9, decay_type='stage_wise', num_layers=layers
    )
    assert (cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size) == (160000, 2)
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))


def test_80k_schedule():
    cfg = load_config(ROOT / 'configs/upernet_slak_t_80k_ade20k.py')
    assert cfg.train_cfg.max_iters == 80000 == cfg.param_scheduler[1].end
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    assert cfg.model.backbone.drop_path_rate == 0.1


def test_learning_rate():
    """Warm-up from 1e-6 over 1500 iterations, times the polynomial decay over the training."""
    config = load_config(ROOT / 'configs/upernet_slak_t_ade20k.py')
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-4)
    schedulers = []
    for kind, cfg in zip((LinearLR, PolyLR), config.param_scheduler, strict=True):
        cfg = dict(cfg, begin=cfg['begin'] // 100, end=cfg['end'] // 100)
        assert cfg.pop('type') == kind.__name__
        schedulers.append(kind(optimizer, **cfg))
    for step in range(1600):
        warm_up = min(1.0, 1e-6 + (1 - 1e-6) * step / 14)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(
            1e-4 * warm_up * (1 - step / 1599), rel=1e-6, abs=1e-12
        )
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
