"""The masks that training starts with: random, from scores, from weights or from a state."""

import pytest
import torch
from networks import batch, network
from torch import nn

from mmslak.sparsity import DynamicSparsity, select_targets, snip_scores, unpack_masks
from mmslak.sparsity.initial_masks import initial_masks


def test_snip_allocates_random_masks_or_selects_the_highest_scores():
    model = network()
    parameters = select_targets(model)
    images, labels = batch(0)
    scores = snip_scores(
        model, parameters, lambda: nn.functional.cross_entropy(model(images), labels)
    )
    random = DynamicSparsity(select_targets(network()), 0.4, 'snip', scores=scores, mode='fixed')
    top = DynamicSparsity(
        select_targets(network()), 0.4, 'snip', scores=scores, init='scores', mode='fixed'
    )
    count = round(0.6 * random.masks.numel)
    assert random.masks.active == top.masks.active == count
    assert not torch.equal(random.masks['6.weight'], top.masks['6.weight'])
    flat = torch.cat([scores[name].flatten() for name in parameters])
    best = torch.zeros(len(flat), dtype=torch.bool)
    best[flat.argsort(descending=True)[:count]] = True
    assert torch.equal(torch.cat([top.masks[name].flatten() for name in parameters]), best)
    for name in parameters:
        assert random.masks.kept(name) == top.masks.kept(name)


def test_masks_from_weights_and_from_a_state():
    model = network()
    first = DynamicSparsity(select_targets(model), 0.5, mode='fixed')
    for init in ('from_weights', unpack_masks(first.state_dict())):
        again = DynamicSparsity(select_targets(model), mode='fixed', init=init)
        assert again.masks.checksum() == first.masks.checksum()


@pytest.mark.parametrize('allocation', ['uniform', 'erk', 'snip'])
def test_frozen_weights_stay_out_of_the_selection(allocation):
    weights = {name: nn.Parameter(torch.randn(8, 16)) for name in 'abc'}
    weights['a'].requires_grad_(False)
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    # As for a frozen weight whose gradient is not computed.
    scores['a'] = torch.zeros(8, 16)
    masks = initial_masks(weights, 'random', 0.5, allocation, scores)
    assert set(masks) == {'b', 'c'}
    assert sum(int(mask.sum()) for mask in masks.values()) == 128
    assert set(initial_masks(weights, 'from_weights', 0.5, allocation)) == {'a', 'b', 'c'}
