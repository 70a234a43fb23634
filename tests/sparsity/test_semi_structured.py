"""2:4 masks: exactly two of every four, after every update."""

import pytest
import torch
from torch import nn

from mmslak.sparsity import DynamicSparsity, is_two_four, select_targets, to_semi_structured
from mmslak.sparsity.semi_structured import lowest_of_groups


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4),
        nn.Flatten(),
        nn.Linear(32, 18),
        nn.GELU(),
        nn.Linear(18, 6),
    )


def groups_of(mask):
    return [int(row[i : i + 4].sum()) for row in mask for i in range(0, mask.shape[1], 4)]


def train_step(model, optimizer, sparsity):
    optimizer.zero_grad()
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    sparsity.before_step()
    optimizer.step()
    return sparsity.step(optimizer)


@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
def test_two_of_every_four_after_every_update(grow):
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
    # 18 inputs do not divide by 4: with the convolution, unstructured at 0.3.
    others = masks.kept('0.weight') + masks.kept('4.weight')
    assert others == round(0.7 * (8 * 48 + 6 * 18))
    assert masks.density('2.weight') == 0.5
    changed = 0
    for _ in range(30):
        before = masks['2.weight']
        assert set(groups_of(before)) == {2}
        update = train_step(model, optimizer, sparsity)
        pruned, grown = before & ~masks['2.weight'], masks['2.weight'] & ~before
        assert groups_of(pruned) == groups_of(grown)
        assert int(pruned.sum()) == update.moves['2.weight'] > 0
        assert is_two_four(model[2].weight) and not model[2].weight[~masks['2.weight']].any()
        assert masks.kept('0.weight') + masks.kept('4.weight') == others
        changed += int(pruned.sum())
    assert set(groups_of(masks['2.weight'])) == {2} and changed


def test_growth_inside_a_group_takes_the_largest_gradients():
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
            left = (~after & ~before)[row, one]
            if grown.any() and left.any():
                assert gradient[row, one][grown].min() >= gradient[row, one][left].max()


def test_lowest_of_groups_takes_the_first_of_equals():
    values = torch.tensor([1.0, 1.0, 0.0, 1.0, 3.0, 2.0, 2.0, 2.0])
    assert lowest_of_groups(values, 2).int().tolist() == [1, 0, 1, 0, 0, 1, 1, 0]
    assert lowest_of_groups(values, torch.tensor([0, 3])).int().tolist() == [0] * 4 + [0, 1, 1, 1]


def test_weights_taken_over_must_be_two_four():
    model = network()
    parameters = select_targets(model)
    with pytest.raises(ValueError, match=r"exactly two of every four .* '2.weight'"):
        DynamicSparsity(parameters, mode='fixed', init='from_weights', structure='2:4')
    first = DynamicSparsity(parameters, 0.5, mode='fixed', structure='2:4')
    mask = first.masks['2.weight']
    model[2].weight.data[0] = 0  # grown and still zero: completed to two of each four
    again = DynamicSparsity(parameters, mode='fixed', init='from_weights', structure='2:4')
    assert torch.equal(again.masks['2.weight'][1:], mask[1:])
    assert set(groups_of(again.masks['2.weight'])) == {2}


def test_is_two_four():
    weights = torch.zeros(2, 8)
    weights[:, [0, 3, 4, 5]] = 1
    assert is_two_four(weights)
    weights[1, 6] = 1
    assert not is_two_four(weights)
    assert not is_two_four(torch.zeros(2, 6)) and not is_two_four(torch.zeros(4, 4, 1, 1))


def test_without_a_gpu_conversion_says_so():
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
