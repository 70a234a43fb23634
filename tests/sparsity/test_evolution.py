"""Sparse training: masks are kept, updates are exact, and resuming is exact."""

import copy
import math

import pytest
import torch
from networks import OPTIMIZERS, batch, network, train_step
from torch import nn

from mmslak.sparsity import DynamicSparsity, select_targets


def assert_masked(model, optimizer, sparsity):
    """Check that masked weights and their moments are +0.0."""
    for name in sparsity.masks.masked:
        parameter, masked = sparsity.masks.parameters[name], ~sparsity.masks[name]
        assert masked.any()
        values = [parameter.detach()]
        values += [
            v
            for v in optimizer.state.get(parameter, {}).values()
            if isinstance(v, torch.Tensor) and v.shape == parameter.shape
        ]
        for value in values:
            assert not value[masked].any() and not torch.signbit(value[masked]).any()


def everything(model, optimizer, sparsity):
    """Return everything that training changes, as a list of tensors."""
    state = list(model.state_dict().values())
    for entry in optimizer.state_dict()['state'].values():
        state += [torch.as_tensor(v) for v in entry.values() if v is not None]
    saved = sparsity.state_dict()
    for key in ('packed', 'explored', 'averages'):
        state += list(saved[key].values())
    return [*state, torch.tensor(saved['steps'])]


@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
@pytest.mark.parametrize('optimizer', list(OPTIMIZERS))
def test_fifty_updates_keep_the_number_of_active_weights(optimizer, grow):
    model = network()
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    sparsity = DynamicSparsity(
        select_targets(model),
        0.6,
        'uniform',
        dict(every=2, rate=0.3, rate_min=0.1, grow=grow),
        total_steps=101,
    )
    kept = {name: sparsity.masks.kept(name) for name in sparsity.masks.masked}
    total = sum(p.numel() for p in sparsity.masks.parameters.values())
    assert sparsity.masks.active == round(0.4 * total)
    updates, explored = 0, sparsity.explored
    for step in range(1, 101):
        before = {name: sparsity.masks[name] for name in kept}
        update = train_step(model, optimizer, sparsity, step, clip=0.5)
        assert_masked(model, optimizer, sparsity)
        assert (update is not None) == (step % 2 == 0)
        if update is None:
            continue
        updates += 1
        rate = 0.1 + 0.1 * (1 + math.cos(math.pi * step / 101))
        assert update.step == step and update.rate == pytest.approx(rate)
        for name in kept:
            after = sparsity.masks[name]
            moved = round(rate * kept[name])
            assert int(after.sum()) == kept[name] == sparsity.masks.kept(name)
            assert int((before[name] & ~after).sum()) == moved == update.moves[name]
            assert int((after & ~before[name]).sum()) == moved
            parameter = sparsity.masks.parameters[name]
            grown = after & ~before[name]
            assert not parameter[grown].any()
            for value in optimizer.state[parameter].values():
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    assert not value[grown].any()
        assert update.explored >= explored and update.explored == sparsity.explored
        explored = update.explored
    assert updates == 50
    assert explored > 0.4


def test_explored_weights_have_been_active():
    model = network()
    optimizer = OPTIMIZERS['sgd'](model.parameters())
    sparsity = DynamicSparsity(
        select_targets(model), 0.8, update=dict(every=1, rate=0.2), total_steps=20
    )
    ever = {name: sparsity.masks[name] for name in sparsity.masks.parameters}
    for step in range(8):
        train_step(model, optimizer, sparsity, step)
        for name in ever:
            ever[name] |= sparsity.masks[name]
    count = sum(int(mask.sum()) for mask in ever.values())
    assert sparsity.explored == pytest.approx(count / sparsity.masks.numel)
    for row in sparsity.summary():
        assert row['explored'] == pytest.approx(float(ever[row['name']].float().mean()))
        assert row['density'] == row['kept'] / row['weights']
        assert row['weights'] == math.prod(row['shape'])
        assert row['kept'] == int(sparsity.masks[row['name']].sum())


def test_fixed_masks_do_not_change():
    model = network()
    optimizer = OPTIMIZERS['adamw'](model.parameters())
    sparsity = DynamicSparsity(select_targets(model), 0.5, mode='fixed')
    checksum = sparsity.masks.checksum()
    for step in range(5):
        assert train_step(model, optimizer, sparsity, step) is None
        assert_masked(model, optimizer, sparsity)
    assert sparsity.masks.checksum() == checksum and sparsity.rate == 0


def test_masked_gradients_do_not_contribute_to_the_norm():
    model = network()
    sparsity = DynamicSparsity(select_targets(model), 0.5, mode='fixed')
    images, labels = batch(0)
    nn.functional.cross_entropy(model(images), labels).backward()
    squares = 0.0
    for name, parameter in model.named_parameters():
        mask = sparsity.masks[name] if name in sparsity.masks.parameters else 1
        squares += float((parameter.grad * mask).double().square().sum())
    sparsity.before_step()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    assert float(norm) == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_bfloat16_autocast():
    model = network()
    optimizer = OPTIMIZERS['adamw'](model.parameters())
    sparsity = DynamicSparsity(
        select_targets(model), 0.5, update=dict(every=2, rate=0.3), total_steps=9
    )
    for step in range(8):
        images, labels = batch(step)
        optimizer.zero_grad()
        with torch.autocast('cpu', torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        sparsity.before_step()
        optimizer.step()
        sparsity.step(optimizer)
        assert_masked(model, optimizer, sparsity)


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
def test_step_skipped_by_the_loss_scaler_does_not_count(grow, fused):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 0.02, weight_decay=0.3, fused=fused)
    sparsity = DynamicSparsity(
        select_targets(model), 0.5, update=dict(every=3, rate=0.3, grow=grow), total_steps=20
    )
    updates = []
    sparsity.attach(optimizer, updates.append)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    for step in range(9):
        images, labels = batch(step)
        optimizer.zero_grad()
        scaler.scale(nn.functional.cross_entropy(model(images), labels)).backward()
        if step % 3 == 1:
            model[0].weight.grad[:, 0] = torch.inf
        scaler.unscale_(optimizer)
        sparsity.before_step()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        assert_masked(model, optimizer, sparsity)
        assert all(p.isfinite().all() for p in model.parameters())
    assert sparsity.steps == 6
    assert [update.step for update in updates] == [3, 6]
    assert all(average.isfinite().all() for average in sparsity.state_dict()['averages'].values())


def test_attach_equals_explicit_calls_with_gradient_accumulation():
    results = []
    for attached in (False, True):
        model = network()
        optimizer = OPTIMIZERS['sgd'](model.parameters())
        sparsity = DynamicSparsity(
            select_targets(model), 0.5, update=dict(every=2, grow='gradient'), total_steps=9
        )
        handles = sparsity.attach(optimizer) if attached else []
        for iteration in range(12):
            images, labels = batch(iteration)
            nn.functional.cross_entropy(model(images), labels).backward()
            if iteration % 3 == 2:
                if not attached:
                    sparsity.before_step()
                optimizer.step()
                if not attached:
                    sparsity.step(optimizer)
                optimizer.zero_grad()
        assert sparsity.steps == 4
        results.append(everything(model, optimizer, sparsity))
        for handle in handles:
            handle.remove()
        optimizer.step()
        assert sparsity.steps == 4
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_step_without_before_step_is_an_error():
    sparsity = DynamicSparsity(select_targets(network()), 0.5, mode='fixed')
    with pytest.raises(RuntimeError, match=r'before_step\(\) must be called'):
        sparsity.step()


def test_average_is_exactly_as_sparse():
    model = network()
    average = copy.deepcopy(model)
    optimizer = OPTIMIZERS['adamw'](model.parameters())
    sparsity = DynamicSparsity(
        select_targets(model), 0.5, update=dict(every=3, rate=0.4), total_steps=20
    )
    sparsity.apply_to(average)
    copies = dict(average.named_parameters())
    for step in range(1, 14):
        update = train_step(model, optimizer, sparsity, step)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                copies[name].lerp_(parameter, 0.1)
        if update is not None:
            sparsity.apply_to(average)
        for name in sparsity.masks.masked:
            assert not copies[name][~sparsity.masks[name]].any()


def test_frozen_weights_keep_their_masks():
    model = network()
    sparsity = DynamicSparsity(
        select_targets(model), 0.5, 'uniform', dict(every=1, rate=0.5), total_steps=9
    )
    model[0].requires_grad_(False)
    optimizer = OPTIMIZERS['sgd'](p for p in model.parameters() if p.requires_grad)
    before = {name: sparsity.masks[name] for name in sparsity.masks.masked}
    update = train_step(model, optimizer, sparsity, 0)
    assert list(update.moves) == ['2.weight', '6.weight']
    assert torch.equal(sparsity.masks['0.weight'], before['0.weight'])
    assert not torch.equal(sparsity.masks['2.weight'], before['2.weight'])


def test_random_masks_and_growth_depend_only_on_the_seed():
    sums = []
    for seed, torch_seed in ((0, 1), (0, 2), (1, 1)):
        model = network()
        optimizer = OPTIMIZERS['sgd'](model.parameters())
        torch.manual_seed(torch_seed)
        sparsity = DynamicSparsity(
            select_targets(model), 0.5, update=dict(every=1), seed=seed, total_steps=9
        )
        sums.append([sparsity.masks.checksum()])
        torch.rand(torch_seed)
        for step in range(3):
            sums[-1].append(train_step(model, optimizer, sparsity, step).checksum)
    assert sums[0] == sums[1]
    assert all(one != other for one, other in zip(sums[0], sums[2], strict=True))


def test_dense_layers_are_listed():
    model = network()
    sparsity = DynamicSparsity(
        select_targets(model), 0.3, dict(sparsities={'0.*': 0}), mode='fixed'
    )
    assert sparsity.masks.dense == ['0.weight']
    assert sparsity.summary()[0]['density'] == 1


@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
@pytest.mark.parametrize('interrupted_after', [4, 6])  # between two updates, and at an update
def test_resumed_training_is_bitwise_equal(tmp_path, grow, interrupted_after):
    def start(seed):
        model = network(seed)
        optimizer = OPTIMIZERS['adamw'](model.parameters())
        sparsity = DynamicSparsity(
            select_targets(model),
            0.5,
            update=dict(every=3, rate=0.4, grow=grow),
            seed=seed,
            total_steps=13,
        )
        return model, optimizer, sparsity

    run = start(0)
    for step in range(1, 13):
        train_step(*run, step)
        if step == interrupted_after:
            torch.save([part.state_dict() for part in run], tmp_path / 'checkpoint.pth')
    resumed = start(1)
    for part, state in zip(
        resumed, torch.load(tmp_path / 'checkpoint.pth', weights_only=True), strict=True
    ):
        part.load_state_dict(state)
    for step in range(interrupted_after + 1, 13):
        train_step(*resumed, step)
    for one, other in zip(everything(*run), everything(*resumed), strict=True):
        assert torch.equal(one, other)


def test_state_has_one_bit_per_weight_for_masks_and_explored_weights():
    sparsity = DynamicSparsity(select_targets(network()), 0.5, mode='fixed')
    state = sparsity.state_dict()
    for key in ('packed', 'explored'):
        sizes = {name: len(packed) for name, packed in state[key].items()}
        masked = sparsity.masks.masked
        assert sizes == {n: -(-sparsity.masks.parameters[n].numel() // 8) for n in masked}
    assert state['averages'] == {}


def test_state_of_another_sparsity_network_or_targets_is_refused():
    model = network()
    state = DynamicSparsity(select_targets(model), 0.5, mode='fixed').state_dict()
    others = {
        'sparsity is 0.5 in the saved state and 0.4 here': (select_targets(model), 0.4),
        "allocation is 'erk' in the saved state and 'uniform' here": (
            select_targets(model),
            0.5,
            'uniform',
        ),
        'selected only in the saved state: 0.weight, 6.weight': (
            select_targets(model, 'large_kernels'),
            0.5,
        ),
        '0.weight ((8, 3, 3, 3) in the saved state, (4, 3, 3, 3) here)': (
            select_targets(nn.Sequential(nn.Conv2d(3, 4, 3))),
            0.5,
        ),
    }
    for message, arguments in others.items():
        other = DynamicSparsity(*arguments, mode='fixed')
        before = other.masks.checksum()
        with pytest.raises(ValueError) as caught:
            other.load_state_dict(state)
        assert message in str(caught.value)
        assert other.masks.checksum() == before
    empty = DynamicSparsity(select_targets(model), 0.5, mode='fixed', init=None)
    assert empty.masks.sparsity == 0
    empty.load_state_dict(state)
    assert empty.masks.sparsity == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize('set_to_none', [True, False])
def test_gradients_are_masked_after_a_step_that_was_skipped(set_to_none):
    """The loss scaler skips a step after before_step(), which clipping needs in some steps only."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsity = DynamicSparsity(select_targets(model), 0.5, mode='fixed')
    sparsity.attach(optimizer)
    masked = []

    def look(*_):
        for name, parameter in sparsity.masks.parameters.items():
            masked.append(not parameter.grad[~sparsity.masks[name]].any())

    optimizer.register_step_pre_hook(look)
    for skipped in (True, False, True, False):
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        if skipped:
            sparsity.before_step()
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none)
    assert masked and all(masked)


def test_averages_are_those_of_unscaled_gradients():
    """A fused optimiser gets the gradients multiplied by the loss scale, and unscales them."""
    averages = []
    for scaled in (False, True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=True)
        sparsity = DynamicSparsity(
            select_targets(model), 0.5, update=dict(every=9, grow='momentum'), total_steps=20
        )
        sparsity.attach(optimizer)
        scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10, enabled=scaled)
        for step in range(3):
            images, labels = batch(step)
            optimizer.zero_grad()
            scaler.scale(nn.functional.cross_entropy(model(images), labels)).backward()
            scaler.step(optimizer)
            scaler.update()
        averages.append(sparsity.state_dict()['averages'])
    assert averages[0]
    for name, average in averages[0].items():
        torch.testing.assert_close(averages[1][name], average)


def damaged(state, **changes):
    return {**state, **changes}


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda s: {}, 'incomplete: it has no settings, steps, seed, explored'),
        (lambda s: {k: v for k, v in s.items() if k != 'explored'}, 'it has no explored'),
        (lambda s: damaged(s, packed={}), 'the saved state has no masks'),
        (lambda s: damaged(s, packed={n: p[1:] for n, p in s['packed'].items()}), 'bytes, got'),
        (lambda s: damaged(s, explored={n: p[1:] for n, p in s['explored'].items()}), 'bytes, got'),
    ],
)
def test_a_damaged_state_changes_nothing(damage, message):
    model = network()
    state = DynamicSparsity(select_targets(model), 0.5, mode='fixed', seed=1).state_dict()
    other = DynamicSparsity(select_targets(model), 0.5, mode='fixed', seed=2)
    before = other.state_dict(), [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(damage(state))
    assert repr(other.state_dict()) == repr(before[0])
    assert all(map(torch.equal, model.parameters(), before[1]))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(mode='off'), "mode must be one of 'dynamic', 'fixed', got 'off'"),
        (
            dict(structure='1:4'),
            "structure must be one of 'unstructured', 'neuron', 'tap', '2:4', got '1:4'",
        ),
        (dict(init='zeros'), "init must be one of 'random', 'scores', 'from_weights', got 'zeros'"),
        (dict(init='scores'), "init='scores' needs the scores of '0.weight'"),
        (dict(total_steps=0), 'total_steps must be a positive integer, got 0'),
        (dict(total_steps=None), 'total_steps must be given'),
        (dict(sparsity=None), 'sparsity must be a number in [0, 1), got None'),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError) as caught:
        DynamicSparsity(
            select_targets(network()), **{'sparsity': 0.5, 'total_steps': 10, **arguments}
        )
    assert message in str(caught.value)
