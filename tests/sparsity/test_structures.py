"""Structures: units of weights, their counts, and training with them."""

import copy
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmslak.sparsity import (
    TAP_CHANNELS,
    DynamicSparsity,
    Units,
    allocate,
    find_units,
    select_targets,
    snip_scores,
)
from mmslak.sparsity.structures import Part

few = settings(max_examples=60, deadline=None, derandomize=True)


class Block(nn.Module):
    """Two linear layers with the names of SLaK's."""

    def __init__(self, inputs, hidden, outputs, bias=True):
        super().__init__()
        self.pwconv1 = nn.Linear(inputs, hidden, bias)
        self.pwconv2 = nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.pwconv2(nn.functional.gelu(self.pwconv1(x)))


def network(channels=20, hidden=24):
    """Return a network with a large kernel, a pair of linear layers and a head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        nn.Conv2d(channels, channels, (9, 5), groups=channels, padding='same'),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Block(channels, hidden, 12),
        nn.Linear(12, 10),
    )


def batch(step):
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(4, 3, 8, 8, generator=generator)
    return images, torch.randint(10, (4,), generator=generator)


def start(structure, model=None, sparsity=0.5, allocation='uniform', **settings):
    """Return a network, its optimiser and its sparse training."""
    model = network() if model is None else model
    update = dict(every=2, rate=0.4, **settings.pop('update', {}))
    dynamics = DynamicSparsity(
        select_targets(model), sparsity, allocation, update,
        structure=structure, model=model, total_steps=21, **settings,
    )  # fmt: skip
    return model, torch.optim.AdamW(model.parameters(), 0.02, weight_decay=0.1), dynamics


def train_step(model, optimizer, dynamics, step):
    images, labels = batch(step)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    dynamics.before_step()
    nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    return dynamics.step(optimizer)


def active_neurons(model, masks):
    """Return the active neurons, after checking rows, columns and biases one by one."""
    first, second = masks['4.pwconv1.weight'], masks['4.pwconv2.weight']
    block, found = model[4], []
    for j in range(len(first)):
        ones = torch.cat([first[j], second[:, j]])
        assert ones.all() or not ones.any()
        found.append(bool(ones[0]))
        if not found[-1]:
            assert not block.pwconv1.weight[j].any() and not block.pwconv2.weight[:, j].any()
            assert block.pwconv1.bias[j] == 0
    return torch.tensor(found)


def active_taps(model, masks):
    """Return the number of active taps of each size, after checking them one by one."""
    mask, counts = masks['1.weight'], {}
    assert not model[1].weight[~mask].any()
    for first in range(0, len(mask), TAP_CHANNELS):
        group = mask[first : first + TAP_CHANNELS]
        for y in range(group.shape[2]):
            for x in range(group.shape[3]):
                ones = group[:, 0, y, x]
                assert ones.all() or not ones.any()
                counts[len(ones)] = counts.get(len(ones), 0) + int(ones[0])
    return counts


# -- units ---------------------------------------------------------------------------------


@few
@given(
    kind=st.sampled_from(['unstructured', 'neuron', 'tap', '2:4']),
    channels=st.integers(2, 19),
    hidden=st.integers(2, 9),
    seed=st.integers(0, 999),
)
def test_expand_and_reduce_are_consistent(kind, channels, hidden, seed):
    model = network(channels, hidden)
    parameters = select_targets(model)
    units, biases = find_units(parameters, kind, model)
    generator = torch.Generator().manual_seed(seed)
    masks, chosen = {}, []
    for one in units:
        mask = torch.rand(one.count, generator=generator) < 0.5
        if one.structure == '2:4':
            mask = one.choose(torch.rand(one.count, generator=generator), 0)
        chosen.append(mask)
        one.expand(mask, masks)
    assert set(masks) == {*parameters, *biases}
    assert all(masks[name].shape == p.shape for name, p in parameters.items())
    # Every weight belongs to one unit, and units of a kind have equally many weights.
    values = {name: torch.randn(p.shape, generator=generator) for name, p in parameters.items()}
    assert sum(one.numel for one in units) == sum(p.numel() for p in parameters.values())
    total = sum(one.reduce(values).sum() for one in units)
    torch.testing.assert_close(total, sum(v.sum() for v in values.values()), rtol=0, atol=1e-3)
    for one, mask in zip(units, chosen, strict=True):
        assert torch.equal(one.contract(masks), mask)
        active = one.reduce({name: m.float() for name, m in masks.items() if name in parameters})
        assert torch.equal(active, mask * float(one.size))
        squares = one.reduce({name: value**2 for name, value in values.items()})
        torch.testing.assert_close(one.norm(values) ** 2, squares)


def test_units_worked_out_by_hand():
    model = nn.Sequential(Block(2, 3, 1))
    parameters = select_targets(model)
    (units,), biases = find_units(parameters, 'neuron', model)
    assert (units.count, units.size, units.numel) == (3, 3, 9)
    assert list(biases) == ['0.pwconv1.bias']
    values = {
        '0.pwconv1.weight': torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, -1.0]]),
        '0.pwconv2.weight': torch.tensor([[2.0, 12.0, -1.0]]),
    }
    assert units.reduce(values).tolist() == [5, 19, -2]
    torch.testing.assert_close(units.norm(values), torch.tensor([3.0, 13.0, 2**0.5]))
    masks = units.expand(torch.tensor([True, False, True]))
    assert masks['0.pwconv1.weight'].int().tolist() == [[1, 1], [0, 0], [1, 1]]
    assert masks['0.pwconv1.bias'].int().tolist() == [1, 0, 1]
    assert masks['0.pwconv2.weight'].int().tolist() == [[1, 0, 1]]
    masks['0.pwconv2.weight'][0, 1] = True
    with pytest.raises(ValueError, match=r"needs masks of whole neurons, but the mask of '0\.pw"):
        units.contract(masks)


def test_last_channels_have_taps_of_their_own():
    model = network(channels=20)
    units, _ = find_units(select_targets(model), 'tap', model)
    sizes = {one.name: (one.count, one.size) for one in units if one.structure == 'tap'}
    assert sizes == {'1.weight': (2 * 45, 8), '1.weight[16:]': (45, 4)}
    few_channels = network(channels=5)
    units, _ = find_units(select_targets(few_channels), 'tap', few_channels)
    assert [(u.name, u.size) for u in units if u.structure == 'tap'] == [('1.weight', 5)]


# -- allocation ----------------------------------------------------------------------------


@few
@given(
    structure=st.sampled_from(['neuron', 'tap', 'both', 'only neurons']),
    method=st.sampled_from(['uniform', 'erk', 'snip']),
    sparsity=st.floats(0, 0.9),
    channels=st.integers(2, 30),
    hidden=st.integers(2, 40),
    seed=st.integers(0, 99),
)
def test_total_differs_by_less_than_a_unit(structure, method, sparsity, channels, hidden, seed):
    model = network(channels, hidden)
    parameters = select_targets(model)
    if structure == 'only neurons':
        parameters = {n: p for n, p in parameters.items() if n.startswith('4.')}
    spec = {'both': dict(linear='neuron', large_kernels='tap'), 'only neurons': 'neuron'}
    units, _ = find_units(parameters, spec.get(structure, structure), model)
    layers = {one.name: one for one in units}
    generator = torch.Generator().manual_seed(seed)
    scores = {n: torch.rand(p.shape, generator=generator) for n, p in parameters.items()}
    total = round((1 - sparsity) * sum(p.numel() for p in parameters.values()))
    if total < sum(one.size for one in units):
        with pytest.raises(ValueError, match='at least one weight or unit'):
            allocate(layers, sparsity, method, scores)
        return
    kept = allocate(layers, sparsity, method, scores)
    assert all(1 <= kept[one.name] <= one.count for one in units)
    missing = total - sum(kept[one.name] * one.size for one in units)
    masked = [one.size for one in units if kept[one.name] < one.count]
    assert missing == 0 or 0 < missing < min(masked)


def test_snip_compares_units_by_their_score_per_weight():
    model = nn.ModuleList([Block(2, 2, 1, bias=False), nn.Linear(3, 1)])
    parameters = select_targets(model)
    scores = {
        # The neurons have 3 weights each, with the sums 9 and 3.
        '0.pwconv1.weight': torch.tensor([[4.0, 4.0], [1.0, 1.0]]),
        '0.pwconv2.weight': torch.tensor([[1.0, 1.0]]),
        '1.weight': torch.tensor([[3.5, 2.0, 0.5]]),
    }
    units, _ = find_units(parameters, 'neuron', model)
    layers = {one.name: one for one in units}
    # In descending order: 3.5, 3 (a neuron), 2, 1 (a neuron), 0.5.
    expected = {4: (1, 1), 5: (1, 2), 6: (1, 3), 8: (2, 2)}
    for total, (neurons, weights) in expected.items():
        kept = allocate(layers, 1 - total / 9, 'snip', scores)
        assert (kept['0.pwconv1.weight'], kept['1.weight']) == (neurons, weights)


def test_erk_of_a_pair_is_that_of_its_layers():
    # 72 weights of neurons (8 each) have the raw density (4 + 9 + 9 + 4) / 72, 900 weights of taps
    # (20 each) have (20 + 1 + 9 + 5) / 900. Of 60 weights, scale * 26 = 25.6 are of neurons (3.2)
    # and scale * 35 = 34.4 are of taps (1.7), with scale = 60 / 61. Rounded down these are 44
    # weights. Another tap does not fit into the missing 16, but two neurons do.
    pair = Units('a', (_part('a', (9, 4), 1), _part('b', (4, 9), 0)), structure='neuron')
    taps = Units('c', (_part('c', (20, 1, 9, 5), 0, view=(20, 45)),), structure='tap')
    assert (pair.size, pair.count, taps.size, taps.count) == (8, 9, 20, 45)
    assert allocate({'a': pair, 'c': taps}, 1 - 60 / 972, 'erk') == {'a': 5, 'c': 1}


def _part(name, shape, dim, view=None):
    return Part(name, shape, shape if view is None else view, dim)


@pytest.mark.parametrize('method', ['uniform', 'erk', 'snip'])
def test_dense_layers_are_compensated_by_the_others(method):
    model = network()
    images, labels = batch(0)
    scores = snip_scores(
        model, select_targets(model), lambda: nn.functional.cross_entropy(model(images), labels)
    )
    structure = dict(linear='neuron', large_kernels='unstructured', others='dense')
    _, _, dynamics = start(structure, model, 0.4, method, scores=scores)
    masks = dynamics.masks
    assert masks.dense == ['0.weight', '5.weight']
    assert masks.active == round(0.6 * masks.numel)


def test_too_many_dense_layers_are_an_error():
    structure = dict(linear='neuron', large_kernels='dense', others='dense')
    with pytest.raises(ValueError, match=r'the dense layers of structure have .* lower sparsity'):
        start(structure, sparsity=0.9)


def test_sparsities_by_pattern_match_any_tensor_of_a_unit():
    model = network()
    _, _, dynamics = start('neuron', model, 0.5, dict(sparsities={'*pwconv2*': 0.25, '0.*': 0}))
    assert dynamics.masks.density('4.pwconv1.weight') == 0.75
    assert dynamics.masks.dense == ['0.weight']


# -- training ------------------------------------------------------------------------------

STRUCTURES = ['neuron', 'tap', '2:4', dict(linear='neuron', large_kernels='tap')]


@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
@pytest.mark.parametrize('structure', STRUCTURES, ids=str)
def test_masks_stay_structured_and_counts_exact(structure, grow):
    model, optimizer, dynamics = start(structure, update=dict(grow=grow))
    masks = dynamics.masks
    kept = {name: masks.kept(name) for name in masks.parameters}
    unit = 32 if 'neuron' in str(structure) else 8
    assert 0 <= round(0.5 * masks.numel) - masks.active < unit
    taps = active_taps(model, masks) if 'tap' in str(structure) else None
    changed = 0
    for step in range(1, 13):
        update = train_step(model, optimizer, dynamics, step)
        assert {name: masks.kept(name) for name in masks.parameters} == kept
        if 'neuron' in str(structure):
            active_neurons(model, masks)
        if taps:
            assert active_taps(model, masks) == taps
        for name, parameter in masks.parameters.items():
            for value in optimizer.state[parameter].values():
                if value.shape == parameter.shape:
                    assert not value[~masks[name]].any()
        changed += 0 if update is None else sum(update.moves.values())
    assert changed and dynamics.explored > masks.active / masks.numel


def test_units_of_smallest_norm_are_pruned_and_of_largest_gradients_grown():
    model, optimizer, dynamics = start('tap', network(channels=16), update=dict(grow='gradient'))
    before = dynamics.masks['1.weight']
    images, labels = batch(0)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        gradient = model[1].weight.grad.clone()
        dynamics.before_step()
        optimizer.step()
        weights = model[1].weight.detach() * before
        dynamics.step(optimizer)

    def norms(values):
        return values.reshape(2, 8, 45).norm(dim=1).flatten()

    def units(mask):
        return mask.reshape(2, 8, 45)[:, 0].flatten()

    old, new = units(before), units(dynamics.masks['1.weight'])
    pruned, kept, grown, masked = old & ~new, old & new, new & ~old, ~old & ~new
    assert pruned.sum() == grown.sum() > 0
    assert norms(weights)[pruned].max() <= norms(weights)[kept].min()
    assert norms(gradient)[grown].min() >= norms(gradient)[masked].max()


def test_growing_a_neuron_changes_no_output_and_gives_it_a_gradient():
    model, optimizer, dynamics = start('neuron')
    train_step(model, optimizer, dynamics, 1)
    images, labels = batch(2)
    nn.functional.cross_entropy(model(images), labels).backward()
    dynamics.before_step()
    optimizer.step()
    optimizer.zero_grad()
    before = active_neurons(model, dynamics.masks)
    pruned = copy.deepcopy(model)
    dynamics.step(optimizer)
    after = active_neurons(model, dynamics.masks)
    grown, lost = after & ~before, before & ~after
    assert grown.any()
    first, second = model[4].pwconv1, model[4].pwconv2
    rows = first.weight[grown]
    assert 0.01 < rows.std() < 0.03 and not first.bias[grown].any()
    assert not second.weight[:, grown].any()
    # The same network without the pruned neurons, and before anything grows.
    with torch.no_grad():
        pruned[4].pwconv2.weight[:, lost] = 0
        for name, mask in ((n, dynamics.masks[n]) for n in ('0.weight', '1.weight', '5.weight')):
            dict(pruned.named_parameters())[name].mul_(mask)
        torch.testing.assert_close(model(images), pruned(images), rtol=0, atol=1e-6)
    nn.functional.cross_entropy(model(images), labels).backward()
    assert second.weight.grad[:, grown].abs().amax(0).min() > 0
    dynamics.before_step()
    optimizer.step()
    dynamics.step(optimizer)
    # From the next step on the first layer has gradients, too.
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    assert first.weight.grad[grown].abs().amax(1).min() > 0
    assert first.bias.grad[grown].abs().min() > 0


def test_copies_of_the_network_are_masked_with_their_biases():
    model = network()
    average = copy.deepcopy(model)
    with torch.no_grad():
        model[4].pwconv1.bias.fill_(1.0)
        average[4].pwconv1.bias.fill_(1.0)
    _, _, dynamics = start('neuron', model)
    dynamics.apply_to(average)
    active = active_neurons(average, dynamics.masks)
    assert torch.equal(average[4].pwconv1.bias != 0, active)
    # Biases are neither counted nor saved.
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert dynamics.masks.numel == weights
    assert set(dynamics.state_dict()['packed']) <= set(dynamics.masks.parameters)


@pytest.mark.parametrize('structure', STRUCTURES, ids=str)
@pytest.mark.parametrize('interrupted_after', [3, 4])
def test_resumed_training_is_bitwise_equal(tmp_path, structure, interrupted_after):
    run = start(structure, update=dict(grow='momentum', moments='layer'))
    for step in range(1, 9):
        train_step(*run, step)
        if step == interrupted_after:
            torch.save([part.state_dict() for part in run], tmp_path / 'checkpoint.pth')
    model = network()
    torch.nn.init.normal_(model[4].pwconv1.bias)
    resumed = start(structure, model, seed=1, update=dict(grow='momentum', moments='layer'))
    saved = torch.load(tmp_path / 'checkpoint.pth', weights_only=True)
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    for step in range(interrupted_after + 1, 9):
        train_step(*resumed, step)
    assert run[2].masks.checksum() == resumed[2].masks.checksum()
    for one, other in zip(run[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(one, other)
        states = (part[1].state[p] for part, p in ((run, one), (resumed, other)))
        assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


@pytest.mark.parametrize('structure', ['neuron', 'tap'])
def test_masks_recovered_from_weights_are_the_same(structure):
    model, optimizer, dynamics = start(structure)
    for step in range(1, 4):  # weights that have grown are trained for a step
        train_step(model, optimizer, dynamics, step)
    again = DynamicSparsity(
        select_targets(model), mode='fixed', init='from_weights', structure=structure, model=model
    )
    assert again.masks.checksum() == dynamics.masks.checksum()


def test_masks_of_another_structure_are_refused():
    model, _, dynamics = start('unstructured')
    masks = {name: dynamics.masks[name] for name in dynamics.masks.parameters}
    with pytest.raises(ValueError, match="structure='neuron' needs masks of whole neurons"):
        start('neuron', model, init=masks)
    dense = dict(linear='unstructured', others='dense')
    with pytest.raises(ValueError, match=r"needs all weights, but the mask of '0\.weight'"):
        start(dense, model, init=masks)
    with pytest.raises(ValueError, match="structure is 'unstructured' in the saved state"):
        start('neuron', model)[2].load_state_dict(dynamics.state_dict())
    state = dynamics.state_dict()
    state['settings']['structure'] = 'neuron'
    other = start('neuron', model)[2]
    before = other.masks.checksum()
    with pytest.raises(ValueError, match='needs masks of whole neurons'):
        other.load_state_dict(state)
    assert other.masks.checksum() == before


@pytest.mark.parametrize(
    ('structure', 'message'),
    [
        ('rows', "structure must be one of 'unstructured', 'neuron', 'tap', '2:4', got 'rows'"),
        (dict(linear='tap'), "structure['linear'] must be one of 'unstructured', 'neuron', '2:4'"),
        (dict(convs='tap'), "structure must have the keys 'linear', 'large_kernels', 'others'"),
        (dict(others='neuron'), "structure['others'] must be one of 'unstructured', 'dense'"),
    ],
)
def test_wrong_structures_are_named(structure, message):
    with pytest.raises(ValueError) as caught:
        start(structure)
    assert message in str(caught.value)


def test_structure_without_its_layers_or_network_is_an_error():
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    for structure, what in (('neuron', 'two linear layers'), ('tap', 'large kernels')):
        with pytest.raises(ValueError, match=f"structure '{structure}' needs .*{what}"):
            start(structure, model)
    with pytest.raises(ValueError, match="structure='tap' needs the network, model"):
        DynamicSparsity(select_targets(network()), 0.5, mode='fixed', structure='tap')


@pytest.mark.parametrize('structure', ['neuron', '2:4'])
def test_frozen_weights_stay_out(structure):
    model = network()
    for weight in (model[4].pwconv1.weight, model[4].pwconv2.weight)[structure == 'neuron' :]:
        weight.requires_grad_(False)
    _, _, dynamics = start(structure, model)
    assert {'4.pwconv1.weight', '4.pwconv2.weight'} <= set(dynamics.masks.dense)


# -- moments of grown weights --------------------------------------------------------------


TOOL = Path(__file__).parents[2] / 'tools/analysis/grown_weights.py'


@pytest.mark.parametrize('moments', ['zero', 'layer'])
def test_first_steps_of_a_grown_weight_are_those_worked_out_by_hand(moments):
    # After t steps with gradient 1 the first moment is 1 - 0.9 ** t. With 'zero' the second one is
    # 1 - 0.999 ** t, with 'layer' that of the kept weights, 1 - 0.999 ** (1000 + t), by which Adam
    # also divides it.
    expected = []
    for t in (1, 10, 100):
        first, correction = 1 - 0.9**t, 1 - 0.999 ** (1000 + t)
        second = 1 - 0.999**t if moments == 'zero' else correction
        expected.append(first / (second / correction) ** 0.5)
    lengths = runpy.run_path(str(TOOL))['step_lengths'](moments)
    assert lengths['kept'] == pytest.approx([1.0] * 100, rel=0.01)
    assert [lengths['grown'][t - 1] for t in (1, 10, 100)] == pytest.approx(expected, rel=0.01)
    rounded = [2.5, 5.2, 2.7] if moments == 'zero' else [0.1, 0.65, 1.0]
    assert expected == pytest.approx(rounded, rel=0.04)


@pytest.mark.parametrize(
    ('make', 'second'),
    [
        (lambda p: torch.optim.AdamW(p, 0.1, amsgrad=True), ['exp_avg_sq', 'max_exp_avg_sq']),
        (lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.9), ['square_avg']),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), []),
    ],
)
def test_second_moments_are_the_mean_of_the_active_weights(make, second):
    model, _, dynamics = start('unstructured', update=dict(moments='layer'))
    optimizer = make(model.parameters())
    before = {name: dynamics.masks[name] for name in dynamics.masks.masked}
    for step in (1, 2):
        train_step(model, optimizer, dynamics, step)
    for name, old in before.items():
        now, parameter = dynamics.masks[name], dynamics.masks.parameters[name]
        grown, kept = now & ~old, now & old
        assert grown.any()
        for key, value in optimizer.state[parameter].items():
            if not isinstance(value, torch.Tensor) or value.shape != old.shape:
                continue
            if key in second:
                mean = value[kept].mean().expand_as(value[grown])
                torch.testing.assert_close(value[grown], mean)
                assert (mean > 0).all()
            else:
                assert not value[grown].any()
            assert not value[~now].any()


@pytest.mark.parametrize('structure', ['unstructured', '2:4'])
def test_state_without_a_rule_for_moments_loads(structure):
    """Checkpoints of earlier versions have none."""
    first = start(structure)[2]
    state = first.state_dict()
    del state['update']['moments']
    model = network()
    other = DynamicSparsity(
        select_targets(model), 0.5, 'uniform', structure=structure, seed=1, total_steps=21
    )
    other.load_state_dict(state)
    assert other.masks.checksum() == first.masks.checksum()
