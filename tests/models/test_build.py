"""Building the network of a config."""

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmslak.models import SLaK, build_model

BACKBONE = dict(type='mmslak.SLaK', arch='nano', norm_cfg=dict(type='SyncBN'))


def test_part_has_ordinary_batch_norms_and_config_does_not_change():
    cfg = Config(dict(model=dict(type='Unknown', backbone=BACKBONE)))
    before = cfg.to_dict()
    backbone = build_model(cfg, cfg.model.backbone)
    assert isinstance(backbone, SLaK) and backbone.training
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in backbone.modules())
    assert cfg.to_dict() == before


def test_weights_are_initialised_only_on_request():
    cfg = Config(dict(model=BACKBONE))
    weight = build_model(cfg, init_weights=True).stages[0][0].pwconv1.weight
    # Truncated normal with std 0.02, unlike PyTorch's default, which is uniform.
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    bound = 1 / weight.shape[1] ** 0.5
    plain = build_model(cfg).stages[0][0].pwconv1.weight
    assert plain.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert torch.isfinite(plain).all()


def test_config_without_model_is_an_error():
    with pytest.raises(ValueError, match='has no model'):
        build_model(Config(dict(data=1)))
