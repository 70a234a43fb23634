"""Whole models merged for inference, through the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmslak.checkpoints import CheckpointError, merge_checkpoint
from mmslak.cli.config import load_config

ROOT = Path(__file__).resolve().parents[2]
TINY = dict(arch='nano', kernel_sizes=(13, 11, 9, 7))


def build(cfg):
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model).eval()


def trained_like(model):
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.3, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    return model


@pytest.mark.parametrize(
    ('toolbox', 'config'),
    [
        ('mmseg', 'configs/sample/upernet_slak_nano_ade20k.py'),
        ('mmdet', 'configs/sample/cascade_mask_rcnn_slak_nano_coco.py'),
        ('mmpretrain', 'configs/sample/slak_nano_in1k.py'),
    ],
)
def test_models_of_every_toolbox(toolbox, config):
    pytest.importorskip(toolbox)
    cfg = load_config(ROOT / config)
    cfg.model.backbone.update(TINY)
    model = trained_like(build(cfg))
    merged, difference = merge_checkpoint(cfg, dict(state_dict=model.state_dict()))
    assert difference < 1e-4
    cfg.model.backbone.deploy = True
    deployed = build(cfg)
    deployed.load_state_dict(merged['state_dict'])
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        outputs = [m.extract_feat(image) for m in (model, deployed)]
    for a, b in zip(*outputs, strict=True):
        assert ((a - b).abs().max() / a.abs().max()).item() < 1e-4
    with pytest.raises(ValueError, match='its checkpoints are merged'):
        merge_checkpoint(cfg, merged)


def test_what_does_not_fit_is_one_sentence():
    cfg = Config(
        dict(
            default_scope='mmengine',
            model=dict(
                type='mmengine.ImgDataPreprocessor',
            ),
        )
    )
    with pytest.raises(ValueError, match=r'model.backbone must be a mmslak.SLaK .* NoneType'):
        merge_checkpoint(cfg, {})
    pytest.importorskip('mmseg')
    cfg = load_config(ROOT / 'configs/sample/upernet_slak_nano_ade20k.py')
    with pytest.raises(CheckpointError, match=r'f.pth does not fit .* belong together'):
        merge_checkpoint(cfg, dict(state_dict={}), 'f.pth')


def test_the_command_line(tmp_path):
    pytest.importorskip('mmpretrain')
    config = 'configs/sample/slak_nano_in1k.py'
    model = trained_like(build(load_config(ROOT / config)))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    command = [sys.executable, 'tools/deploy/merge.py', config, tmp_path / 'trained.pth']
    texts = []
    for _ in range(2):
        done = subprocess.run(
            [*map(str, command), str(tmp_path / 'merged.pth')],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
        )
        texts.append((done.returncode, done.stdout + done.stderr))
    assert texts[0][0] == 0, texts[0]
    assert '--cfg-options model.backbone.deploy=True' in texts[0][1]
    assert texts[1][0] == 2
    assert 'already exists' in texts[1][1]
    merged = torch.load(tmp_path / 'merged.pth', weights_only=True)
    assert not any('.small.' in name for name in merged['state_dict'])
