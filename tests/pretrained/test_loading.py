"""Loading exported models without a config, and refusing what could run code."""

import copy
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers import ROOT
from mmengine.registry import DefaultScope

from mmslak.checkpoints import CheckpointError, read_checkpoint
from mmslak.checkpoints.safetensors_file import write_safetensors
from mmslak.cli.config import load_config
from mmslak.models import build_model
from mmslak.pretrained import load_model
from mmslak.toolboxes import ToolboxMissingError

NAME = 'slak_nano_camvid'
CONFIG = ROOT / 'configs/upernet_slak_nano_finetune_camvid.py'
IMAGE = ROOT / 'tests/data/camvid/images/test/0001TP_008550.jpg'
apis = pytest.importorskip('mmseg.apis')


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        # Of MMSegmentation, on its own functions.
        warnings.simplefilter('ignore', UserWarning)
        yield


def test_the_model_of_the_package():
    model = load_model(NAME)
    assert not model.training
    checkpoint = read_checkpoint(NAME)
    assert model.dataset_meta == checkpoint['meta']['dataset_meta']
    assert model.state_dict().keys() == checkpoint['state_dict'].keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint['state_dict'][name])
    # As built from the config in the repository.
    reference = build_model(load_config(CONFIG)).eval()
    reference.load_state_dict(checkpoint['state_dict'])
    image = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        assert torch.equal(model(image), reference(image))


def test_inference_of_mmsegmentation():
    model = load_model(NAME)
    result = apis.inference_model(model, str(IMAGE))
    assert result.pred_sem_seg.data.shape == (1, 360, 480)
    assert len(apis.inference_model(model, [str(IMAGE)] * 2)) == 2
    shown = apis.show_result_pyplot(model, str(IMAGE), result, show=False, with_labels=False)
    assert shown.shape == (360, 480, 3)
    # MMSegmentation's own way, with the config and the name.
    config = load_config(CONFIG)
    same = apis.inference_model(apis.init_model(config, NAME, 'cpu'), str(IMAGE))
    assert np.array_equal(same.pred_sem_seg.data, result.pred_sem_seg.data)


def rewritten(file, change):
    """Write the model of the package with changed meta data, and return the file."""
    checkpoint = read_checkpoint(NAME)
    meta = copy.deepcopy(checkpoint['meta'])
    change(meta)
    write_safetensors(file, checkpoint['state_dict'], None, meta)
    return file


def test_files_without_a_segmentor(tmp_path):
    torch.save(dict(state_dict={'a': torch.ones(1)}), tmp_path / 'c.pth')
    for file in (
        tmp_path / 'c.pth',
        rewritten(tmp_path / 'a.safetensors', lambda meta: meta.pop('model')),
        rewritten(tmp_path / 'b.safetensors', lambda meta: meta.update(model=[])),
    ):
        with pytest.raises(CheckpointError, match='contains no model; load_model reads files of'):
            load_model(file)
    file = rewritten(tmp_path / 'd.safetensors', lambda meta: meta.update(default_scope='mmdet'))
    with pytest.raises(CheckpointError, match="default_scope='mmdet'"):
        load_model(file)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load_model('unknown')


@pytest.mark.parametrize(
    'kind',
    ['os.mkdir', 'os', 'subprocess.run', 'builtins.eval', 'torch.load', 'mmdet.Mask2Former',
     'mmengine.runner.load_checkpoint', 'mmslak.pretrained.load_model', 'NoSuchClass', '', None,
     ['SLaK'], {}],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize('place', ['model', 'backbone', 'norm', 'transform'])
def test_types_that_are_no_registered_classes(kind, place, tmp_path, monkeypatch):
    hostile = dict(type=kind, path=str(tmp_path / 'trace'))

    def change(meta):
        if place == 'model':
            meta['model'] = hostile
        elif place == 'backbone':
            meta['model']['backbone'] = hostile
        elif place == 'norm':
            meta['model']['backbone']['norm_cfg'] = hostile
        else:
            meta['test_pipeline'].append(dict(type='RandomApply', transforms=[hostile]))

    file = rewritten(tmp_path / 'm.safetensors', change)
    with pytest.raises(CheckpointError, match='which is no class of mmseg, mmslak or mmengine'):
        load_model(file)
    assert not (tmp_path / 'trace').exists()


@pytest.mark.parametrize('scope', ['this', 'mmdet', '', None, ['mmseg']], ids=repr)
def test_scopes_of_other_packages(scope, tmp_path):
    def change(meta):
        meta['model']['backbone']['_scope_'] = scope

    with pytest.raises(CheckpointError, match=r'has the scope .*; allowed are mmseg, mmslak, mm'):
        load_model(rewritten(tmp_path / 'm.safetensors', change))
    assert 'this' not in sys.modules


def test_configs_that_do_not_fit(tmp_path):
    def wider(meta):
        meta['model']['decode_head']['channels'] = 16

    with pytest.raises(CheckpointError, match='does not fit its own config'):
        load_model(rewritten(tmp_path / 'a.safetensors', wider))

    def unknown(meta):
        meta['model']['backbone']['unknown_argument'] = 1

    depth = 450  # of about 1000 that json reads

    def nested(meta):
        meta['model']['backbone']['deep'] = deep = {}
        for _ in range(depth):
            deep['a'] = deep = {}

    for index, change in enumerate((unknown, nested, lambda meta: meta.update(model={}))):
        with pytest.raises(CheckpointError, match=r'the model config of .* cannot be built'):
            load_model(rewritten(tmp_path / f'{index}.safetensors', change))


def test_checkpoints_named_in_a_config_are_not_read(tmp_path):
    def change(meta):
        meta['model']['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint='no_file.pth')
        meta['model']['pretrained'] = 'no_file.pth'

    model = load_model(rewritten(tmp_path / 'm.safetensors', change))
    model.init_weights()
    assert 'no_file' not in str(model.cfg)


def test_mmsegmentation_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmseg', None)
    with pytest.raises(ToolboxMissingError, match=r"load_model needs mmseg.*'mmslak\[seg\]'"):
        load_model(NAME)


def test_the_default_scope_is_that_of_the_toolbox():
    load_model(NAME)
    assert DefaultScope.get_current_instance().scope_name == 'mmseg'
