"""Configs of the package by name, and the index of its models."""

import shutil
from pathlib import Path

import pytest
import yaml
from helpers import ROOT
from mmengine.config import Config

from mmslak.checkpoints import find_checkpoint
from mmslak.cli.config import default_work_dir, load_config
from mmslak.engine import packaged_configs

pytest.importorskip('mmseg')
NAME = 'upernet_slak_t_ade20k'


def test_config_of_the_package_as_a_base(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(f"_base_ = 'mmslak::{NAME}.py'\nmodel = dict(backbone=dict(arch='small'))\n")
    found, wanted = Config.fromfile(config), Config.fromfile(ROOT / f'configs/{NAME}.py')
    assert found.model.backbone.arch == 'small'
    found.model.backbone.arch = wanted.model.backbone.arch
    # In particular, types are looked up in the same scope.
    assert found.to_dict() == wanted.to_dict()
    config.write_text("_base_ = ['mmslak::_base_/seg_runtime.py', 'mmslak::none.py']\n")
    with pytest.raises(FileNotFoundError, match='mmslak has no config mmslak::none'):
        Config.fromfile(config)


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', f'mmslak::{NAME}', f'mmslak::{NAME}.py'])
def test_config_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load_config(name)
    assert cfg.filename == str(ROOT / f'configs/{NAME}.py')
    assert default_work_dir(cfg, name) == f'work_dirs/{NAME}'


def test_file_comes_before_the_config_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f'{NAME}.py').write_text('a = 1\n')
    assert load_config(f'{NAME}.py').to_dict() == {'a': 1}
    assert 'model' in load_config(f'mmslak::{NAME}.py')


@pytest.mark.parametrize(
    ('name', 'near'),
    [
        ('mmslak::uppernet_slak_t_ade20k', NAME),
        (f'configs/{NAME}.py', NAME),
        ('slak_t_in1', 'slak_t_in1k'),
    ],
)
def test_name_that_does_not_exist_is_refused_with_the_nearest_one(
    name, near, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        load_config(name)
    assert str(error.value) == f'config {name} does not exist; did you mean {near}?'


def test_installed_package_has_its_configs_in_mim(tmp_path, monkeypatch):
    shutil.copytree(ROOT / 'configs/_base_', tmp_path / '.mim/configs/_base_')
    (tmp_path / '.mim/configs/sample').mkdir()
    (tmp_path / '.mim/configs/sample/own.py').touch()
    monkeypatch.setattr(packaged_configs, '_PACKAGE', tmp_path)
    assert packaged_configs.config_names() == ['sample/own']
    assert packaged_configs.packaged_config(NAME) is None


def test_index_of_models_lists_every_recipe():
    (metafile,) = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    index = yaml.safe_load((ROOT / metafile).read_text())
    collections = {collection['Name'] for collection in index['Collections']}
    models = {model['Name']: model for model in index['Models']}
    assert len(models) == len(index['Models'])
    assert {model['In Collection'] for model in models.values()} <= collections
    listed = sorted(model['Config'] for model in models.values())
    assert listed == sorted(f'configs/{path.name}' for path in (ROOT / 'configs').glob('*.py'))


def test_mim_has_no_weights_to_download():
    index = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())
    # `mim download` downloads a file of this name unless it exists in the directory.
    names = {model['Weights'].split('/')[-1] for model in index['Models']}
    assert names == {''}


def test_trained_model_in_the_index():
    index = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())
    (model,) = [model for model in index['Models'] if 'Results' in model]
    weights = Path(find_checkpoint(model['Name']))
    assert weights.is_relative_to(ROOT)
    card = weights.with_suffix('.md').read_text()
    assert model['Config'] in card
    assert f'{model["Metadata"]["Parameters"]:,} parameters' in card
    assert f'{model["Results"][0]["Metrics"]["mIoU"]} mIoU' in card
