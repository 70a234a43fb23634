"""Backbones saved in directories and on the Hugging Face hub, and loaded again."""

import inspect
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from authors_files import nano
from helpers import randomise_as_trained

from mmslak.checkpoints import (
    PUBLISHED,
    SPARSITY_STATE,
    CheckpointError,
    DownloadError,
    find_checkpoint,
    read_checkpoint,
)
from mmslak.engine import DynamicSparsityHook
from mmslak.models import SLaK
from mmslak.sparsity import SparseMasks, select_targets, unpack_masks

ROOT = Path(__file__).parents[2]
FILES = {'model.safetensors', 'config.json', 'README.md'}
#: Not the default of any argument.
ARGUMENTS = dict(
    arch=dict(depths=(1, 2, 1, 1), widths=(8, 12, 16, 20)), kernel_sizes=(9, 7, 7, 5),
    small_kernel=3, width_factor=1.5, mode='reparam', in_channels=4, drop_path_rate=0.1,
    layer_scale_init_value=0.5, out_indices=(1, 3), frozen_stages=1, norm_eval=True, with_cp=True,
    norm_cfg=dict(type='GN', num_groups=2), gap_before_final_norm=True, aligned=False,
)  # fmt: skip


def sparse(backbone, density=0.6):
    """Mask some weights, and set one active weight of each layer to zero, as just after growing."""
    generator = torch.Generator().manual_seed(0)
    parameters = select_targets(backbone, 'all')
    masks = SparseMasks(
        parameters,
        {k: torch.rand(p.shape, generator=generator) < density for k, p in parameters.items()},
    )
    masks.apply_()
    for name, parameter in parameters.items():
        parameter.data.view(-1)[masks[name].flatten().int().argmax()] = 0
    return masks


def assert_same(backbone, other):
    """Compare arguments and weights exactly."""
    assert other.arguments == backbone.arguments
    state, found = backbone.state_dict(), other.state_dict()
    assert list(found) == list(state)
    for name, value in state.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


def test_every_argument_is_kept():
    wanted = set(inspect.signature(SLaK).parameters) - {'init_cfg'}
    assert set(SLaK(**ARGUMENTS).arguments) == wanted


def test_round_trip_is_lossless(tmp_path):
    backbone = SLaK(**ARGUMENTS)
    masks = sparse(backbone)
    backbone.save_pretrained(tmp_path / 'a', masks)
    assert set(os.listdir(tmp_path / 'a')) == FILES
    again = SLaK.from_pretrained(tmp_path / 'a')
    assert_same(backbone, again)
    assert all(again.arguments[key] == value for key, value in ARGUMENTS.items())
    assert not again.downsample_layers[0][0].weight.requires_grad
    state = read_checkpoint(tmp_path / 'a')[SPARSITY_STATE]
    restored = SparseMasks(select_targets(again, 'all'))
    restored.load_state_dict(state)
    assert restored.checksum() == masks.checksum()
    # The saved state is accepted in place of the masks.
    again.save_pretrained(tmp_path / 'b', state)
    for name in ('model.safetensors', 'config.json'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_merged_backbone(tmp_path):
    backbone = randomise_as_trained(SLaK('nano', (11, 9, 7, 5)))
    sparse(backbone)
    # Some hidden units are masked, so that merging removes them.
    backbone.stages[0][0].pwconv1.weight.data[:3] = 0
    image = torch.rand(1, 3, 64, 64)
    backbone.switch_to_deploy().save_pretrained(tmp_path)
    again = SLaK.from_pretrained(tmp_path).eval()
    assert_same(backbone, again)
    for a, b in zip(backbone(image), again(image), strict=True):
        assert torch.equal(a, b)


def test_masks_by_default_are_those_of_zeros(tmp_path):
    backbone = SLaK('nano')
    backbone.stages[0][0].pwconv1.weight.data[3] = 0
    backbone.save_pretrained(tmp_path)
    masks = unpack_masks(read_checkpoint(tmp_path)[SPARSITY_STATE])
    assert list(masks) == ['stages.0.0.pwconv1.weight']
    assert (~masks['stages.0.0.pwconv1.weight']).nonzero()[:, 0].unique().tolist() == [3]
    total = sum(p.numel() for p in backbone.parameters())
    card = (tmp_path / 'README.md').read_text()
    assert f'{total:,} parameters, of which {total - 20:,} are\nactive' in card


def test_masks_of_a_training_have_a_prefix(tmp_path):
    """The state in a checkpoint of a classifier also has the mask of the head."""
    model = torch.nn.ModuleDict(dict(backbone=SLaK('nano'), head=torch.nn.Linear(166, 5)))
    masks = sparse(model)
    model['backbone'].save_pretrained(tmp_path, masks)
    found = unpack_masks(read_checkpoint(tmp_path)[SPARSITY_STATE])
    assert {f'backbone.{name}' for name in found} == set(masks.masked) - {'head.weight'}
    assert all(torch.equal(mask, masks[f'backbone.{name}']) for name, mask in found.items())


def test_wrong_masks_and_arguments(tmp_path):
    backbone = SLaK('nano')
    other = sparse(SLaK(dict(depths=(1, 1, 1, 1), widths=(8, 12, 16, 20))))
    with pytest.raises(ValueError, match=r'masks: the backbone has no weights .* of shape'):
        backbone.save_pretrained(tmp_path, other)
    backbone.arguments['norm_cfg'] = dict(type=torch.nn.BatchNorm2d)
    with pytest.raises(ValueError, match=r'the arguments .* cannot be saved as JSON'):
        backbone.save_pretrained(tmp_path)
    assert not os.listdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match=f'already contains {name}; give another directory'):
            SLaK('nano').save_pretrained(tmp_path)
        (tmp_path / name).unlink()


def test_directory_as_a_checkpoint(tmp_path):
    """For the initialiser, and for the hook that continues with the masks."""
    backbone = SLaK('nano')
    masks = sparse(backbone)
    backbone.save_pretrained(tmp_path / 'a', masks)
    assert find_checkpoint(tmp_path / 'a') == str(tmp_path / 'a/model.safetensors')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a'))
    initialised = SLaK('nano', init_cfg=cfg)
    initialised.init_weights()
    assert torch.equal(initialised.norm0.weight, backbone.norm0.weight)
    for loaded in (initialised, SLaK.from_pretrained(tmp_path / 'a')):
        model = torch.nn.Module()
        model.backbone = loaded
        runner = SimpleNamespace(logger=logging.getLogger(), _has_loaded=False)
        parameters = select_targets(loaded, 'all', 'backbone.')
        found = DynamicSparsityHook(mode='fixed')._pretrained_masks(runner, model, parameters)
        assert set(found) == {f'backbone.{name}' for name in masks.masked}
        assert all(torch.equal(m, masks[k.removeprefix('backbone.')]) for k, m in found.items())


def test_initialising_again_keeps_the_weights(tmp_path):
    """As MMEngine's runner does before the training."""
    backbone = SLaK('nano')
    backbone.save_pretrained(tmp_path)
    again = SLaK.from_pretrained(tmp_path)
    again.init_weights()
    assert_same(backbone, again)


def test_other_sources(tmp_path):
    torch.save(dict(model=nano(kernels=(11, 9, 7, 5))), tmp_path / 'theirs.pth')
    backbone = SLaK.from_pretrained(tmp_path / 'theirs.pth', out_indices=(3,))
    assert backbone.arguments['kernel_sizes'] == (11, 9, 7, 5)
    state = read_checkpoint('slak_nano_camvid')['state_dict']
    shipped = SLaK.from_pretrained('slak_nano_camvid', with_cp=True)
    assert torch.equal(shipped.norm3.bias, state['backbone.norm3.bias'])
    assert shipped.arguments['with_cp'] is True
    with pytest.raises(FileNotFoundError, match=r"'slak_tinny' is no directory, .*slak_nano_cam"):
        SLaK.from_pretrained('slak_tinny')


def test_incomplete_and_damaged_directories(tmp_path):
    folder = tmp_path / 'a'
    SLaK('nano').save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r'does not fit model\.backbone'):
        SLaK.from_pretrained(folder, kernel_sizes=(7, 7, 7, 7))
    for name in ('model.safetensors', 'config.json'):
        os.replace(folder / name, tmp_path / name)
        with pytest.raises(FileNotFoundError, match=f'has no file {name}; SLaK.save_pretrained'):
            SLaK.from_pretrained(folder)
        os.replace(tmp_path / name, folder / name)
    for text in ('', '{', '[' * 5000, '[]', '{"arguments": 3}'):
        (folder / 'config.json').write_text(text)
        with pytest.raises(
            CheckpointError, match=r'config.json is damaged: it (is not JSON|has no)'
        ):
            SLaK.from_pretrained(folder)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(init_cfg=dict(type='os.abort')), "has the argument 'init_cfg', which SLaK lacks"),
        (dict(norm_cfg=dict(type='os.abort')), 'only these types are read from a file: BN, '),
        (dict(norm_cfg=dict(type=['BN'])), 'only these types'),
        (dict(norm_cfg='BN'), 'only these types'),
    ],
)
def test_no_function_of_a_config_is_called(arguments, words, tmp_path):
    SLaK('nano').save_pretrained(tmp_path)
    (tmp_path / 'config.json').write_text(json.dumps(dict(arguments=arguments)))
    with pytest.raises(CheckpointError, match=words):
        SLaK.from_pretrained(tmp_path)


def test_hub_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(
        ImportError, match=r"there is no file or directory a/b, .*mmslak\[weights\]'$"
    ):
        SLaK.from_pretrained('a/b')


def hub_cache(root, name):
    """Make the cache of the Hugging Face hub with one repository, and return its backbone."""
    backbone = SLaK('nano')
    repository = root / f'models--{name.replace("/", "--")}'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text('a' * 40)
    backbone.save_pretrained(repository / 'snapshots' / ('a' * 40), sparse(backbone))
    return backbone


def test_name_on_the_hub(tmp_path, monkeypatch):
    constants = pytest.importorskip('huggingface_hub.constants')
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    backbone = hub_cache(tmp_path, 'someone/slak-nano')
    assert_same(backbone, SLaK.from_pretrained('someone/slak-nano'))
    with pytest.raises(DownloadError) as caught:
        SLaK.from_pretrained('someone/other')
    text = str(caught.value)
    assert 'there is no file or directory someone/other, and it could not be downloaded' in text
    assert text.endswith('config.json by hand and give their directory') and '\n' not in text


@pytest.mark.slow
def test_hub_offline_in_a_process(tmp_path):
    pytest.importorskip('huggingface_hub')
    hub_cache(tmp_path, 'someone/slak-nano')
    code = (
        'from mmslak.models import SLaK\n'
        "print(SLaK.from_pretrained('someone/slak-nano').arguments['arch'])\n"
    )
    environment = dict(
        os.environ, HF_HUB_OFFLINE='1', HF_HUB_CACHE=str(tmp_path), PYTHONPATH=str(ROOT)
    )
    text = subprocess.check_output([sys.executable, '-c', code], env=environment, text=True)
    assert text.splitlines()[-1] == 'nano'


def section():
    """Return the section about weights by name in the documentation."""
    text = (ROOT / 'docs/pretraining.md').read_text(encoding='utf-8')
    return text.split('\n## Weights by name\n')[1].split('\n## ')[0]


def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('MMSLAK_MIRROR', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    torch.save(dict(model=nano()), 'slak_tiny_300e_in1k.pth')
    _, example, _ = section().split('```', 2)
    assert example.startswith('python\n')
    exec(example.removeprefix('python\n'), names := {})
    assert names['backbone'].arguments['drop_path_rate'] == 0.4
    assert set(os.listdir('my_slak')) == FILES
    shutil.rmtree('my_slak')


def test_the_table_of_the_documentation():
    rows = [line.strip('| ').split(' | ') for line in section().splitlines() if line[:3] == '| `']
    assert {name.strip('`'): (model, score) for name, model, score, _ in rows} == {
        name: (weights.model, weights.score) for name, weights in PUBLISHED.items()
    }
    assert {link[link.index('(') + 1 : -1] for *_, link in rows} == {
        weights.page for weights in PUBLISHED.values()
    }
