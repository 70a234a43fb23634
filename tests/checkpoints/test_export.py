"""Exporting trained models to one file."""

import json

import pytest
import torch
from helpers import ROOT, randomise_as_trained, run_tool
from mmengine.config import Config

from mmslak.checkpoints import (
    SPARSITY_STATE,
    CheckpointError,
    export_checkpoint,
    read_checkpoint,
    remove_initialisation,
)
from mmslak.cli.config import load_config
from mmslak.models import build_model
from mmslak.sparsity import DynamicSparsity, select_model_targets, unpack_masks

CONFIG = 'configs/upernet_slak_nano_camvid.py'


@pytest.fixture(scope='module')
def cfg():
    pytest.importorskip('mmseg')
    return load_config(ROOT / CONFIG)


@pytest.fixture(scope='module')
def trained(cfg):
    """Return a sparse checkpoint as DynamicSparsityHook and EMAHook save it."""
    model = randomise_as_trained(build_model(cfg))
    parameters = select_model_targets(model, 'all')
    dynamics = DynamicSparsity(parameters, 0.4, 'erk', total_steps=10)
    dynamics.masks.apply_()
    raw = {f'module.{name}': torch.full_like(v, 7) for name, v in model.state_dict().items()}
    return {
        'meta': dict(dataset_meta=dict(classes=['a', 'b'], palette=[[0, 0, 0], [1, 1, 1]], x=None)),
        'state_dict': model.state_dict(),
        'ema_state_dict': dict(raw, steps=torch.tensor(10)),
        SPARSITY_STATE: dynamics.state_dict(),
    }


def test_round_trip(cfg, trained, tmp_path):
    file = tmp_path / 'directory' / 'm.safetensors'
    done = export_checkpoint(cfg, trained, file, dict(licence='X', miou=1.5))
    found = read_checkpoint(file)
    weights, state = trained['state_dict'], trained[SPARSITY_STATE]
    # `state_dict`, which the validation scored, and not `ema_state_dict`.
    assert found['state_dict'].keys() == weights.keys()
    for name, value in found['state_dict'].items():
        rounded = weights[name].half().float() if weights[name].dim() >= 2 else weights[name]
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, rounded)
    masks = unpack_masks(state)
    assert found[SPARSITY_STATE]['shapes'] == state['shapes']
    assert unpack_masks(found[SPARSITY_STATE]).keys() == masks.keys()
    for name, mask in unpack_masks(found[SPARSITY_STATE]).items():
        assert torch.equal(mask, masks[name])
        assert not found['state_dict'][name][~mask].any()
    meta = found['meta']
    assert meta['dataset_meta'] == dict(classes=['a', 'b'], palette=[[0, 0, 0], [1, 1, 1]])
    assert (meta['name'], meta['licence'], meta['miou']) == ('m', 'X', 1.5)
    assert meta['test_pipeline'] == cfg.test_pipeline
    assert meta['default_scope'] == 'mmseg'
    # The config that the file contains builds the same model.
    again = build_model(Config(dict(default_scope='mmseg', model=meta['model'])))
    again.load_state_dict(found['state_dict'])
    total = sum(p.numel() for p in again.parameters())
    assert done.parameters == total
    assert done.active == total - sum(int((~mask).sum()) for mask in masks.values())
    assert done.size == file.stat().st_size <= 2.5e6


def test_dense_checkpoints_and_classes_of_the_config(cfg, trained, tmp_path):
    done = export_checkpoint(cfg, trained['state_dict'], tmp_path / 'm.safetensors')
    assert done.active == done.parameters
    found = read_checkpoint(tmp_path / 'm.safetensors')
    assert SPARSITY_STATE not in found
    assert found['meta']['dataset_meta'] == cfg.metainfo


def test_what_is_refused(cfg, trained, tmp_path):
    file = tmp_path / 'm.safetensors'
    with pytest.raises(ValueError, match=r'OUT must end with \.safetensors, got m\.pth'):
        export_checkpoint(cfg, trained, 'm.pth')
    with pytest.raises(ValueError, match="key 'model' of --meta is already used"):
        export_checkpoint(cfg, trained, file, dict(model=1))
    with pytest.raises(CheckpointError, match=r'c\.pth does not fit the model of the config'):
        export_checkpoint(cfg, dict(state_dict={}), file, source='c.pth')
    without = cfg.copy()
    without.test_dataloader.dataset.pop('metainfo')
    with pytest.raises(ValueError, match=r'c\.pth has no classes'):
        export_checkpoint(without, trained['state_dict'], file, source='c.pth')
    assert not list(tmp_path.iterdir())
    file.touch()
    with pytest.raises(ValueError, match=r'OUT .*m\.safetensors already exists'):
        export_checkpoint(cfg, trained, file)


def test_paths_of_the_training_are_not_exported():
    init = dict(type='Pretrained', checkpoint='/home/me/c.pth')
    settings = dict(
        pretrained='/home/me', backbone=dict(init_cfg=init, depth=2), heads=[dict(init_cfg=[init])]
    )
    assert remove_initialisation(settings) is settings
    assert settings == dict(backbone=dict(depth=2), heads=[{}])


def test_command_line(trained, tmp_path):
    torch.save(trained, tmp_path / 'c.pth')
    out = tmp_path / 'm.safetensors'
    command = ['tools/deploy/export.py', CONFIG, tmp_path / 'c.pth', out]
    printed = run_tool(*command, '--meta', 'licence=CC BY 4.0', 'miou=20.5', 'splits=["a", "b"]')
    meta = read_checkpoint(out)['meta']
    assert (meta['licence'], meta['miou'], meta['splits']) == ('CC BY 4.0', 20.5, ['a', 'b'])
    assert f'{out.stat().st_size / 1e6:.2f} MB' in printed
    state = trained[SPARSITY_STATE]
    masked = sum(int((~mask).sum()) for mask in unpack_masks(state).values())
    assert f'of which {840_289 - masked:,} are active' in printed
    assert '840,289 parameters' in printed
    assert 'already exists' in run_tool(*command, expect=2)
    assert json.dumps(read_checkpoint(out)['meta']) == json.dumps(meta)


def test_notes_of_the_command_line(load_tool):
    parse = load_tool('deploy/export.py').parse_notes
    assert parse(['a=1', 'b=x=y', 'c=', 'd=null']) == dict(a=1, b='x=y', c='', d=None)
    for wrong in (['a'], ['=1'], ['a=1', 'a=2']):
        with pytest.raises(ValueError, match='--meta must have entries KEY=VALUE'):
            parse(wrong)
