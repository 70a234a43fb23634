"""2:4 sparsity: exactly two of every four weights are active, after every update."""

import pytest
import torch
from networks import train_step
from torch import nn

from mmslak.sparsity import DynamicSparsity, is_two_four, select_targets, to_semi_structured
from mmslak.sparsity.semi_structured import lowest_of_groups


def network():
    """Return a network of which only one linear layer has a multiple of four inputs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4),
        nn.Flatten(),
        nn.Linear(32, 18),
        nn.GELU(),
        nn.Linear(18, 10),
    )


def active_in_groups(mask):
    """Return the number of active weights in each group of four."""
    return [int(row[i : i + 4].sum()) for row in mask for i in range(0, mask.shape[1], 4)]


@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
def test_two_of_every_four_are_active_after_every_update(grow):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    sparsity = DynamicSparsity(
        select_targets(model),
        0.3,
        'uniform',
        dict(every=1, rate=0.6, grow=grow),
        structure='2:4',
        total_steps=31,
    )
    masks = sparsity.masks
    # 18 inputs are not a multiple of 4. This layer and the convolution have the sparsity 0.3.
    others = masks.kept('0.weight') + masks.kept('4.weight')
    assert others == round(0.7 * (8 * 48 + 10 * 18))
    assert masks.density('2.weight') == 0.5
    changed = 0
    for step in range(30):
        before = masks['2.weight']
        assert set(active_in_groups(before)) == {2}
        update = train_step(model, optimizer, sparsity, step)
        pruned, grown = before & ~masks['2.weight'], masks['2.weight'] & ~before
        assert active_in_groups(pruned) == active_in_groups(grown)
        assert int(pruned.sum()) == update.moves['2.weight'] > 0
        assert is_two_four(model[2].weight) and not model[2].weight[~masks['2.weight']].any()
        assert masks.kept('0.weight') + masks.kept('4.weight') == others
        changed += int(pruned.sum())
    assert set(active_in_groups(masks['2.weight'])) == {2} and changed


def test_weights_with_the_largest_gradients_grow_in_each_group():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsity = DynamicSparsity(
        select_targets(model, dict(include=['2.*'])),
        0.5,
        update=dict(every=1, rate=0.4, grow='gradient'),
        structure='2:4',
        total_steps=9,
    )
    before = sparsity.masks['2.weight']
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    gradient = model[2].weight.grad.clone().abs()
    sparsity.before_step()
    optimizer.step()
    sparsity.step(optimizer)
    after = sparsity.masks['2.weight']
    for row in range(18):
        for i in range(0, 32, 4):
            one = slice(i, i + 4)
            grown = (after & ~before)[row, one]
            still_masked = (~after & ~before)[row, one]
            if grown.any() and still_masked.any():
                assert gradient[row, one][grown].min() >= gradient[row, one][still_masked].max()


def test_lower_indices_come_first_among_equal_values():
    values = torch.tensor([1.0, 1.0, 0.0, 1.0, 3.0, 2.0, 2.0, 2.0])
    assert lowest_of_groups(values, 2).int().tolist() == [1, 0, 1, 0, 0, 1, 1, 0]
    assert lowest_of_groups(values, torch.tensor([0, 3])).int().tolist() == [0] * 4 + [0, 1, 1, 1]


def test_weights_to_start_from_must_be_two_four():
    model = network()
    parameters = select_targets(model)
    with pytest.raises(ValueError, match=r"exactly two of every four .* '2.weight'"):
        DynamicSparsity(parameters, mode='fixed', init='from_weights', structure='2:4')
    first = DynamicSparsity(parameters, 0.5, mode='fixed', structure='2:4')
    mask = first.masks['2.weight']
    model[2].weight.data[0] = 0  # as if grown and still zero
    again = DynamicSparsity(parameters, mode='fixed', init='from_weights', structure='2:4')
    assert torch.equal(again.masks['2.weight'][1:], mask[1:])
    assert set(active_in_groups(again.masks['2.weight'])) == {2}


def test_is_two_four():
    weights = torch.zeros(2, 8)
    weights[:, [0, 3, 4, 5]] = 1
    assert is_two_four(weights)
    weights[1, 6] = 1
    assert not is_two_four(weights)
    assert not is_two_four(torch.zeros(2, 6)) and not is_two_four(torch.zeros(4, 4, 1, 1))


def test_conversion_without_a_gpu_is_an_error():
    with pytest.raises(RuntimeError, match=r"capability 8\.0 or later, but '2' is on cpu"):
        to_semi_structured(network())


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason='needs a GPU with sparse tensor cores',
)
def test_converted_layers_compute_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64), nn.Linear(64, 10))
    model = model.half().cuda()
    DynamicSparsity(select_targets(model), 0.5, mode='fixed', structure='2:4')
    x = torch.randn(64, 64, dtype=torch.half, device='cuda')
    with torch.no_grad():
        expected = model(x)
        assert to_semi_structured(model) == ['0', '2']
        torch.testing.assert_close(model(x), expected, rtol=1e-2, atol=1e-2)
