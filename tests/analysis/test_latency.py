"""Timing in turns, and the tables of the benchmarks."""

import json
import runpy
import sys
import time
from pathlib import Path

import pytest
import torch

from mmslak.analysis.latency import measure_in_turns

ROOT = Path(__file__).resolve().parents[2]


def test_runs_take_turns_and_the_median_counts():
    # Runs of more than 10 ms are not repeated.
    order, pauses = [], iter([0.02] * 6 + [0.2, 0.02, 0.02, 0.02, 0.02, 0.02])

    def way(name):
        def run():
            order.append(name)
            time.sleep(next(pauses))

        return lambda: run

    ticks = []
    costs = measure_in_turns(
        {'a': way('a'), 'b': way('b')}, repeats=3, progress=lambda: ticks.append(1)
    )
    assert ''.join(order) == 'aaabbb' + 'ababab'
    assert len(ticks) == 2 * 5
    # One slow run of three does not move the median.
    assert max(costs['a'].times) > 190
    assert costs['a'].ms < 100


def test_short_runs_are_repeated_within_a_turn(monkeypatch):
    calls, now = [], iter(range(1000))

    def run():
        calls.append(next(now))

    # Each run takes 2.1 ms, so that five fill a turn of 10 ms.
    monkeypatch.setattr('torch.utils.benchmark.timer', lambda: 0.0021 * len(calls))
    costs = measure_in_turns({'a': lambda: run}, repeats=4)
    assert len(calls) == 3 + 4 * 5
    assert costs['a'].times == pytest.approx([2.1] * 4)


def test_peak_memory_is_that_of_the_run_alone():
    def way(megabytes):
        return lambda: lambda: torch.ones(megabytes * 250_000).sum()

    costs = measure_in_turns({'small': way(1), 'large': way(64), 'again': way(1)}, repeats=1)
    if costs['large'].peak_mb is None:
        pytest.skip('this system does not report peak memory')
    assert 60 < costs['large'].peak_mb < 90
    assert costs['again'].peak_mb < 30


def run_tool(monkeypatch, capsys, name, *arguments):
    monkeypatch.setattr(sys, 'argv', [name, *arguments])
    threads = torch.get_num_threads()
    try:
        runpy.run_path(str(ROOT / 'tools' / 'benchmark' / name), run_name='__main__')
    finally:
        torch.set_num_threads(threads)
    return capsys.readouterr().out


def test_table_of_the_operator(monkeypatch, capsys):
    small = ['--kernels', 'wide', 'block', '--passes', 'forward', '--repeats', '1']
    names = ['native', 'auto', 'auto_channels_last']
    arguments = [*small, '--shapes', 'stages', '--implementations', *names, '--threads', '1']
    text = run_tool(monkeypatch, capsys, 'large_kernel.py', *arguments, '--json')
    rows = json.loads(text)
    assert len(rows) == 4 * 2 * 1 * 3
    assert {tuple(sorted(row)) for row in rows} == {
        ('dilation', 'implementation', 'kernel', 'ms', 'pass', 'peak_mb', 'ratio', 'shape')
    }
    assert {str(row['kernel']) for row in rows} == {
        '[5, 51]',
        '[5, 49]',
        '[5, 47]',
        '[5, 13]',
        'block',
    }
    by_name = {row['implementation']: row for row in rows[:3]}
    assert list(by_name) == names
    assert by_name['native']['ratio'] == 1
    ratio = by_name['native']['ms'] / by_name['auto']['ms']
    assert by_name['auto']['ratio'] == pytest.approx(ratio, rel=0.01)


def test_table_of_the_operator_with_dilation(monkeypatch, capsys):
    arguments = ['--shapes', 'stage1', '--kernels', '5x5', '--dilation', '1', '3']
    arguments += ['--implementations', 'native', 'auto', '--repeats', '1', '--threads', '1']
    text = run_tool(monkeypatch, capsys, 'large_kernel.py', *arguments)
    assert text.count('5x5, dilation 3') == 2  # the forward pass, and with the gradients
    assert text.count('5x5 ') == 2


MODELS = (
    'convnext_s', 'convnext_t', 'slak_t', 'slak_t_unaligned', 'slak_t_merged',
    'slak_t_merged_unaligned', 'slak_t_native', 'slak_t_neuron', 'slak_t_neuron_merged',
)  # fmt: skip


def test_table_of_the_networks(monkeypatch, capsys):
    pytest.importorskip('mmpretrain')
    arguments = ['--batch', '1', '--size', '64', '--repeats', '1', '--threads', '1']
    text = run_tool(monkeypatch, capsys, 'model.py', *arguments, '--json')
    rows = json.loads(text)
    assert {tuple(row) for row in rows} == {('model', 'mode', 'batch', 'size', 'ms', 'peak_mb')}
    # A merged network cannot be trained.
    assert [(row['mode'], row['model']) for row in rows] == [
        *(('inference', name) for name in MODELS),
        *(('train', name) for name in MODELS if 'merged' not in name),
    ]
    text = run_tool(monkeypatch, capsys, 'model.py', *arguments, '--modes', 'train')
    assert 'time / convnext_s' in text
    assert 'time / convnext_t' in text


def test_overhead_of_masking(monkeypatch, capsys):
    arguments = ['--arch', 'nano', '--batch', '2', '--size', '32', '--steps', '3', '--threads', '1']
    found = json.loads(run_tool(monkeypatch, capsys, 'sparsity_overhead.py', *arguments, '--json'))
    assert set(found) == {'step_s', 'masking_s', 'share'}
    assert 0 < found['masking_s'] < found['step_s']
    dense = found['step_s'] - found['masking_s']
    assert found['share'] == pytest.approx(found['masking_s'] / dense)
    assert 'masking / dense step' in run_tool(
        monkeypatch, capsys, 'sparsity_overhead.py', *arguments
    )


def test_the_number_of_threads_is_the_callers():
    seen = []

    def prepare():
        return lambda: seen.append(torch.get_num_threads())

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        measure_in_turns({'a': prepare}, repeats=1)
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {3}


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('model.py', ['--batch', '1'], '--batch and --size go together'),
        ('model.py', ['--repeats', '0'], '--repeats must be positive, got 0'),
        ('sparsity_overhead.py', ['--steps', '0'], '--steps must be positive, got 0'),
        ('large_kernel.py', ['--repeats', '0'], '--repeats must be positive, got 0'),
        ('large_kernel.py', ['--dilation', '2', '0'], '--dilation must be positive, got 0'),
        ('large_kernel.py', ['--implementations', 'fastest'], 'fastest not among native'),
    ],
)
def test_bad_arguments_are_one_sentence(monkeypatch, capsys, name, arguments, message):
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, capsys, name, *arguments)
    assert message in capsys.readouterr().err
