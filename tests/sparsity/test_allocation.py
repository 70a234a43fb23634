"""Allocation: exact totals, the published formulas, and examples worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmslak.sparsity import allocate

few = settings(max_examples=80, deadline=None, derandomize=True)

shapes_of_networks = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 40), st.integers(1, 40)),
        st.tuples(
            st.integers(1, 12), st.integers(1, 12), st.integers(1, 13), st.sampled_from([1, 5])
        ),
    ),
    min_size=1,
    max_size=8,
).map(lambda shapes: {f'layer{i}': shape for i, shape in enumerate(shapes)})


@few
@given(
    shapes=shapes_of_networks,
    sparsity=st.floats(0, 0.95),
    method=st.sampled_from(['uniform', 'erk', 'snip']),
    seed=st.integers(0, 99),
)
def test_total_sparsity_is_exact(shapes, sparsity, method, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(shape, generator=generator) for n, shape in shapes.items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = round((1 - sparsity) * sum(sizes.values()))
    if total < len(sizes):
        with pytest.raises(ValueError, match='at least one weight'):
            allocate(shapes, sparsity, method, scores)
        return
    kept = allocate(shapes, sparsity, method, scores)
    assert list(kept) == list(shapes)
    assert all(isinstance(count, int) and 1 <= count <= sizes[n] for n, count in kept.items())
    assert sum(kept.values()) == total
    nearly_dense = [n for n in kept if 0.99 * sizes[n] < kept[n] < sizes[n]]
    others = [n for n in kept if kept[n] <= 0.99 * sizes[n]]
    room = sum(kept[n] - 1 for n in others)
    # A layer keeps between 99 % and 100 % only if the other layers cannot compensate.
    assert not nearly_dense or room < sum(sizes[n] - kept[n] for n in nearly_dense)


@few
@given(shapes=shapes_of_networks, sparsity=st.floats(0.02, 0.9))
def test_uniform_densities_are_equal_within_one_weight(shapes, sparsity):
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    if any((1 - sparsity) * size < 1 for size in sizes.values()) or any(
        (1 - sparsity) * size + 1 > 0.99 * size for size in sizes.values()
    ):
        return  # a layer keeps a single weight or is left dense
    for name, count in allocate(shapes, sparsity, 'uniform').items():
        assert abs(count - (1 - sparsity) * sizes[name]) <= 1


def test_erk_equals_the_formula():
    # Raw densities (in + out + height + width) / (in * out * height * width):
    #   wide   (40, 20)        60 / 800  = 0.075
    #   point  (10, 30)        40 / 300  = 0.1333...
    #   depth  (8, 1, 9, 5)    23 / 360  = 0.06388...
    #   conv   (6, 4, 5, 5)    20 / 600  = 0.0333...
    # 2060 weights, a quarter kept: 515 = scale * (60 + 40 + 23 + 20), so scale = 515 / 143.
    # None is above 1 (the highest: 0.48).
    shapes = {'wide': (40, 20), 'point': (10, 30), 'depth': (8, 1, 9, 5), 'conv': (6, 4, 5, 5)}
    kept = allocate(shapes, 0.75, 'erk')
    exact = {'wide': 216.08, 'point': 144.06, 'depth': 82.83, 'conv': 72.03}
    assert kept == {'wide': 216, 'point': 144, 'depth': 83, 'conv': 72}
    for name, count in kept.items():
        assert count == pytest.approx(exact[name], abs=1)


def test_erk_cuts_densities_at_one_and_raises_the_others():
    # small (2, 3): 5 / 6; tall (4, 1, 5, 3): 13 / 60; large (30, 40): 70 / 1200. Half of 1266
    # is 633. scale = 633 / 88 = 7.19 puts small (5.99) and tall (1.56) above 1; without them
    # large gets 633 - 6 - 60 = 567.
    shapes = {'small': (2, 3), 'tall': (4, 1, 5, 3), 'large': (30, 40)}
    assert allocate(shapes, 0.5, 'erk') == {'small': 6, 'tall': 60, 'large': 567}


def test_layer_above_99_percent_is_left_dense_and_others_compensate():
    # The 1200 highest scores are 995 of the 1000 of a and 205 of the 1000 of b.
    scores = {'a': torch.ones(1000), 'b': torch.zeros(1000)}
    scores['a'][:5] = 0.1
    scores['b'][:205] = 0.5
    shapes = {'a': (1000,), 'b': (1000,)}
    assert allocate(shapes, 0.4, 'snip', scores) == {'a': 1000, 'b': 200}
    scores['a'][:11] = 0.1
    scores['b'][:211] = 0.5
    assert allocate(shapes, 0.4, 'snip', scores) == {'a': 989, 'b': 211}


def test_without_layers_to_compensate_all_keep_their_number():
    assert allocate({'a': (1000, 1), 'b': (1000, 1)}, 0.005, 'uniform') == {'a': 995, 'b': 995}
    assert allocate({'a': (50, 2), 'b': (7, 3)}, 0.0, 'uniform') == {'a': 100, 'b': 21}


def test_sparsities_by_pattern():
    shapes = {'stem': (10, 10), 'body.0': (20, 10), 'body.1': (20, 10), 'head': (10, 10)}
    kept = allocate(shapes, 0.4, dict(sparsities={'stem': 0, 'body.0': 0.8, 'body.*': 0.5}))
    assert kept == {'stem': 100, 'body.0': 40, 'body.1': 100, 'head': 60}
    assert allocate(shapes, 0.0, dict(sparsities={'head': 0.005}))['head'] == 100


@few
@given(seed=st.integers(0, 999), sparsity=st.floats(0.05, 0.9))
def test_snip_counts_the_highest_scores_of_the_network(seed, sparsity):
    generator = torch.Generator().manual_seed(seed)
    shapes = {'a': (30, 7), 'b': (5, 1, 9, 5), 'c': (11, 3, 2, 2)}
    scores = {
        n: torch.rand(s, generator=generator) * (i + 1) for i, (n, s) in enumerate(shapes.items())
    }
    kept = allocate(shapes, sparsity, 'snip', scores)
    ranked = sorted(
        ((value, n) for n in shapes for value in scores[n].flatten().tolist()), reverse=True
    )
    top = [n for _, n in ranked[: sum(kept.values())]]
    expected = {n: top.count(n) for n in shapes}
    if all(0 < expected[n] <= 0.99 * scores[n].numel() for n in shapes):
        assert kept == expected


def test_snip_keeps_a_weight_in_every_layer():
    scores = {'a': torch.ones(10, 10), 'b': torch.zeros(10, 10)}
    assert allocate({'a': (10, 10), 'b': (10, 10)}, 0.6, 'snip', scores) == {'a': 79, 'b': 1}


SHAPES = {'a': (10, 10), 'b': (10, 10)}


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(sparsity=1.0), 'sparsity must be a number in [0, 1), got 1.0'),
        (dict(sparsity=-0.1), 'sparsity must be a number in [0, 1), got -0.1'),
        (dict(sparsity=None), 'sparsity must be a number in [0, 1), got None'),
        (dict(sparsity=0.999), 'leaves 0 weights of 200'),
        (dict(method='magnitude'), "allocation must be one of 'uniform', 'erk', 'snip'"),
        (dict(method=dict(sparsities={'c*': 0.5})), "pattern 'c*', which matches none"),
        (
            dict(method={'a': 0.2}),
            'allocation must be dict(sparsities={pattern: sparsity}), where a sparsity is the '
            "share of masked weights, got {'a': 0.2}",
        ),
        (dict(method=dict(sparsities=0.2)), "got {'sparsities': 0.2}"),
        (
            dict(method=dict(sparsities={'a': 1.5})),
            "allocation.sparsities['a'] must be a number in [0, 1), got 1.5",
        ),
        (dict(method='snip'), 'needs scores'),
        (dict(method='snip', scores={'a': torch.ones(10, 10)}), "scores of 'b'"),
        (
            dict(method='snip', scores={n: torch.ones(2) for n in SHAPES}),
            'shape (10, 10), got (2,)',
        ),
        (dict(method='snip', scores={n: torch.zeros(10, 10) for n in SHAPES}), 'not all be 0'),
        (
            dict(method='snip', scores={n: torch.full((10, 10), torch.nan) for n in SHAPES}),
            'must be finite',
        ),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises(ValueError) as caught:
        allocate(SHAPES, **{'sparsity': 0.5, **arguments})
    assert message in str(caught.value)
