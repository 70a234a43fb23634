"""Loading configs, and adapting them to the command line and to the machine."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config

from mmslak.cli.config import (
    ToolboxMissingError,
    enable_amp,
    enable_lr_scaling,
    enable_tta,
    load_config,
    prepare,
    process_count,
    set_effective_batch,
)


@pytest.mark.parametrize('name', ['upernet_slak_t_ade20k', 'cascade_mask_rcnn_slak_t_coco'])
def test_pretrained_backbone_by_option(name):
    key = 'model.backbone.init_cfg'
    options = {f'{key}.type': 'Pretrained', f'{key}.checkpoint': 'file.pth'}
    cfg = load_config(ROOT / f'configs/{name}.py', options)
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='file.pth')


def test_data_root_applies_to_every_path():
    pytest.importorskip('mmseg')
    cfg = load_config(ROOT / 'configs/upernet_slak_t_ade20k.py', dict(data_root='/else/where'))
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == '/else/where'
    assert 'data/ADEChallengeData2016' not in cfg.pretty_text


def test_amp_and_tta():
    pytest.importorskip('mmseg')
    cfg = load_config(ROOT / 'configs/upernet_slak_t_ade20k.py')
    enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'mmslak.AmpOptimWrapper'
    enable_tta(cfg)
    assert cfg.model.type == 'SegTTAModel'
    assert cfg.model.module.type == 'EncoderDecoder'
    assert cfg.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'
    with pytest.raises(ValueError, match='tta_model'):
        enable_tta(Config(dict(model=dict(type='A'))))
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


def test_learning_rate_scaling():
    cfg = Config(
        dict(auto_scale_lr=dict(base_batch_size=16), optim_wrapper=dict(accumulative_counts=4))
    )
    enable_lr_scaling(cfg)
    # MMEngine divides the number of images per iteration by it.
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=4)
    for wrong in (None, dict(enable=False), dict(base_batch_size=0)):
        with pytest.raises(ValueError, match=r'auto_scale_lr\.base_batch_size'):
            enable_lr_scaling(Config(dict(auto_scale_lr=wrong, optim_wrapper=dict())))


def test_launchers_that_cannot_run(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(ValueError, match='torchrun'):
        prepare(Config(dict(model=dict())), 'pytorch')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='slurm needs GPUs'):
        prepare(Config(dict(model=dict())), 'slurm')


def test_missing_config_or_toolbox_is_named(monkeypatch, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.py'):
        load_config('nothing.py')
    config = tmp_path / 'c.py'
    config.write_text("default_scope = 'mmdet'\n")
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(ToolboxMissingError, match=r"pip install 'mmslak\[det\]'"):
        load_config(config)


def test_import_needs_no_toolbox():
    """In a new process that cannot import any toolbox."""
    code = (
        'import sys\n'
        "for name in ('mmdet', 'mmseg', 'mmpretrain'): sys.modules[name] = None\n"
        'import mmslak; from mmslak.models import SLaK; SLaK("nano")\n'
        'import mmslak.cli.run, mmslak.engine.runner, mmslak.sample_data, mmslak.analysis\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_config_of_an_installed_toolbox():
    pytest.importorskip('mmseg')
    cfg = load_config('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128.py')
    assert cfg.model.backbone.type == 'UNet'
    with pytest.raises(FileNotFoundError, match='nothing'):
        load_config('mmseg::unet/nothing.py')
    with pytest.raises(ValueError, match='before :: must be one of mmslak, mmseg'):
        load_config('torchvision::unet/nothing.py')


def config_with_batch_size(batch_size=16):
    return Config(
        dict(
            train_dataloader=dict(batch_size=batch_size),
            optim_wrapper=dict(type='OptimWrapper'),
            custom_hooks=[dict(type='mmpretrain.EMAHook'), dict(type='Other')],
        )
    )


def test_effective_batch():
    cfg = config_with_batch_size()
    set_effective_batch(cfg, 4096, 8)
    assert cfg.optim_wrapper.accumulative_counts == 4096 // 16 // 8 == 32
    assert cfg.custom_hooks == [dict(type='mmpretrain.EMAHook', interval=32), dict(type='Other')]
    # An interval in the config counts optimiser steps.
    cfg = config_with_batch_size()
    cfg.custom_hooks[0].interval = 2
    set_effective_batch(cfg, 64, 1)
    assert cfg.custom_hooks[0].interval == 8
    for effective, processes in ((4096, 3), (8, 1), (0, 1), (-16, 1)):
        with pytest.raises(
            ValueError, match=r'multiple of . process.* x .*batch_size=16, got -?\d'
        ):
            set_effective_batch(config_with_batch_size(), effective, processes)


def test_process_count(monkeypatch):
    for key in ('WORLD_SIZE', 'SLURM_NTASKS'):
        monkeypatch.setenv(key, '6')
    assert [process_count(x) for x in ('none', 'pytorch', 'slurm')] == [1, 6, 6]
