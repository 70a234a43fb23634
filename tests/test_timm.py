"""SLaK as models of timm: timm's own requirements on a model, and agreement with MMPretrain."""

# ruff: noqa: E402
import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

timm = pytest.importorskip('timm')

from helpers import ROOT
from mmengine.config import Config
from PIL import Image
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, reparameterize_model

import mmslak.timm  # noqa: F401
from mmslak.checkpoints import to_official
from mmslak.models import SLaK, build_model
from mmslak.sparsity import DynamicSparsity, select_model_targets, select_targets

VARIANTS = ['slak_nano', 'slak_tiny', 'slak_small', 'slak_base', 'slak_large']
WIDTHS = [20, 41, 83, 166]


def nano(**kwargs):
    """Return SLaK-nano with small kernels, in which every block has an effect on the output."""
    torch.manual_seed(0)
    settings = dict(layer_scale_init_value=1.0, kernel_sizes=(15, 13, 11, 7))
    return timm.create_model('slak_nano', **{**settings, **kwargs}).eval()


def weights_of(network):
    """Return arguments of ``nano`` that load the weights of a network with 10 classes."""
    source = dict(state_dict=network.state_dict(), num_classes=10)
    return dict(pretrained=True, pretrained_cfg_overlay=source)


def images(*size, channels=3, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, channels, *(size or (64, 64)), generator=generator)


@pytest.fixture(scope='module')
def network():
    """Return a classifier with 10 classes. Tests must not change it."""
    model = nano(num_classes=10)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope='module')
def classifier():
    """Return the classifier of the recipe for MMPretrain, as small as ``network``."""
    pytest.importorskip('mmpretrain')
    cfg = Config.fromfile(ROOT / 'configs' / 'slak_t_in1k.py')
    cfg.merge_from_dict(
        {
            'model.backbone.arch': 'nano',
            'model.backbone.kernel_sizes': (15, 13, 11, 7),
            'model.head.in_channels': 166,
            'model.head.num_classes': 10,
            'model.train_cfg': None,
        }
    )
    return build_model(cfg, init_weights=True).eval()


# --- variants and default configs -----------------------------------------------------------------


def test_all_variants_are_registered_without_weights():
    assert sorted(timm.list_models('slak_*')) == sorted(VARIANTS)
    assert timm.list_pretrained('slak_*') == []
    assert timm.is_model('slak_tiny')


# Millions of parameters of the authors' dense classifiers with 1000 classes.
@pytest.mark.parametrize(
    ('variant', 'parameters'),
    [('nano', None), ('tiny', 50.70), ('small', 91.13), ('base', 157.95), ('large', None)],
)
def test_size_and_default_config_of_each_variant(variant, parameters):
    with torch.device('meta'):
        model = timm.create_model(f'slak_{variant}')
    if parameters is not None:
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == parameters
    cfg, names = model.default_cfg, set(model.state_dict())
    assert cfg is model.pretrained_cfg
    assert cfg['architecture'] == f'slak_{variant}'
    assert (cfg['input_size'], cfg['pool_size']) == ((3, 224, 224), (7, 7))
    assert cfg['first_conv'] + '.weight' in names
    assert {cfg['classifier'] + '.weight', cfg['classifier'] + '.bias'} <= names
    assert model.get_classifier() is model.get_submodule(cfg['classifier'])
    assert model.num_classes == cfg['num_classes'] == 1000
    assert model.num_features == model.head_hidden_size == model.feature_info[-1]['num_chs']


def test_transform_is_that_of_the_recipe(network):
    # 256 x 128 pixels with columns of distinct brightness: the shorter side becomes 256.
    columns = np.broadcast_to(np.arange(0, 256, dtype=np.uint8)[None, :, None], (128, 256, 3))
    config = timm.data.resolve_data_config(model=network)
    image = timm.data.create_transform(**config)(Image.fromarray(np.ascontiguousarray(columns)))
    assert image.shape == (3, 224, 224)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    pixels = image * std[:, None, None] + mean[:, None, None]
    # The centre of 512 x 256 pixels: columns 144 to 367 of a ramp that was enlarged twice.
    expected = (torch.arange(144, 368) + 0.5) / 2 - 0.5
    assert (pixels - expected).abs().max() < 1


def test_pretrained_weights_are_refused_with_one_sentence():
    with pytest.raises(RuntimeError, match='No pretrained weights exist for slak_nano'):
        timm.create_model('slak_nano', pretrained=True)


# --- forward and backward -------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(64, 64), (32, 32), (96, 40), (65, 97)])
def test_forward(network, size):
    x = images(*size)
    with torch.no_grad():
        features, logits = network.forward_features(x), network(x)
    assert features.shape == (2, 166, size[0] // 32, size[1] // 32)
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


def test_images_with_another_number_of_channels():
    model = nano(in_chans=1, num_classes=4)
    assert model.in_chans == model.backbone.downsample_layers[0][0].in_channels == 1
    assert model(images(channels=1)).shape == (2, 4)


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.3])
def test_backward(drop_path_rate):
    model = nano(num_classes=4, drop_path_rate=drop_path_rate, drop_rate=0.1).train()
    logits = model(images(batch=4))
    logits.square().mean().backward()
    assert logits.shape == (4, 4)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert drop_path_rate or parameter.grad.abs().sum() > 0, name


def test_drop_rates():
    model = nano(drop_rate=0.2, drop_path_rate=0.5)
    assert model.head.drop.p == 0.2
    blocks = [block for stage in model.backbone.stages for block in stage]
    rates = [getattr(block.drop_path, 'drop_prob', 0.0) for block in blocks]
    assert rates == pytest.approx([0.5 * i / 5 for i in range(6)])
    x = images()
    torch.testing.assert_close(model(x), nano()(x))
    assert not torch.equal(model.train()(x), model(x))


def test_layers_are_initialised_as_the_backbone_does():
    layers = [m for m in nano().modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    weights = torch.cat([layer.weight.flatten() for layer in layers])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert all(layer.bias.eq(0).all() for layer in layers if layer.bias is not None)


def test_activation_checkpointing_changes_nothing():
    plain, saving = nano(num_classes=4).train(), nano(num_classes=4).train()
    saving.set_grad_checkpointing()
    recomputed = []
    saving.backbone.stages[0][0].mixing.register_forward_hook(lambda *_: recomputed.append(1))
    outputs = []
    for model in (plain, saving):
        logits = model(images())
        logits.square().mean().backward()
        outputs.append(logits)
    assert len(recomputed) == 2
    torch.testing.assert_close(*outputs)
    for (name, parameter), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, msg=name)
    for buffer, other in zip(plain.buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)
    saving.set_grad_checkpointing(False)
    saving(images())
    assert len(recomputed) == 3


# --- the head -------------------------------------------------------------------------------------


def test_head_pools_normalises_and_classifies(network):
    x = images(64, 96)
    with torch.no_grad():
        features = network.forward_features(x)
        pooled = network.forward_head(features, pre_logits=True)
        logits = network(x)
    expected = F.layer_norm(features.mean((2, 3)), (166,), eps=1e-6)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(logits, pooled @ network.head.fc.weight.T + network.head.fc.bias)


def test_classifier_is_removed_and_replaced():
    model, x = nano(num_classes=10), images()
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    model.reset_classifier(0)
    assert model.num_classes == 0
    assert not any(name.startswith('head.') for name in model.state_dict())
    torch.testing.assert_close(model(x), pooled)
    model.reset_classifier(0, '')
    normalised = F.layer_norm(features.permute(0, 2, 3, 1), (166,), eps=1e-6)
    torch.testing.assert_close(model(x), normalised.permute(0, 3, 1, 2))
    model.reset_classifier(7, 'max')
    assert model.num_classes == 7
    assert isinstance(model.get_classifier(), nn.Linear)
    largest = F.layer_norm(features.amax((2, 3)), (166,), eps=1e-6)
    torch.testing.assert_close(model(x), model.get_classifier()(largest))
    with pytest.raises(ValueError, match=r"global_pool must be one of .* got 'mean'"):
        model.reset_classifier(5, 'mean')
    assert model.num_classes == 7


@pytest.mark.parametrize(
    ('num_classes', 'global_pool', 'shape'),
    [(0, 'avg', (2, 166)), (0, '', (2, 166, 2, 3)), (5, '', (2, 5, 2, 3)), (5, 'max', (2, 5))],
)
def test_other_heads_from_the_start(num_classes, global_pool, shape):
    model = nano(num_classes=num_classes, global_pool=global_pool)
    assert model(images(64, 96)).shape == shape
    assert ('head.fc.weight' in model.state_dict()) == (num_classes > 0)


# --- feature maps ---------------------------------------------------------------------------------


@pytest.mark.parametrize('feature_cls', [None, 'hook', 'fx'])
@pytest.mark.parametrize(('out_indices', 'stages'), [((0, 1, 2, 3), None), ((1, -1), (1, 3))])
def test_features_only(network, feature_cls, out_indices, stages):
    stages = stages or out_indices
    settings = dict(features_only=True, feature_cls=feature_cls, out_indices=out_indices)
    # timm drops arguments that are None.
    model = nano(**settings, **weights_of(network))
    assert model.feature_info.channels() == [WIDTHS[i] for i in stages]
    assert model.feature_info.reduction() == [4 * 2**i for i in stages]
    x = images(64, 96)
    with torch.no_grad():
        features = model(x)
        expected = network.forward_intermediates(x, stages, intermediates_only=True)
    assert len(features) == len(stages)
    for i, feature, wanted in zip(stages, features, expected, strict=True):
        assert feature.shape == (2, WIDTHS[i], 64 // (4 * 2**i), 96 // (4 * 2**i))
        torch.testing.assert_close(feature, wanted)


def test_features_are_those_of_the_backbone_before_its_norms(network):
    backbone = SLaK('nano', (15, 13, 11, 7), layer_scale_init_value=1.0).eval()
    backbone.load_state_dict(network.backbone.state_dict(), strict=False)
    x = images()
    with torch.no_grad():
        _, features = network.forward_intermediates(x)
        for feature, expected in zip(features, backbone(x), strict=True):
            # The norms have their initial values.
            normalised = F.layer_norm(feature.permute(0, 2, 3, 1), feature.shape[1:2], eps=1e-6)
            torch.testing.assert_close(normalised.permute(0, 3, 1, 2), expected)


def test_features_only_has_no_unused_parameters():
    model = nano(features_only=True, out_indices=(0, 2)).train()
    sum(feature.square().mean() for feature in model(images())).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_intermediates(network):
    x = images(64, 96)
    with torch.no_grad():
        last, every = network.forward_intermediates(x)
        torch.testing.assert_close(last, network.forward_features(x))
        assert [feature.shape[1] for feature in every] == WIDTHS
        early, chosen = network.forward_intermediates(x, [0, 2], stop_early=True)
        assert early is chosen[-1]
        only = network.forward_intermediates(x, 2, intermediates_only=True)
    for got, wanted in zip([*chosen, *only], [every[0], *every[2:3], *every[2:]], strict=True):
        torch.testing.assert_close(got, wanted)
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW', got 'NHWC'"):
        network.forward_intermediates(x, output_fmt='NHWC')


def test_stages_are_pruned():
    model, x = nano(num_classes=10), images()
    _, expected = model.forward_intermediates(x)
    assert model.prune_intermediate_layers([0, -2]) == [0, 2]
    assert (model.num_features, model.head_hidden_size, model.num_classes) == (83, 83, 0)
    names = {name.rsplit('.', 1)[0] for name in model.state_dict()}
    assert not [name for name in names if 'stages.3' in name or 'norm3' in name or 'head' in name]
    torch.testing.assert_close(model(x), expected[2])
    torch.testing.assert_close(
        model.forward_intermediates(x, [0, 2])[1], [expected[0], expected[2]]
    )
    model.reset_classifier(5, 'avg')
    assert model(x).shape == (2, 5)
    # All stages and the head stay.
    kept = nano(num_classes=10)
    assert kept.prune_intermediate_layers(1, prune_norm=True, prune_head=False) == [3]
    torch.testing.assert_close(kept(x), nano(num_classes=10)(x))


# --- optimisers and averages ----------------------------------------------------------------------


def test_groups_of_layers(network):
    groups = group_parameters(network, network.group_matcher(), reverse=True)
    assert set(groups) == dict(network.named_parameters()).keys()
    # The stem, six blocks, each first one with the downsampling before it, and the head.
    expected = {
        'backbone.downsample_layers.0.0.weight': 0,
        'backbone.stages.0.0.gamma': 1,
        'backbone.downsample_layers.1.1.bias': 2,
        'backbone.stages.1.0.gamma': 2,
        'backbone.downsample_layers.2.0.weight': 3,
        'backbone.stages.2.0.gamma': 3,
        'backbone.stages.2.1.gamma': 4,
        'backbone.stages.2.2.mixing.tall.conv.weight': 5,
        'backbone.downsample_layers.3.1.weight': 6,
        'backbone.stages.3.0.gamma': 6,
        'backbone.norm3.weight': 7,
        'head.fc.weight': 7,
    }
    assert {name: groups[name] for name in expected} == expected
    coarse = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    assert set(coarse) == set(groups)
    stages = [0, 1, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5]
    assert [coarse[name] for name in expected] == stages


def test_optimizer_with_layer_decay(network):
    optimizer = create_optimizer_v2(network, 'adamw', lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    settings = {id(p): group for group in optimizer.param_groups for p in group['params']}
    assert len(settings) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        group = settings[id(parameter)]
        assert group['weight_decay'] == (0.05 if parameter.ndim > 1 else 0), name
        if name.startswith('head.'):
            assert group['lr_scale'] == 1
        if name.startswith('backbone.downsample_layers.0'):
            assert group['lr_scale'] == 0.5**7


def test_average_of_the_weights(network):
    ema, x = ModelEmaV3(copy.deepcopy(network), decay=0.5), images()
    torch.testing.assert_close(ema.module(x), network(x))
    changed = copy.deepcopy(network)
    nn.init.constant_(changed.head.fc.bias, 1)
    ema.update(changed)
    torch.testing.assert_close(ema.module.head.fc.bias, torch.full((10,), 0.5))
    assert network.head.fc.bias.eq(0).all()


def test_branches_are_merged_by_timm(network):
    x = images()
    merged = reparameterize_model(network)
    assert not [m for m in merged.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(merged(x), network(x), rtol=1e-4, atol=1e-5)


# --- checkpoints and sparsity ---------------------------------------------------------------------


def test_output_and_state_dict_are_those_of_mmpretrain(network, classifier):
    assert network.state_dict().keys() == classifier.state_dict().keys()
    classifier.load_state_dict(network.state_dict())
    x = images(64, 96)
    with torch.no_grad():
        torch.testing.assert_close(network(x), classifier(x, mode='tensor'))
        (pooled,) = classifier.extract_feat(x)
        features = network.forward_features(x)
        torch.testing.assert_close(network.forward_head(features, pre_logits=True), pooled)
    back = nano(num_classes=10)
    back.load_state_dict(classifier.state_dict())
    assert torch.equal(back(x), network(x))


def test_checkpoints_of_this_package_and_of_the_authors(network, tmp_path):
    state, x = network.state_dict(), images()
    torch.save(dict(state_dict=state, meta=dict(epoch=1)), tmp_path / 'ours.pth')
    torch.save(to_official(dict(state_dict=state)), tmp_path / 'authors.pth')
    model = nano(num_classes=10, checkpoint_path=tmp_path / 'ours.pth')
    assert torch.equal(model(x), network(x))
    for name in ('ours.pth', 'authors.pth'):
        source = dict(file=str(tmp_path / name), num_classes=10)
        model = nano(num_classes=10, pretrained=True, pretrained_cfg_overlay=source)
        assert torch.equal(model(x), network(x))
    # Another number of classes and of channels: the linear layer is new, the stem is adapted.
    model = nano(num_classes=4, in_chans=1, pretrained=True, pretrained_cfg_overlay=source)
    stem = 'backbone.downsample_layers.0.0.weight'
    torch.testing.assert_close(model.state_dict()[stem], state[stem].sum(1, keepdim=True))
    assert torch.equal(
        model.backbone.stages[3][0].pwconv1.weight, network.backbone.stages[3][0].pwconv1.weight
    )
    assert model.head.fc.out_features == 4


def test_checkpoints_with_pickled_objects_are_refused(network, tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'was_run',)

    torch.save(dict(state_dict=network.state_dict(), payload=Payload()), tmp_path / 'bad.pth')
    source = dict(pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / 'bad.pth')))
    for arguments in (source, dict(checkpoint_path=tmp_path / 'bad.pth')):
        with pytest.raises(RuntimeError, match='weights_only=True blocked'):
            nano(num_classes=10, **arguments)
    assert not (tmp_path / 'was_run').exists()


def test_maskable_weights(network):
    weights = select_targets(network)
    assert weights.keys() == select_model_targets(network).keys()
    # Every matrix and kernel of the network is maskable, including that of the linear layer.
    assert weights.keys() == {n for n, p in network.named_parameters() if p.ndim in (2, 4)}
    large = select_model_targets(network, 'large_kernels')
    assert len(large) == 2 * 6
    assert all('.tall.' in name or '.wide.' in name for name in large)


def test_training_with_dynamic_sparsity():
    model = nano(num_classes=4).train()
    optimizer = create_optimizer_v2(model, 'adamw', lr=1e-3)
    update = dict(every=100, rate=0.5)
    sparsity = DynamicSparsity(select_targets(model), 0.4, 'erk', update, total_steps=1000)
    sparsity.attach(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(images()).square().mean().backward()
        optimizer.step()
    weights = select_targets(model).values()
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros / sum(w.numel() for w in weights) == pytest.approx(0.4, abs=1e-3)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(out_indices=(1, 2)), 'out_indices needs features_only=True'),
        (dict(in_channels=1), 'in_channels must be given as in_chans'),
        (dict(gap_before_final_norm=False), 'gap_before_final_norm is set by slak_'),
        (dict(global_pool='catavgmax'), "global_pool must be one of 'avg', .* got 'catavgmax'"),
        (dict(kernel_sizes=(4, 4, 4, 4)), 'kernel_sizes must be odd positive integers'),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        nano(**arguments)


def test_images_that_are_too_small(network):
    with pytest.raises(ValueError, match='at least 32 x 32, got 31 x 64'):
        network(images(31, 64))


def test_torchscript_is_refused_by_name(network):
    with pytest.raises(ValueError, match=r'SLaK cannot be compiled by torch\.jit\.script'):
        torch.jit.script(network)


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        (['timm'], 'needs timm; .*: pip install timm$'),
        (['timm', 'mmengine'], 'needs timm and mmengine; .*: pip install timm mmengine$'),
    ],
)
def test_missing_packages_are_named(monkeypatch, missing, message):
    monkeypatch.delitem(sys.modules, 'mmslak.timm')
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=message):
        importlib.import_module('mmslak.timm')
