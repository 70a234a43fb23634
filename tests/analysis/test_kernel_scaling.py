"""Figure 4: counts against counts by hand, the claims, and the figures."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmslak.analysis.kernel_scaling import (
    Latency,
    claim_sentence,
    latency_sentences,
    measure_latency,
    network_costs,
    operators,
)
from mmslak.cli.config import load_config

pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[2]
#: ConvNeXt-T at 224 x 224: channels, and channels times positions, summed over all blocks.
CHANNELS = 3 * 96 + 3 * 192 + 9 * 384 + 3 * 768
POSITIONS = 3 * 96 * 56**2 + 3 * 192 * 28**2 + 9 * 384 * 14**2 + 3 * 768 * 7**2


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('analysis/kernel_scaling.py')


def test_counts_are_convnexts_and_its_larger_kernels():
    cfg = load_config(ROOT / 'configs/slak_t_in1k.py')
    small, large = network_costs(cfg, 7, 224), network_costs(cfg, 51, 224)
    # As published: 28.6 M and 4.5 G.
    assert small['full'] == (pytest.approx(28.59, abs=0.005), pytest.approx(4.46, abs=0.005))
    # A larger kernel only adds weights to every channel, each used at every position.
    params, macs = (b - a for a, b in zip(small['full'], large['full'], strict=True))
    assert params == pytest.approx((51**2 - 7**2) * CHANNELS / 1e6)
    assert macs == pytest.approx((51**2 - 7**2) * POSITIONS / 1e9)
    params, macs = (b - a for a, b in zip(small['decomposed'], large['decomposed'], strict=True))
    assert params == pytest.approx(2 * 5 * (51 - 7) * CHANNELS / 1e6)
    assert macs == pytest.approx(2 * 5 * (51 - 7) * POSITIONS / 1e9)
    # 60 % of the weights, and so of the multiply-adds; norms and biases stay dense.
    assert large['decomposed, sparse'][1] == pytest.approx(0.6 * large['decomposed'][1], rel=1e-4)
    assert 0.6 < large['decomposed, sparse'][0] / large['decomposed'][0] < 0.61


@pytest.mark.parametrize(
    ('large', 'verdict'),
    [((40.0, 9.0), 'holds'), ((40.0, 11.0), 'does not hold'), ((50.0, 9.0), 'does not hold')],
)
def test_claim(large, verdict):
    costs = {
        51: {'full': (45.0, 10.0)},
        151: {'decomposed': large, 'decomposed, sparse': (30.0, 6.0)},
    }
    assert f'51 x 51 kernels {verdict}: ' in claim_sentence(costs)


def test_claim_in_full():
    costs = {
        51: {'full': (45.0, 10.0)},
        151: {'decomposed': (40.0, 9.0), 'decomposed, sparse': (30.0, 6.0)},
    }
    assert claim_sentence(costs) == (
        "The paper's claim (section 6.2) that ConvNeXt-T with 151 x 151 kernels, decomposed, costs "
        'less than with full 51 x 51 kernels holds: '
        'decomposed 40.0 M parameters and 9.00 G multiply-adds; '
        'decomposed, sparse 30.0 M parameters and 6.00 G multiply-adds; '
        'full 45.0 M and 10.00 G.'
    )


def test_latency_claim():
    rows = [
        Latency('auto', 14, 7, 1.0, 2.0),
        Latency('auto', 14, 51, 10.0, 2.0),
        Latency('auto', 14, 151, 60.0, 4.0),
        Latency('native', 14, 51, 6.0, 2.0),
    ]
    fast, slow = latency_sentences(rows)
    assert "holds with 'auto'" in fast
    assert '5.00 to 15.00' in fast
    assert "does not hold everywhere with 'native'" in slow


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--kernels', '8'], '--kernels must be odd'),
        (['--kernels', '3'], 'at least 5'),
        (['--repeats', '0'], '--repeats must be positive'),
        (
            ['--device', 'cpu', '--implementation', 'native', 'triton'],
            '--implementation triton does not run with --device cpu',
        ),
    ],
)
def test_bad_arguments_are_named(tmp_path, tool, monkeypatch, capsys, arguments, message):
    out = tmp_path / 'out'
    monkeypatch.setattr(sys, 'argv', ['tool', '--out', str(out), *arguments])
    with pytest.raises(SystemExit) as caught:
        tool.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_figure_of_the_counts(tmp_path, tool):
    full = {'full': (45.0, 10.0), 'decomposed': (30.0, 5.0), 'decomposed, sparse': (18.0, 3.0)}
    tool.draw_costs({7: full, 51: full, 151: full}, tmp_path / 'figure.png', 224)
    with Image.open(tmp_path / 'figure.png') as image:
        assert image.size[0] > image.size[1] > 300


def test_latency_of_the_operator(tmp_path, tool):
    shown = []
    cases = [(r, k) for r in (6, 9) for k in (5, 9)]
    found = measure_latency(cases, ['auto', 'native'], 2, 3, 'cpu', 2, shown.append)
    # Two implementations of two operators, each timed twice after two other runs.
    assert shown.count('6 x 6, M 5') == 2 * 2 * (2 + 2) and len(set(shown)) == 4
    rows = [(item.implementation, item.resolution, item.kernel) for item in found]
    assert rows == [(i, r, k) for r in (6, 9) for k in (5, 9) for i in ('auto', 'native')]
    assert all(item.full > 0 and item.decomposed > 0 for item in found)
    tool.draw_latency(found, 'title', tmp_path / 'latency.png')
    with Image.open(tmp_path / 'latency.png') as image:
        assert image.size[0] > image.size[1] > 300
    # Both operators keep the shape.
    x = torch.zeros(1, 3, 11, 11)
    x[0, :, 5, 5] = 1
    full, decomposed = operators(3, 9, 'cpu', 'native')
    assert full(x).shape == decomposed(x).shape == x.shape
    # An impulse shows the kernels: a 9 x 9 square, and a cross of 9 x 5 and 5 x 9.
    assert int((full(x)[0, 0] != 0).sum()) == 81
    assert int((decomposed(x)[0, 0] != 0).sum()) == 2 * 45 - 25
