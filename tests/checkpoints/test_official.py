"""The authors' checkpoints: names written out, and values compared by an explicit forward pass."""

import logging
from collections import OrderedDict
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from authors_files import BASE, KERNELS, NANO, SMALL, TINY, nano, shapes, sparse_nano, state_of
from helpers import run_tool

from mmslak.checkpoints import (
    CheckpointError,
    from_official,
    load_backbone,
    read_checkpoint,
    to_official,
)
from mmslak.engine import DynamicSparsityHook
from mmslak.models import SLaK
from mmslak.sparsity import SparseMasks, select_targets, unpack_masks


def downstream(state, indices=(0, 1, 2, 3)):
    """Return the checkpoint of MMSegmentation 0.x or MMDetection 2.x with the same weights."""
    result = OrderedDict()
    for name, value in state.items():
        if not name.startswith(('norm.', 'head.')):
            result[f'backbone.{name}'] = value
    for i in indices:
        result[f'backbone.norm{i}.weight'] = torch.rand(NANO['widths'][i])
        result[f'backbone.norm{i}.bias'] = torch.rand(NANO['widths'][i])
    result['decode_head.conv_seg.weight'] = torch.rand(5, 8, 1, 1)
    result['decode_head.bn.num_batches_tracked'] = torch.tensor(1)
    return dict(meta=dict(CLASSES=('a', 'b'), epoch=3), state_dict=result)


def explicit_forward(w, x, mode):
    """Compute the network from the authors' weights with plain functions."""

    def norm(x, name):
        x = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], w[f'{name}.weight'],
                         w[f'{name}.bias'], 1e-6)  # fmt: skip
        return x.permute(0, 3, 1, 2)

    def branch(x, name):
        k = w[f'{name}.conv.weight']
        x = F.conv2d(x, k, padding=(k.shape[2] // 2, k.shape[3] // 2), groups=len(k))
        return F.batch_norm(x, w[f'{name}.bn.running_mean'], w[f'{name}.bn.running_var'],
                            w[f'{name}.bn.weight'], w[f'{name}.bn.bias'])  # fmt: skip

    branches = dict(
        decomposed=['LoRA1', 'LoRA2', 'small_conv'], reparam=['lkb_origin', 'small_conv']
    )
    for i in range(4):
        conv, ln = (f'downsample_layers.{i}.{j}' for j in ((0, 1) if i == 0 else (1, 0)))
        x = norm(x, ln) if i else x
        x = F.conv2d(x, w[f'{conv}.weight'], w[f'{conv}.bias'], stride=4 if i == 0 else 2)
        x = x if i else norm(x, ln)
        for j in range(NANO['depths'][i]):
            b = f'stages.{i}.{j}'
            if mode == 'naive':
                k = w[f'{b}.dwconv.weight']
                y = F.conv2d(x, k, w[f'{b}.dwconv.bias'], padding=k.shape[2] // 2, groups=len(k))
            else:
                y = sum(branch(x, f'{b}.large_kernel.{name}') for name in branches[mode])
            y = norm(y, f'{b}.norm').permute(0, 2, 3, 1)
            y = F.gelu(F.linear(y, w[f'{b}.pwconv1.weight'], w[f'{b}.pwconv1.bias']))
            y = F.linear(y, w[f'{b}.pwconv2.weight'], w[f'{b}.pwconv2.bias'])
            x = x + (w[f'{b}.gamma'] * y).permute(0, 3, 1, 2)
    return F.layer_norm(x.mean((2, 3)), x.shape[1:2], w['norm.weight'], w['norm.bias'], 1e-6)


@pytest.mark.parametrize('mode', ['decomposed', 'reparam', 'naive'])
def test_converted_weights_have_the_same_output(mode, tmp_path):
    kernels = (7, 7, 7, 7) if mode == 'naive' else (11, 9, 7, 5)
    state = nano(mode, kernels=kernels)
    torch.save(dict(model=state, epoch=3), tmp_path / 'theirs.pth')
    # First load the authors' file directly.
    backbone = SLaK(
        'nano', kernels, mode=mode, out_indices=-1, gap_before_final_norm=True,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'theirs.pth')),
    )  # fmt: skip
    backbone.init_weights()
    image = torch.rand(2, 3, 64, 64)
    expected = explicit_forward(state, image, mode)
    torch.testing.assert_close(backbone.eval()(image)[0], expected, rtol=1e-4, atol=1e-4)
    # Then load the converted file.
    torch.save(from_official(dict(model=state)).checkpoint(), tmp_path / 'ours.pth')
    again = SLaK('nano', kernels, mode=mode, out_indices=-1, gap_before_final_norm=True)
    load_backbone(again, tmp_path / 'ours.pth')
    for a, b in zip(backbone.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('mode', ['decomposed', 'reparam', 'naive'])
@pytest.mark.parametrize(
    ('arch', 'factor', 'size'),
    [
        ('nano', 1.3, NANO),
        ('tiny', 1.3, TINY),
        ('small', 1.3, SMALL),
        ('base', 1.3, BASE),
        ('tiny', 1.0, dict(depths=TINY['depths'], widths=(96, 192, 384, 768))),
        ('tiny', 2.5, dict(depths=TINY['depths'], widths=(240, 480, 960, 1920))),
        ('large', 1.3, dict(depths=SMALL['depths'], widths=(249, 499, 998, 1996))),
    ],
)
def test_round_trip_of_names_and_settings(arch, factor, size, mode, monkeypatch):
    """Every architecture and mode, on the meta device."""
    monkeypatch.setattr('mmslak.checkpoints.official.recover_masks', lambda state: ({}, {}))
    state = state_of(shapes(**size, mode=mode, n=3), 'meta')
    found = from_official(dict(model=state))
    expected = dict(arch=arch, width_factor=factor, kernel_sizes=KERNELS, mode=mode)
    if mode != 'naive':
        expected['small_kernel'] = 3
    assert found.settings == expected
    with torch.device('meta'):
        wanted = SLaK(**expected, out_indices=-1).state_dict()
    inner = {k.removeprefix('backbone.') for k in found.state_dict}
    assert inner == set(wanted) | {'head.fc.weight', 'head.fc.bias'}
    back = to_official(found.checkpoint())['model']
    assert list(back) == list(state)
    assert all(back[name].shape == state[name].shape for name in state)


@pytest.mark.parametrize('mode', ['decomposed', 'reparam', 'naive'])
@pytest.mark.parametrize('kind', ['classifier', 'downstream'])
def test_round_trip_is_lossless(mode, kind):
    state = nano(mode)
    original = dict(model=state) if kind == 'classifier' else downstream(state)
    found = from_official(original)
    assert found.kind == kind
    back = to_official(found.checkpoint())
    assert set(back) == set(original)
    for key in original:
        if key == 'meta':
            assert back[key] == original[key]
            continue
        assert list(back[key]) == list(original[key])
        for name, value in original[key].items():
            assert torch.equal(back[key][name], value) and back[key][name].dtype == value.dtype
    if kind == 'downstream':
        assert found.passed == ['decode_head.conv_seg.weight', 'decode_head.bn.num_batches_tracked']


def test_tiny_round_trip():
    state = state_of(shapes(**TINY, kernels=KERNELS))
    back = to_official(from_official(dict(model=state)).checkpoint())['model']
    assert all(torch.equal(back[name], value) for name, value in state.items())


def test_masks_are_recovered_from_zeros():
    state, zeros = sparse_nano()
    found = from_official(dict(model=state))
    ours = dict(zip(zeros, [
        'backbone.stages.0.0.mixing.tall.conv.weight', 'backbone.stages.2.1.pwconv2.weight',
        'head.fc.weight',
    ], strict=True))  # fmt: skip
    assert set(found.masks) == set(ours.values())
    packed = unpack_masks(found.checkpoint()['dynamic_sparsity'])
    for name, zero in zeros.items():
        assert torch.equal(packed[ours[name]], ~zero)
        assert found.densities[ours[name]] == pytest.approx(1 - zero.float().mean().item())
    # 4 downsampling convolutions, 6 blocks with 5 weights each, and the head.
    assert len(found.densities) == 4 + 6 * 5 + 1
    assert sum(d == 1 for d in found.densities.values()) == 32


@pytest.mark.parametrize('converted', [False, True])
def test_fine_tuning_keeps_the_masks(converted, tmp_path):
    """The hook reads masks from a converted file, and recovers them for the authors' file."""
    state, zeros = sparse_nano()
    checkpoint = dict(model=state)
    if converted:
        checkpoint = from_official(checkpoint).checkpoint()
    torch.save(checkpoint, tmp_path / 'c.pth')

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'c.pth'))
            self.backbone = SLaK('nano', init_cfg=cfg)

    model = Model()
    model.backbone.init_weights()
    hook = DynamicSparsityHook(mode='fixed')
    parameters = select_targets(model.backbone, 'all', 'backbone.')
    runner = SimpleNamespace(logger=logging.getLogger(), _has_loaded=False)
    masks = hook._pretrained_masks(runner, model, parameters)
    if not converted:
        assert not masks
        recovered = SparseMasks.from_weights(parameters)
        masks = {name: recovered[name] for name in recovered.masked}
    name = 'stages.0.0.large_kernel.LoRA1.conv.weight'
    assert set(masks) == {
        'backbone.stages.0.0.mixing.tall.conv.weight', 'backbone.stages.2.1.pwconv2.weight'
    }  # fmt: skip
    assert torch.equal(masks['backbone.stages.0.0.mixing.tall.conv.weight'], ~zeros[name])


def test_averaged_weights():
    state, average = nano(), state_of(shapes(**NANO), seed=1)
    both = dict(model=state, model_ema=average, optimizer=dict(state={}), epoch=299)
    name, ours = 'stages.3.0.pwconv1.weight', 'backbone.stages.3.0.pwconv1.weight'
    assert torch.equal(from_official(both).state_dict[ours], state[name])
    assert torch.equal(from_official(both, ema=True).state_dict[ours], average[name])
    with pytest.raises(CheckpointError, match='no averaged weights'):
        from_official(dict(model=state), ema=True)


def change(state, **changes):
    """Return a copy with other entries; dots in names are double underscores, None deletes."""
    state = OrderedDict(state)
    for name, value in changes.items():
        name = name.replace('__', '.')
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda s: change(s, surplus=torch.ones(1)), 'unknown entries .surplus.'),
        (lambda s: change(s, stages__2__1__gamma=None), 'missing entries .stages.2.1.gamma.'),
        (
            lambda s: change(s, stages__0__0__pwconv1__bias=torch.ones(3)),
            r'stages.0.0.pwconv1.bias of shape \(3,\) instead of \(80,\)',
        ),
        (
            lambda s: change(s, stages__0__0__large_kernel__lkb_reparam__weight=torch.ones(2)),
            'merged kernels',
        ),
        (lambda s: {'conv1.weight': torch.ones(64, 3, 7, 7)}, 'another architecture'),
        (
            lambda s: {'stem.0.conv.weight': torch.ones(1), 'stages.0.blocks.0.pw1.conv.weight': 1},
            "RepLKNet's own",
        ),
        (lambda s: {}, 'no weights'),
        (lambda s: {'stages.0.0.gamma': [1.0]}, 'no weights'),
        (
            lambda s: {k: v for k, v in s.items() if 'LoRA2' not in k},
            r'blocks with the branches small\+tall, but the modes of SLaK are decomposed',
        ),
    ],
)  # fmt: skip
def test_difference_is_named(make, words):
    with pytest.raises(CheckpointError, match=words):
        from_official(dict(model=make(nano())), source='some.pth')


def test_init_cfg_names_the_difference(tmp_path):
    file = tmp_path / 'c.pth'
    torch.save(dict(model=nano()), file)

    def build(**kwargs):
        cfg = dict(type='Pretrained', checkpoint=str(file))
        SLaK(**dict(dict(arch='nano'), **kwargs), init_cfg=cfg).init_weights()

    for kwargs in (dict(arch='tiny'), dict(mode='naive'), dict(kernel_sizes=(7, 7, 7, 7))):
        with pytest.raises(CheckpointError, match=r"does not fit .* SLaK\(arch='nano'"):
            build(**kwargs)
    build()
    file.unlink()
    with pytest.raises(FileNotFoundError):
        build()


def test_downstream_checkpoint_loads_into_a_backbone(tmp_path):
    theirs = downstream(nano())
    torch.save(theirs, tmp_path / 'c.pth')
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'c.pth'))
    backbone = SLaK('nano', init_cfg=cfg)
    backbone.init_weights()
    for i in range(4):
        expected = theirs['state_dict'][f'backbone.norm{i}.weight']
        assert torch.equal(getattr(backbone, f'norm{i}').weight, expected)


def test_command_lines(tmp_path):
    state, _ = sparse_nano()
    theirs, ours, back = (tmp_path / name for name in ('theirs.pth', 'ours.pth', 'back.pth'))
    torch.save(dict(model=state, path=PurePosixPath('a')), theirs)
    text = run_tool('tools/convert/official.py', theirs, ours, expect=2)
    assert 'pathlib.PurePosixPath' in text and '--trust' in text and 'Traceback' not in text
    assert not ours.exists()
    text = run_tool('tools/convert/official.py', theirs, ours, '--trust')
    assert "arch='nano'" in text and '3 of 35 layers are sparse' in text
    assert 'none left over' in text
    text = run_tool('tools/convert/official.py', theirs, ours, '--trust', expect=2)
    assert 'already exists' in text
    run_tool('tools/convert/to_official.py', ours, back)
    returned = read_checkpoint(back)['model']
    assert list(returned) == list(state)
    assert all(torch.equal(returned[name], value) for name, value in state.items())
