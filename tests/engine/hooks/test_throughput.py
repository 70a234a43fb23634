"""Throughput of training, and its bottleneck."""

import re
from types import SimpleNamespace

import pytest

from mmslak.engine import ThroughputHook
from mmslak.engine.hooks.throughput import bottleneck


@pytest.mark.parametrize(
    ('waiting', 'computing', 'workers', 'expected'),
    [
        (0.0, 1.0, 4, 'compute'),
        (0.5, 1.0, 4, 'data'),
        (0.5, 1.0, 0, 'compute'),
        (2.0, 1.0, 0, 'data'),
    ],
)
def test_bottleneck(waiting, computing, workers, expected):
    assert bottleneck(waiting, computing, workers) == expected


@pytest.mark.parametrize(('wait', 'expected'), [(0.0, 'compute'), (3.0, 'data')])
def test_logged_line(wait, expected, monkeypatch):
    """With a simulated clock: each iteration waits ``wait`` seconds, then computes one second.

    A validation of 500 seconds after six iterations does not count.
    """
    clock = [0.0]
    monkeypatch.setattr('mmslak.engine.hooks.throughput.time.perf_counter', lambda: clock[0])
    lines = []

    class Loader:
        batch_size, num_workers = 8, 2

        def __len__(self):
            return 100

    runner = SimpleNamespace(
        logger=SimpleNamespace(info=lines.append), train_dataloader=Loader(), max_iters=1000, iter=0
    )
    hook = ThroughputHook(first=10, warm_up=2, seconds=1e9)
    hook.before_train_epoch(runner)
    for i in range(10):
        runner.iter = i
        if i == 6:
            clock[0] += 500
            hook.after_val_epoch(runner)
        clock[0] += wait
        hook.before_train_iter(runner, i)
        clock[0] += 1
        hook.after_train_iter(runner, i)
    assert len(lines) == 1
    step = 1 + wait
    assert f'{8 / step:.1f} images/s' in lines[0] and f'bottleneck: {expected}' in lines[0]
    left = re.search(r'(\d+):(\d\d):(\d\d) left', lines[0])
    assert sum(int(v) * u for v, u in zip(left.groups(), (3600, 60, 1), strict=True)) == 990 * step
