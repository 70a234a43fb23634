"""Reasons for differences from the paper, against sums by hand and counts of real models."""

from pathlib import Path

import pytest

from mmslak.analysis.complexity import config_costs
from mmslak.analysis.paper import Row
from mmslak.analysis.paper_counts import Count
from mmslak.analysis.paper_differences import (
    contradictions,
    far_off,
    format_quantity,
    mixer_gmacs,
    reason_for,
)
from mmslak.cli.config import load_config

ROOT = Path(__file__).parents[2]


def test_far_off_is_more_than_3_percent():
    row = Row('net', 100, 10.0, None)
    counts = {
        'uniform': Count(102.9, 10.31, 10.31, 10.31),
        'SNIP': Count(96.9, 9.71, 9.71, 9.71),
    }
    found = [(quantity, allocation) for quantity, allocation, _ in far_off(row, counts)]
    assert found == [('params', 'SNIP'), ('gmacs', 'uniform')]
    assert far_off(Row('net', None, None, None), counts) == []


def test_contradictions_by_hand():
    """Sums of the paper's numbers, with the growth of the heads computed separately."""
    found = {(i.table, i.label, i.quantity): i.value for i in contradictions()}
    # UPerNet's layers on feature maps of 124, 249, 499, 998 instead of 96, 192, 384, 768 channels.
    laterals, pooling = (28 + 57 + 115) * 512, 4 * 230 * 512
    head = laterals + pooling + 9 * 230 * 512 + 9 * 115 * 256
    assert found[4, '300 epochs: SLaK-T', 'params'] == pytest.approx(60 + 30 - 29 + head / 1e6)
    assert found[4, '300 epochs: SLaK-S', 'params'] == pytest.approx(82 + 55 - 50 + head / 1e6)
    # An image of 1280 x 800 has 20.4 times the area; FPN has a 1 x 1 convolution per feature map.
    fpn = 256 * (28 * 320 * 200 + 57 * 160 * 100 + 115 * 80 * 50 + 230 * 40 * 25)
    expected = 208 + 0.5 * 1280 * 800 / 224**2 + fpn / 1e9
    assert found[5, 'SLaK-T', 'gmacs'] == pytest.approx(expected)
    assert found[5, 'ConvNeXt-T (RepLKNet)', 'params'] == 45 + 64 - 60
    assert found[1, 'naive 31-29-27-13', 'gmacs'] == pytest.approx(6.05, abs=0.005)


def test_mixer_by_hand():
    """Tolstikhin et al. 2021 and the toolboxes' model zoos print 12.6 G."""
    assert mixer_gmacs() == pytest.approx(12.6, abs=0.05)


def test_printed_kernels_of_table_1_are_a_misprint():
    """6.5 G are of 31-29-37-13, as printed; 32 M, and RepLKNet's row, are of 31-29-27-13."""
    pytest.importorskip('mmpretrain')
    counts = {}
    for third in (27, 37):
        options = {'model.backbone.kernel_sizes': (31, 29, third, 13)}
        for name in ('naive', 'replknet'):
            cfg = load_config(ROOT / f'configs/baselines/convnext_t_{name}_120e_in1k.py', options)
            costs = config_costs(cfg, (224, 224), 0.0)
            macs, params = costs['macs_dense'] / 1e9, costs['params_dense'] / 1e6
            counts[name, third] = round(macs, 1), round(params)
    assert counts == {
        ('naive', 27): (6.1, 32),
        ('naive', 37): (6.5, 34),
        ('replknet', 27): (6.2, 32),
        ('replknet', 37): (6.6, 34),
    }
    reason = reason_for(1, 'naive 31-29-27-13', 'gmacs', 'dense')
    assert '6.05 G' in reason
    assert '6.5 G belong to the kernels 31-29-37-13' in reason and '34 M' in reason


@pytest.mark.parametrize(
    ('allocation', 'words'),
    [('uniform', 'allocates the sparsity by SNIP'), ('SNIP', 'depends on the initial weights')],
)
def test_reason_of_an_allocation(allocation, words):
    assert words in reason_for(3, 'SLaK-T', 'gmacs', allocation)
    assert reason_for(3, 'SLaK-T', 'params', allocation) == 'not explained'


def test_quantities_are_formatted_as_the_paper_counts():
    assert format_quantity(6.054, 'gmacs') == '6.05'
    assert format_quantity(936.04, 'gmacs') == '936.0'
    assert format_quantity(28.59, 'params') == '28.6'
