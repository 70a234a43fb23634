"""Names of models in the package as paths of checkpoints."""

import re

import pytest
import torch
from mmengine.runner import CheckpointLoader, load_checkpoint

import mmslak
from mmslak.checkpoints import (
    CheckpointError,
    find_checkpoint,
    load_backbone,
    pretrained_names,
    read_checkpoint,
    resolve_name,
)
from mmslak.checkpoints.safetensors_file import write_safetensors
from mmslak.models import SLaK

NAME = 'slak_nano_camvid'


def test_names_are_those_of_files_in_the_package():
    assert NAME in pretrained_names()
    for name in pretrained_names():
        file = find_checkpoint(name)
        assert file == resolve_name(name)
        assert re.search(rf'mmslak/pretrained/{name}\.safetensors$', file)
        assert file.startswith(mmslak.__path__[0])


def test_a_directory_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='is a directory; name one of the checkpoints'):
        find_checkpoint(tmp_path)


def test_paths_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'a': torch.ones(1)}, NAME)
    assert find_checkpoint(tmp_path / NAME) == str(tmp_path / NAME)
    assert find_checkpoint(f'./{NAME}') == f'./{NAME}'
    assert list(read_checkpoint(f'./{NAME}')) == ['a']
    assert 'backbone.norm0.weight' in read_checkpoint(NAME)['state_dict']
    assert find_checkpoint('https://host/m.pth') == 'https://host/m.pth'
    for missing in ('unknown', f'{NAME}.pth', tmp_path / 'm.safetensors', f'dir/{NAME}', ''):
        with pytest.raises(FileNotFoundError, match='does not exist'):
            find_checkpoint(missing)


def test_the_backbone_is_loaded_by_name():
    backbone = SLaK('nano', init_cfg=dict(type='Pretrained', checkpoint=NAME))
    backbone.init_weights()
    state = read_checkpoint(NAME)['state_dict']
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}'])
    with pytest.raises(CheckpointError, match=rf'{NAME} does not fit model.backbone'):
        load_backbone(SLaK('tiny'), NAME)


def test_mmengine_reads_names_and_files(tmp_path):
    state = CheckpointLoader.load_checkpoint(NAME)['state_dict']
    assert state.keys() == read_checkpoint(NAME)['state_dict'].keys()
    layer = torch.nn.Linear(2, 3)
    file = tmp_path / 'layer.safetensors'
    write_safetensors(file, layer.state_dict(), None, dict(note=1))
    other = torch.nn.Linear(2, 3)
    checkpoint = load_checkpoint(other, str(file), map_location='cpu')
    assert checkpoint['meta'] == dict(note=1)
    assert torch.equal(other.weight, layer.weight.half().float())
    assert torch.equal(other.bias, layer.bias)
    # Other names and files are read by MMEngine's own loaders.
    torch.save(layer.state_dict(), tmp_path / f'{NAME}.pth')
    load_checkpoint(other, str(tmp_path / f'{NAME}.pth'))
    assert torch.equal(other.weight, layer.weight)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(other, f'{NAME}_2')
