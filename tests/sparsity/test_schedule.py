"""When masks are updated, and how many weights move."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import network

from mmslak.sparsity import DynamicSparsity, UpdateRule, select_targets


@given(step=st.integers(0, 1200))
def test_adaptation_rates_equal_their_formulas(step):
    t = min(1, step / 1000)
    settings = dict(rate=0.5, rate_min=0.005)
    cosine = UpdateRule(**settings).rate_at(step, 1000)
    assert cosine == pytest.approx(0.005 + 0.495 * math.cos(math.pi * t / 2) ** 2, abs=1e-9)
    linear = UpdateRule(**settings, schedule='linear').rate_at(step, 1000)
    assert linear == pytest.approx(0.5 * (1 - t) + 0.005 * t)
    assert UpdateRule(**settings, schedule='constant').rate_at(step, None) == 0.5


@pytest.mark.parametrize(
    ('stop_at', 'total', 'expected'),
    [
        (None, 30, [10, 20]),
        (None, 31, [10, 20, 30]),
        (20, 100, [10]),
        (21, 100, [10, 20]),
        (0.5, 60, [10, 20]),
        (1.0, 41, [10, 20, 30, 40]),
        (0, 50, []),
    ],
)
def test_steps_with_updates(stop_at, total, expected):
    rule = UpdateRule(every=10, stop_at=stop_at)
    assert [step for step in range(total + 1) if rule.is_due(step, total)] == expected


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(every=0), 'update.every must be a positive integer, got 0'),
        (dict(rate=1.5), 'update.rate must be in [0, 1], got 1.5'),
        (dict(rate=0.1, rate_min=0.2), 'update.rate_min must be in [0, rate=0.1], got 0.2'),
        (dict(schedule='step'), "update.schedule must be one of 'cosine', 'linear', 'constant'"),
        (dict(grow='magnitude'), "update.grow must be one of 'random', 'gradient', 'momentum'"),
        (dict(stop_at=1.5), 'update.stop_at must be a step (int), a share'),
        (
            dict(frequency=100),
            "update takes every, rate, rate_min, schedule, grow, moments, stop_at, got '",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError) as caught:
        DynamicSparsity(select_targets(network()), 0.5, update=settings, total_steps=10)
    assert message in str(caught.value)
