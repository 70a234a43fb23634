"""Pruning and growing, and the growth rules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import OPTIMIZERS, batch, network, train_step
from torch import nn

from mmslak.sparsity import DynamicSparsity, prune_and_grow, reset_moments_, select_targets

few = settings(max_examples=60, deadline=None, derandomize=True)


@few
@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 999),
    share=st.floats(0, 1),
    levels=st.sampled_from([2, 1000]),
)
def test_prune_and_grow_against_sorting(count, seed, share, levels):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randint(-levels, levels + 1, (count,), generator=generator).float()
    priority = torch.randint(levels, (count,), generator=generator).float()
    mask = torch.rand(count, generator=generator) < 0.6
    active = [i for i in range(count) if mask[i]]
    masked = [i for i in range(count) if not mask[i]]
    moves = int(share * min(len(active), len(masked)))
    pruned = sorted(active, key=lambda i: (abs(float(weights[i])), i))[:moves]
    grown = sorted(masked, key=lambda i: (float(priority[i]), i))[:moves]
    expected = mask.clone()
    expected[pruned], expected[grown] = False, True
    assert torch.equal(prune_and_grow(weights, mask, moves, priority), expected)


@pytest.mark.parametrize('grow', ['gradient', 'momentum'])
def test_weights_with_the_largest_gradients_grow(grow):
    model = network()
    optimizer = OPTIMIZERS['sgd'](model.parameters())
    sparsity = DynamicSparsity(
        select_targets(model), 0.7, 'uniform', dict(every=4, rate=0.3, grow=grow), total_steps=99
    )
    averages = {name: torch.zeros(p.shape) for name, p in sparsity.masks.parameters.items()}
    for step in range(1, 5):
        images, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        dense = {name: p.grad.clone() for name, p in sparsity.masks.parameters.items()}
        for name in averages:
            averages[name] = 0.9 * averages[name] + 0.1 * dense[name]
        before = {name: sparsity.masks[name] for name in averages}
        sparsity.before_step()
        optimizer.step()
        update = sparsity.step(optimizer)
    for name, moved in update.moves.items():
        source = (dense if grow == 'gradient' else averages)[name].abs()
        grown = sparsity.masks[name] & ~before[name]
        still_masked = ~sparsity.masks[name] & ~before[name]
        assert int(grown.sum()) == moved > 0
        assert source[grown].min() >= source[still_masked].max() * (1 - 1e-5)


def test_no_more_weights_grow_than_are_masked():
    model = network()
    optimizer = OPTIMIZERS['sgd'](model.parameters())
    sparsity = DynamicSparsity(
        select_targets(model), 0.1, 'uniform', dict(every=1, rate=1.0), total_steps=9
    )
    masked = {name: ~sparsity.masks[name] for name in sparsity.masks.masked}
    update = train_step(model, optimizer, sparsity, 0)
    for name, before in masked.items():
        assert update.moves[name] == int(before.sum())
        assert sparsity.masks[name][before].all()


def test_random_growth_depends_on_the_step():
    sums = set()
    for steps in (3, 4):
        model = network()
        sparsity = DynamicSparsity(
            select_targets(model),
            0.5,
            update=dict(every=1, rate=0.3, schedule='constant'),
        )
        sparsity.load_state_dict({**sparsity.state_dict(), 'steps': steps})
        sums.add(train_step(model, OPTIMIZERS['sgd'](model.parameters()), sparsity, 0).checksum)
    assert len(sums) == 2


@pytest.mark.parametrize(
    'make',
    [
        lambda p: torch.optim.AdamW(p, amsgrad=True),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    ],
)
def test_moments_are_reset_only_for_the_given_weights(make):
    model = nn.Linear(6, 5)
    optimizer = make(model.parameters())
    for _ in range(2):
        model(torch.randn(3, 6)).square().sum().backward()
        optimizer.step()
    where = torch.rand(5, 6) < 0.5
    of_weight = {k: v for k, v in optimizer.state[model.weight].items() if v is not None}
    before = {k: v.clone() for k, v in of_weight.items()}
    bias_before = {k: v.clone() for k, v in optimizer.state[model.bias].items() if v is not None}
    reset_moments_(optimizer, model.weight, where)
    tensors = [k for k, v in before.items() if v.shape == where.shape]
    assert tensors
    for key in before:
        expected = before[key] * ~where if key in tensors else before[key]
        assert torch.equal(of_weight[key], expected)
    for key, value in bias_before.items():
        assert torch.equal(optimizer.state[model.bias][key], value)
