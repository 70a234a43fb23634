"""Multiply-adds against counts by hand and against published numbers."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmslak.analysis.complexity import (
    config_costs,
    default_shape,
    format_count,
    multiply_adds,
    weight_uses,
)
from mmslak.cli.config import load_config
from mmslak.models import SLaK
from mmslak.sparsity import allocate, select_model_targets, select_targets

ROOT = Path(__file__).parents[2]


def test_uses_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8 x 8 to 4 x 4
        nn.Conv2d(8, 8, (5, 3), padding=(2, 1), groups=8),
        nn.ConvTranspose2d(8, 8, 2, stride=2),  # 4 x 4 to 8 x 8, each weight 16 times
        nn.Flatten(2),
        nn.Linear(64, 5),  # on each of 8 rows
    )
    uses = weight_uses(model, lambda: model(torch.zeros(1, 3, 8, 8)))
    assert uses == {'0.weight': 16, '1.weight': 16, '2.weight': 16, '4.weight': 8}
    macs = {name: n * dict(model.named_parameters())[name].numel() for name, n in uses.items()}
    assert macs == {
        '0.weight': 4 * 4 * 8 * 27,
        '1.weight': 4 * 4 * 8 * 15,
        '2.weight': 4 * 4 * 8 * 8 * 4,
        '4.weight': 8 * 64 * 5,
    }


@pytest.mark.parametrize(
    ('arch', 'gmacs', 'sparse_gmacs', 'sparse_parameters'),
    # The paper has 30 M and 5.0 G, 55 M and 9.8 G, 95 M and 17.1 G (table 3), with SNIP.
    [('tiny', 8.70, 5.22, 30.47), ('small', 16.60, 9.96, 54.78), ('base', 28.51, 17.11, 94.91)],
)
def test_slak_dense_and_at_uniform_40_percent(arch, gmacs, sparse_gmacs, sparse_parameters):
    with torch.device('meta'):
        backbone = SLaK(arch, out_indices=-1, gap_before_final_norm=True)
        head = nn.Linear(backbone.widths[-1], 1000)
        model = nn.ModuleDict(dict(backbone=backbone, head=head))
        uses = weight_uses(
            model, lambda: model.head(model.backbone(torch.zeros(1, 3, 224, 224))[-1])
        )
    weights = select_targets(model)
    assert set(uses) == set(weights)
    assert sum(n * weights[name].numel() for name, n in uses.items()) / 1e9 == pytest.approx(
        gmacs, abs=0.005
    )
    kept = allocate(weights, 0.4, 'uniform')
    assert sum(n * kept[name] for name, n in uses.items()) / 1e9 == pytest.approx(
        sparse_gmacs, abs=0.006
    )
    parameters = sum(p.numel() for p in model.parameters())
    parameters -= sum(w.numel() - kept[name] for name, w in weights.items())
    assert round(parameters / 1e6, 2) == pytest.approx(sparse_parameters, abs=0.006)


@given(
    length=st.integers(1, 9),
    keys=st.integers(1, 9),
    heads=st.integers(1, 3),
    width=st.integers(1, 5),
    weights=st.booleans(),
)
@settings(deadline=None, max_examples=20)
def test_attention_by_hand(length, keys, heads, width, weights):
    """Four projections, the products of queries and keys, and of attention weights and values."""
    channels = heads * width
    with torch.device('meta'):
        layer = nn.MultiheadAttention(channels, heads, batch_first=True).eval()
        x, y = torch.zeros(1, length, channels), torch.zeros(1, keys, channels)
        macs = multiply_adds(lambda: layer(x, y, y, need_weights=weights))
    projections = 2 * length * channels**2 + 2 * keys * channels**2
    assert macs == projections + 2 * length * keys * channels


@given(
    channels=st.integers(1, 4),
    groups=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    transposed=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_both_counts_agree_for_networks_of_layers(channels, groups, kernel, stride, transposed):
    convolution = nn.ConvTranspose2d if transposed else nn.Conv2d
    with torch.device('meta'):
        model = nn.Sequential(
            convolution(groups * channels, 2 * groups, kernel, stride, groups=groups),
            nn.BatchNorm2d(2 * groups),
            nn.GELU(),
            nn.Flatten(2),
            nn.LazyLinear(3),
        ).eval()
        x = torch.zeros(2, groups * channels, 7, 6)
        model(x)
    uses = {}
    macs = multiply_adds(lambda: uses.update(weight_uses(model, lambda: model(x))))
    parameters = dict(model.named_parameters())
    assert macs == sum(n * parameters[name].numel() for name, n in uses.items())


@pytest.mark.parametrize(
    ('config', 'size', 'parameters', 'gmacs'),
    # As published, including the products of queries, keys and values.
    [
        ('deit/deit-small_4xb256_in1k.py', 224, 22.1, 4.6),
        ('_base_/models/swin_transformer/tiny_224.py', 224, 28.3, 4.5),
        ('_base_/models/tnt_s_patch16_224.py', 224, 23.8, 5.2),
        ('_base_/models/t2t-vit-t-14.py', 224, 21.5, 6.1),
        ('vision_transformer/vit-base-p16_64xb64_in1k-384px.py', 384, 86.9, 55.5),
    ],
)
def test_transformers_are_as_published(config, size, parameters, gmacs):
    pytest.importorskip('mmpretrain')
    cfg = get_config(f'mmpretrain::{config}')
    cfg.setdefault('default_scope', 'mmpretrain')
    costs = config_costs(cfg, (size, size), 0.0)
    assert round(costs['params_dense'] / 1e6, 1) == parameters
    assert round(costs['macs_dense'] / 1e9, 1) == gmacs
    assert costs['macs_sparse'] == costs['macs_dense']


class TestKept:
    """Sparsity with a given number of active weights per layer."""

    @pytest.fixture(scope='class')
    def cfg(self):
        pytest.importorskip('mmpretrain')
        return load_config(ROOT / 'configs/sample/slak_nano_in1k.py')

    @pytest.fixture(scope='class')
    def weights(self, cfg):
        backbone = SLaK(**{k: v for k, v in cfg.model.backbone.items() if k != 'type'})
        classes = cfg.model.head.num_classes
        head = {'head.fc.weight': backbone.widths[-1] * classes}
        return {
            n: p.numel() for n, p in select_targets(backbone, 'all', 'backbone.').items()
        } | head

    def test_all_kept_is_dense(self, cfg, weights):
        costs = config_costs(cfg, (64, 64), kept=weights)
        assert costs['params_sparse'] == costs['params_dense']
        assert costs['macs_sparse'] == costs['macs_dense']

    def test_each_masked_weight_saves_its_uses(self, cfg, weights):
        # The stem has a stride of 4: 64 x 64 becomes 16 x 16 positions.
        name = 'backbone.stages.0.0.pwconv1.weight'
        costs = config_costs(cfg, (64, 64), kept={**weights, name: weights[name] - 3})
        assert costs['params_dense'] - costs['params_sparse'] == 3
        assert costs['macs_dense'] - costs['macs_sparse'] == 3 * 16 * 16

    def test_merged_networks_compute_with_zeros_but_without_masked_neurons(self, cfg):
        costs = config_costs(cfg, (64, 64), 0.4)
        assert costs['macs_executed'] == costs['macs_dense'] > costs['macs_sparse']
        cfg = copy.deepcopy(cfg)
        cfg.default_hooks = dict(
            sparsity=dict(type='mmslak.DynamicSparsityHook', structure='neuron', sparsity=0.5)
        )
        costs = config_costs(cfg, (64, 64), 0.5)
        # Half of the 4 C neurons of every block are masked, each with 2 C weights.
        depths, widths = (1, 1, 3, 1), (20, 41, 83, 166)
        saved = sum(
            depth * (64 // stride) ** 2 * 2 * width * 2 * width
            for depth, width, stride in zip(depths, widths, (4, 8, 16, 32), strict=True)
        )
        assert costs['macs_dense'] - costs['macs_executed'] == saved
        assert costs['macs_sparse'] < costs['macs_executed']

    @pytest.mark.parametrize('count', [None, -1, 10**9])
    def test_invalid_numbers_are_named(self, cfg, weights, count):
        name = 'backbone.stages.0.0.pwconv1.weight'
        kept = {key: value for key, value in weights.items() if key != name}
        if count is not None:
            kept[name] = count
        with pytest.raises(ValueError, match='pwconv1'):
            config_costs(cfg, (64, 64), kept=kept)


def test_hooks_are_removed_after_an_error():
    model = nn.Linear(3, 2)
    with pytest.raises(RuntimeError):
        weight_uses(model, lambda: model(torch.zeros(1, 4)))
    assert not model._forward_hooks


@pytest.mark.parametrize(
    ('config', 'parameters', 'gmacs'),
    # Table 4 of the paper: dense networks, counted by the same convention.
    [
        ('baselines/upernet_convnext_t_ade20k', 60, 939),
        ('baselines/upernet_convnext_s_ade20k', 82, 1027),
        ('baselines/upernet_convnext_b_ade20k', 122, 1170),
    ],
)
def test_dense_segmentors_are_the_papers(config, parameters, gmacs):
    pytest.importorskip('mmseg')
    costs = config_costs(load_config(ROOT / f'configs/{config}.py'), (512, 2048))
    assert round(costs['params_dense'] / 1e6) == parameters
    assert costs['macs_dense'] / 1e9 == pytest.approx(gmacs, rel=0.001)


def test_snip_keeps_the_highest_scores_of_all_layers():
    """Against the threshold of a sort of all scores, with low scores in stage 1."""
    pytest.importorskip('mmpretrain')
    cfg = load_config(ROOT / 'configs/sample/slak_nano_in1k.py')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(cfg.model).eval()
    uses = weight_uses(model, lambda: model(torch.zeros(1, 3, 64, 64), mode='tensor'))
    weights, generator = select_model_targets(model), torch.Generator().manual_seed(0)
    assert 'head.fc.weight' in weights and set(weights) == set(uses)
    scores = {
        name: torch.rand(w.shape, generator=generator) * (0.5 if '.stages.0.' in name else 1)
        for name, w in weights.items()
    }
    ranked = torch.cat([s.flatten() for s in scores.values()]).sort(descending=True).values
    threshold = ranked[round(0.6 * len(ranked)) - 1]
    expected = sum(uses[name] * int((s >= threshold).sum()) for name, s in scores.items())
    by_snip, uniform = (
        config_costs(cfg, (64, 64), 0.4, kept)
        for kept in (allocate(weights, 0.4, 'snip', scores), None)
    )
    assert by_snip['macs_sparse'] == expected < 0.99 * uniform['macs_sparse']
    assert by_snip['params_sparse'] == uniform['params_sparse']


def test_sparse_segmentor_is_close_to_the_papers():
    """The paper has 65 M and 936 G with SNIP; this is the uniform allocation."""
    pytest.importorskip('mmseg')
    costs = config_costs(load_config(ROOT / 'configs/upernet_slak_t_ade20k.py'), (512, 2048))
    assert costs['params_sparse'] / 1e6 == pytest.approx(65, rel=0.03)
    assert costs['macs_sparse'] / 1e9 == pytest.approx(936, rel=0.03)
    assert costs['params_sparse'] < costs['params_dense']


def test_command_prints_numbers():
    pytest.importorskip('mmseg')
    done = subprocess.run(
        [sys.executable, 'tools/analysis/complexity.py', 'configs/upernet_slak_t_ade20k.py']
        + ['--shape', '64', '96', '--json'],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        check=True,
        capture_output=True,
        text=True,
    )
    (row,) = json.loads(done.stdout)
    assert row['shape'] == [64, 96]
    counts = {'params_dense', 'params_sparse', 'macs_dense', 'macs_sparse', 'macs_executed'}
    assert set(row) == {'config', 'shape', *counts}
    assert 0 < row['macs_sparse'] < row['macs_executed'] == row['macs_dense']


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (1169.31, '1169.3'),
        (28.589, '28.6'),
        (5.2168, '5.22'),
        (0.5401, '0.540'),
        (0.00799, '0.00799'),
        (0.0, '0.0'),
    ],
)
def test_numbers_have_a_decimal_and_three_digits(value, text):
    assert format_count(value) == text


@given(st.floats(1e-6, 1e6))
def test_formatted_numbers_are_accurate(value):
    assert float(format_count(value)) == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(
    ('settings', 'shape'),
    [
        (dict(default_scope='mmseg'), (512, 2048)),
        (dict(default_scope='mmdet'), (800, 1280)),
        (dict(default_scope='mmpretrain'), (224, 224)),
        (dict(default_scope='mmpretrain', input_size=384), (384, 384)),
        (dict(), (224, 224)),
    ],
)
def test_default_shape(settings, shape):
    assert default_shape(Config(settings)) == shape


def test_a_model_without_a_backbone_is_named():
    with pytest.raises(ValueError, match='Linear has none'):
        select_model_targets(nn.Linear(2, 2))


class TestCommand:
    """The printed table."""

    @pytest.fixture
    def run(self, load_tool, monkeypatch, capsys):
        pytest.importorskip('mmpretrain')
        tool = load_tool('analysis/complexity.py')

        def run(*arguments):
            monkeypatch.chdir(ROOT)
            monkeypatch.setattr('sys.argv', ['complexity.py', *arguments])
            tool.main()
            return capsys.readouterr().out

        return run

    @staticmethod
    def rows(printed):
        lines = [line for line in printed.splitlines() if line.startswith('│')]
        cells = ([cell.strip() for cell in line.strip('│').split('│')] for line in lines)
        return {name: rest for name, *rest in cells}

    def test_small_models_have_digits(self, run):
        path = 'configs/sample/slak_nano_in1k.py'
        costs = config_costs(load_config(ROOT / path), (64, 64))
        (row,) = self.rows(run(path)).values()
        shape, params, sparse_params, _, _, gmacs, sparse_gmacs, *_ = row
        assert shape == '64 x 64'
        for text, key, unit in (
            (params, 'params_dense', 1e6),
            (sparse_params, 'params_sparse', 1e6),
            (gmacs, 'macs_dense', 1e9),
            (sparse_gmacs, 'macs_sparse', 1e9),
        ):
            assert float(text) == pytest.approx(costs[key] / unit, rel=0.005)

    def test_paper_columns_and_notes(self, run):
        configs = [f'configs/{name}.py' for name in ('slak_t_in1k', 'sample/convnext_nano_in1k')]
        printed = run(*configs, 'configs/baselines/convnext_t_naive_120e_in1k.py')
        rows = self.rows(printed)
        assert rows['slak_t_in1k'][3:5] == ['30', '+1.6%']
        assert rows['slak_t_in1k'][7:9] == ['5.0', '+4.5%']
        # The dense numbers of dense networks are compared.
        assert rows['convnext_t_naive_120e_in1k'][7:9] == ['6.5', '-6.0%']
        assert rows['convnext_nano_in1k'][3:5] == ['-', '-']
        notes = ' '.join(printed.split()).split('More than 3 % away: ')[1:]
        assert [note.split(':')[0] for note in notes] == [
            'slak_t_in1k, multiply-adds, +4.5%',
            'convnext_t_naive_120e_in1k, multiply-adds, -6.0%',
        ]
        assert 'SNIP' in notes[0] and '31-29-37-13' in notes[1]
        # With other settings the paper has no number to compare with.
        assert set(self.rows(run(configs[0], '--shape', '64', '64'))['slak_t_in1k'][7:9]) == {'-'}
