"""Layer-wise and stage-wise learning-rate decay."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmslak.models import SLaK


class Model(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Conv2d(backbone.widths[-1], 5, 1)


def wrapper(model, **paramwise):
    return build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            constructor='mmslak.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=paramwise,
        ),
    )


def settings_by_name(model, optim_wrapper):
    names = {id(p): n for n, p in model.named_parameters()}
    return {
        names[id(p)]: (group['lr'], group['weight_decay'])
        for group in optim_wrapper.optimizer.param_groups
        for p in group['params']
    }


@pytest.mark.parametrize('decay_type', ['layer_wise', 'stage_wise'])
def test_learning_rates_and_weight_decay(decay_type):
    model = Model(SLaK(dict(depths=(1, 1, 9, 1), widths=(4, 4, 4, 4)), (5, 5, 5, 5)))
    found = settings_by_name(model, wrapper(model, decay_rate=0.7, decay_type=decay_type))
    assert set(found) == {n for n, _ in model.named_parameters()}
    # One of eight groups, counted from the input.
    layer_wise = decay_type == 'layer_wise'
    for name, group in {
        'backbone.downsample_layers.0.0.weight': 0,
        'backbone.stages.0.0.pwconv1.weight': 1,
        'backbone.downsample_layers.2.1.weight': 3 if layer_wise else 0,
        'backbone.stages.2.7.pwconv1.weight': 5 if layer_wise else 3,
        'backbone.stages.3.0.mixing.wide.conv.weight': 6 if layer_wise else 4,
        'head.weight': 7,
    }.items():
        assert found[name] == (pytest.approx(1e-3 * 0.7 ** (7 - group)), 0.05), name
    for name, (_, decay) in found.items():
        parameter = dict(model.named_parameters())[name]
        assert decay == (0.0 if parameter.ndim == 1 else 0.05), name


def test_frozen_parameters_are_in_no_group():
    model = Model(SLaK('nano', frozen_stages=2))
    found = settings_by_name(model, wrapper(model, decay_rate=0.9))
    assert not any(n.startswith(('backbone.stages.0', 'backbone.stages.1')) for n in found)
    assert 'backbone.stages.2.0.gamma' in found


def test_convnext_of_mmpretrain_has_the_same_groups():
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    convnext = backbones.ConvNeXt('tiny', out_indices=(0, 1, 2, 3), gap_before_final_norm=False)
    convnext.widths = convnext.channels
    model = Model(convnext)
    slak = Model(SLaK('tiny', (7, 7, 7, 7), width_factor=1.0, mode='naive'))
    for decay_type in ('layer_wise', 'stage_wise'):
        theirs, ours = (
            settings_by_name(m, wrapper(m, decay_rate=0.9, decay_type=decay_type, num_layers=6))
            for m in (model, slak)
        )
        renamed = {
            n.replace('depthwise_conv', 'mixing.large.conv').replace('pointwise_conv', 'pwconv'): s
            for n, s in theirs.items()
        }
        assert renamed == ours


def test_without_decay_any_model_has_two_groups():
    """One for matrices and kernels, one for vectors."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3))
    backbone.widths = [5]
    model = Model(backbone)
    groups = wrapper(model, decay_rate=1.0).optimizer.param_groups
    assert [group['weight_decay'] > 0 for group in groups] == [True, False]
    assert all(p.ndim > 1 for p in groups[0]['params'])
    assert all(p.ndim == 1 for p in groups[1]['params'])
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))


def test_table_is_logged(monkeypatch):
    logged = []
    monkeypatch.setattr(
        'mmslak.engine.optim.layer_decay.print_log', lambda text, **_: logged.append(text)
    )
    wrapper(Model(SLaK('nano')), decay_rate=0.5)
    (text,) = logged
    for word in ('layer_wise', 'lr scale', 'stages.2', 'head', '0.0312'):
        assert word in text


@pytest.mark.parametrize(
    ('paramwise', 'words'),
    [
        (dict(decay_rate=0), ['decay_rate', '(0, 1]', '0']),
        (dict(decay_rate=1.5), ['decay_rate', '1.5']),
        (dict(decay_rate=0.9, decay_type='blocks'), ['decay_type', 'blocks', 'stage_wise']),
        (dict(decay_rate=0.9, num_layers=12), ['num_layers', '4', '12']),
        (dict(decay_rate=0.9, norm_decay_mult=0), ['norm_decay_mult', 'decay_rate']),
    ],
)
def test_wrong_settings_are_named(paramwise, words):
    with pytest.raises(ValueError) as error:
        wrapper(Model(SLaK('nano')), **paramwise)
    for word in words:
        assert word in str(error.value)


def test_backbone_without_get_layer_depth_is_an_error():
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1))
    backbone.widths = [4]
    with pytest.raises(ValueError, match='get_layer_depth, but Sequential has none'):
        wrapper(Model(backbone), decay_rate=0.9)
