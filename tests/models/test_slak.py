"""The backbone: structure, counts, shapes, gradients, precision and errors."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from torch import nn

import mmslak
from mmslak.models import MODES, SLaK


def nano(**kwargs):
    torch.manual_seed(0)
    return SLaK('nano', layer_scale_init_value=1.0, **kwargs)


@pytest.fixture(scope='module')
def network():
    return nano().eval()


def count(model):
    return sum(p.numel() for p in model.parameters())


# Millions of parameters of the authors' dense classifiers with 1000 classes. Weights of 2 and 4
# dimensions are maskable.
@pytest.mark.parametrize(
    ('arch', 'parameters'), [('tiny', 50.70), ('small', 91.13), ('base', 157.95)]
)
def test_classifiers_have_the_published_number_of_parameters(arch, parameters):
    with torch.device('meta'):
        backbone = SLaK(arch, out_indices=-1, gap_before_final_norm=True)
        head = nn.Linear(backbone.widths[-1], 1000)
    assert round((count(backbone) + count(head)) / 1e6, 2) == parameters
    if arch == 'tiny':
        weights = [p for m in (backbone, head) for p in m.parameters() if p.ndim in (2, 4)]
        assert round(sum(p.numel() for p in weights) / 1e6, 2) == 50.58


@pytest.mark.parametrize(
    ('arch', 'widths'),
    [
        ('tiny', (124, 249, 499, 998)),
        ('small', (124, 249, 499, 998)),
        ('base', (166, 332, 665, 1331)),
    ],
)
def test_widths(arch, widths):
    with torch.device('meta'):
        assert SLaK(arch).widths == widths


@pytest.mark.parametrize(
    ('kernels', 'mode', 'millions'),
    # Paper, tables 1 and 2: ConvNeXt-T with other kernel sizes, 1000 classes.
    [
        ((7, 7, 7, 7), 'naive', 29),
        ((31, 29, 27, 13), 'naive', 32),
        ((51, 49, 47, 13), 'reparam', 38),
        ((61, 59, 57, 13), 'reparam', 43),
        ((31, 29, 27, 13), 'decomposed', 30),
        ((51, 49, 47, 13), 'decomposed', 31),
    ],
)
def test_other_kernel_sizes_have_the_published_number_of_parameters(kernels, mode, millions):
    with torch.device('meta'):
        backbone = SLaK('tiny', kernels, mode=mode, width_factor=1.0, out_indices=-1)
    assert round((count(backbone) + 769 * 1000) / 1e6) == pytest.approx(millions, abs=1)


def test_nano_is_small():
    assert count(nano()) < 1e6


@settings(max_examples=12, deadline=None)
@given(h=st.integers(32, 97), w=st.integers(32, 97), n=st.integers(1, 2))
def test_images_of_any_size_from_32(network, h, w, n):
    with torch.no_grad():
        outs = network(torch.zeros(n, 3, h, w))
    shapes = [(n, c, h // s, w // s) for c, s in zip(network.widths, (4, 8, 16, 32), strict=True)]
    # Each downsampling drops an odd row or column, so that sizes are rounded down.
    assert [tuple(o.shape) for o in outs] == shapes


@pytest.mark.parametrize('mode', MODES)
def test_gradients_reach_every_parameter(mode):
    model = nano(mode=mode)
    loss = sum(o.square().mean() + o.mean() for o in model(torch.randn(2, 3, 64, 64)))
    loss.backward()
    without = [
        n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert without == []


def test_naive_7x7_equals_convnext_of_mmpretrain():
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    convnext = backbones.ConvNeXt(
        dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32]),
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        layer_scale_init_value=0.5,
    )
    convnext.eval()
    model = SLaK(
        dict(depths=[1, 1, 2, 1], widths=[8, 16, 24, 32]),
        kernel_sizes=(7, 7, 7, 7),
        mode='naive',
        layer_scale_init_value=0.5,
    ).eval()
    names = {'depthwise_conv': 'mixing.large.conv', 'pointwise_conv': 'pwconv'}
    state = {}
    for key, value in convnext.state_dict().items():
        for old, new in names.items():
            key = key.replace(old, new)
        state[key] = torch.randn(value.shape) * 0.1
    convnext.load_state_dict(dict(zip(convnext.state_dict(), state.values(), strict=True)))
    model.load_state_dict(state)
    x = torch.randn(2, 3, 48, 64)
    for ours, theirs in zip(model(x), convnext(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_block_follows_the_formula(network):
    block = network.stages[2][0]
    x = torch.randn(2, network.widths[2], 5, 6)
    y = block.mixing(x).permute(0, 2, 3, 1)
    y = (y - y.mean(-1, keepdim=True)) / torch.sqrt(y.var(-1, keepdim=True, correction=0) + 1e-6)
    y = nn.functional.gelu(y @ block.pwconv1.weight.T + block.pwconv1.bias)
    y = block.gamma * (y @ block.pwconv2.weight.T + block.pwconv2.bias)
    expected = x + y.permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_initialisation():
    model = SLaK('nano')
    model.init_weights()
    for name, parameter in model.named_parameters():
        if parameter.ndim in (2, 4):
            # As in ConvNeXt: truncated normal with std 0.02.
            assert parameter.abs().max() < 6 * 0.02
            if parameter.numel() > 2000:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.1)
                assert parameter.mean().item() == pytest.approx(0.0, abs=0.002)
        elif 'gamma' in name:
            assert (parameter == 1e-6).all()
        elif name.endswith('bias'):
            assert (parameter == 0).all()
        else:
            assert (parameter == 1).all()


def test_drop_path_grows_linearly():
    model = nano(drop_path_rate=0.5)
    rates = [
        getattr(block.drop_path, 'drop_prob', 0.0) for stage in model.stages for block in stage
    ]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize('indices', [(3,), -1, (0, 2), (-2, -1)])
def test_out_indices(indices):
    model = nano(out_indices=indices)
    outs = model(torch.zeros(2, 3, 32, 32))
    wanted = [indices] if isinstance(indices, int) else indices
    assert [o.shape[1] for o in outs] == [model.widths[i] for i in wanted]


def test_classifier_feature_is_pooled_then_normalised():
    model = nano(out_indices=(3,), gap_before_final_norm=True)
    dense = nano(out_indices=(3,))
    dense.norm3 = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    (feature,) = model(x)
    pooled = dense(x)[0].mean((2, 3))
    assert feature.shape == (2, model.widths[-1])
    expected = nn.functional.layer_norm(pooled, pooled.shape[1:], eps=1e-6)
    torch.testing.assert_close(feature, expected, rtol=1e-4, atol=1e-5)


def test_frozen_stages_and_norm_eval():
    model = nano(frozen_stages=2).train()
    before = copy.deepcopy(model.state_dict())
    sum(o.mean() for o in model(torch.randn(2, 3, 64, 64))).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(
            tuple(f'{p}.{i}.' for p in ('stages', 'downsample_layers') for i in (0, 1))
        )
        assert (parameter.grad is None) == frozen, name
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed and all(n.startswith(('stages.2', 'stages.3')) for n in changed)

    model = nano(norm_eval=True).train()
    before = copy.deepcopy(model.state_dict())
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert model.stages[0].training


def test_activation_checkpointing_changes_nothing():
    x = torch.randn(2, 3, 64, 64)
    states = []
    for with_cp in (False, True):
        model = nano(with_cp=with_cp).train()
        sum(o.square().mean() for o in model(x)).backward()
        states.append((dict(model.named_parameters()), model.state_dict()))
    for name, parameter in states[0][0].items():
        torch.testing.assert_close(parameter.grad, states[1][0][name].grad)
    # The recomputation must not update the running statistics again.
    for name, value in states[0][1].items():
        torch.testing.assert_close(value, states[1][1][name])


def test_channels_last_input_has_the_same_output(network):
    x = torch.randn(2, 3, 64, 48)
    for a, b in zip(network(x), network(x.to(memory_format=torch.channels_last)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mixed_precision_is_close_to_float32(dtype):
    model = nano()
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)
    with torch.autocast('cpu', dtype):
        outs = model(x)
        loss = sum(o.float().square().mean() for o in outs)
    loss.backward()
    for ours, full in zip(outs, expected, strict=True):
        error = (ours.float() - full).norm() / full.norm()
        assert error < (0.05 if dtype == torch.bfloat16 else 0.01)
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('kwargs', [dict(), dict(mode='reparam', drop_path_rate=0.2)])
def test_compiles_without_graph_breaks(kwargs):
    torch._dynamo.reset()
    model = nano(kernel_sizes=(7, 7, 7, 7), **kwargs).eval()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(compiled(x), model(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    # In training, drop path and running statistics could break the graph.
    torch.compile(model.train(), fullgraph=True, backend='aot_eager')(x.expand(2, -1, -1, -1))


def test_compiles_with_activation_checkpointing():
    torch._dynamo.reset()
    x = torch.randn(2, 3, 64, 64)
    states = []
    for compiled in (False, True):
        model = nano(kernel_sizes=(7, 7, 7, 7), with_cp=True).train()
        run = torch.compile(model, fullgraph=True, backend='aot_eager') if compiled else model
        sum(o.square().mean() for o in run(x)).backward()
        states.append((model.state_dict(), {n: p.grad for n, p in model.named_parameters()}))
    for eager, graph in zip(states[0], states[1], strict=True):
        for name, value in eager.items():
            torch.testing.assert_close(value, graph[name], rtol=1e-4, atol=1e-5)


def test_registries_of_all_toolboxes_find_it_by_scope():
    assert isinstance(ROOT_MODELS.build(dict(type='mmslak.SLaK', arch='nano')), SLaK)
    for toolbox in ('mmseg', 'mmdet', 'mmpretrain'):
        registry = pytest.importorskip(f'{toolbox}.registry')
        model = registry.MODELS.build(dict(type='mmslak.SLaK', arch='nano', in_channels=4))
        assert model.downsample_layers[0][0].in_channels == 4
    assert mmslak.__version__


def test_arch_as_dict_and_pretrained_weights(tmp_path):
    arch = dict(depths=(1, 1, 1, 1), widths=(8, 16, 16, 24))
    model = SLaK(arch)
    assert model.widths == (8, 16, 16, 24)
    assert SLaK(arch, width_factor=1.5).widths == (12, 24, 24, 36)
    state = {k: torch.rand_like(v.float()) for k, v in model.state_dict().items()}
    del state['norm2.weight']
    torch.save(state, tmp_path / 'weights.pth')
    loaded = SLaK(arch, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    loaded.init_weights()
    torch.testing.assert_close(loaded.stages[0][0].gamma.data, state['stages.0.0.gamma'])
    assert (loaded.norm2.weight == 1).all()


def test_get_layer_depth():
    """The groups of ConvNeXt's recipe, written out for tiny (6 layers) and small (12 layers)."""
    with torch.device('meta'):
        tiny, small = SLaK('tiny'), SLaK('small')
    expected = {
        'backbone.downsample_layers.0.0.weight': (0, 0),
        'backbone.stages.0.2.norm.weight': (1, 1),
        'backbone.downsample_layers.1.1.bias': (2, 0),
        'backbone.stages.1.0.gamma': (2, 2),
        'backbone.downsample_layers.2.1.weight': (3, 0),
        'backbone.stages.2.0.pwconv1.weight': (3, 3),
        'backbone.stages.2.3.pwconv1.weight': (4, 3),
        'backbone.stages.2.8.pwconv1.weight': (5, 3),
        'backbone.downsample_layers.3.0.weight': (6, 0),
        'backbone.stages.3.1.pwconv2.weight': (6, 4),
        'backbone.norm3.weight': (7, 7),
        'decode_head.conv_seg.weight': (7, 7),
    }
    for name, groups in expected.items():
        for decay_type, group in zip(('layer_wise', 'stage_wise'), groups, strict=True):
            assert tiny.get_layer_depth(name, 'backbone.', decay_type) == (group, 8), name
    deep = 'backbone.stages.2.26.pwconv1.weight'
    assert small.get_layer_depth(deep, 'backbone.') == (11, 14)
    assert small.get_layer_depth('backbone.stages.3.0.gamma', 'backbone.') == (12, 14)
    with pytest.raises(ValueError, match=r'decay_type.*block_wise'):
        tiny.get_layer_depth(deep, 'backbone.', 'block_wise')


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(arch='huge'), ['arch', 'huge', 'tiny', 'base']),
        (dict(arch=dict(depths=(1, 1, 1, 1))), ['arch', 'depths', 'widths']),
        (dict(arch=dict(depths=(1, 1, 1, 1), widths=(8, 0, 8, 8))), ['widths', '0', 'positive']),
        (dict(arch=dict(depths=(1, -1, 1, 1), widths=(8, 8, 8, 8))), ['depths', '-1']),
        (dict(width_factor=0), ['width_factor', '0', 'positive']),
        (dict(width_factor=0.01), ['widths', 'positive']),
        (dict(mode='merged'), ['mode', 'merged', 'decomposed']),
        (dict(kernel_sizes=(51, 48, 47, 13)), ['kernel_sizes', '48', 'odd']),
        (dict(kernel_sizes=(51, 49, 47)), ['kernel_sizes', '4 entries']),
        (dict(kernel_sizes=(51, 49, 47, 3)), ['kernel_sizes', '3', 'small_kernel=5']),
        (dict(small_kernel=6), ['small_kernel', '6', 'odd']),
        (dict(out_indices=(0, 4)), ['out_indices', '4', '0..3']),
        (dict(out_indices=(2, 1)), ['out_indices', 'ascending']),
        (dict(frozen_stages=5), ['frozen_stages', '5', '-1..4']),
        (dict(in_channels=0), ['in_channels', '0', 'positive']),
        (dict(drop_path_rate=1.0), ['drop_path_rate', '1.0']),
        (dict(drop_path_rate='0.1'), ['drop_path_rate', "'0.1'"]),
        (dict(layer_scale_init_value=float('nan')), ['layer_scale_init_value', 'nan']),
        (dict(layer_scale_init_value=-1), ['layer_scale_init_value', '-1']),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ValueError) as error:
        SLaK(**dict(dict(arch='nano'), **arguments))
    for word in words:
        assert word in str(error.value), str(error.value)


def test_too_small_image_is_an_error(network):
    with pytest.raises(ValueError, match='32 x 32, got 31 x 64'):
        network(torch.zeros(1, 3, 31, 64))


def test_image_without_batch_dimension_is_an_error(network):
    with pytest.raises(ValueError, match=r'shape \(N, C, H, W\), got \(3, 64, 64\)'):
        network(torch.zeros(3, 64, 64))


def test_classifier_of_mmpretrain_computes_gradients():
    classifiers = pytest.importorskip('mmpretrain.models.classifiers')
    structures = pytest.importorskip('mmpretrain.structures')
    backbone = dict(type='mmslak.SLaK', arch='nano', out_indices=-1, gap_before_final_norm=True)
    head = dict(type='LinearClsHead', num_classes=5, in_channels=166)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = classifiers.ImageClassifier(backbone=backbone, head=head)
    samples = [structures.DataSample().set_gt_label(i) for i in (1, 4)]
    loss = model.loss(torch.randn(2, 3, 64, 64), samples)['loss']
    loss.backward()
    assert model.head.fc.weight.grad.abs().sum() > 0
    assert model.backbone.stages[0][0].mixing.wide.conv.weight.grad.abs().sum() > 0


def test_outputs_are_contiguous():
    """MMCV's RoIAlign ignores strides."""
    assert all(out.is_contiguous() for out in SLaK('nano')(torch.zeros(2, 3, 64, 96)))
