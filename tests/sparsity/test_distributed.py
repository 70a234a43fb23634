"""Two processes have the same masks, and an error is raised if they differ."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mmslak.sparsity import DynamicSparsity, RankDifferenceError, select_targets, snip_scores


def network():
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 4))


class Block(nn.Module):
    """Two linear layers with the names of SLaK's."""

    def __init__(self):
        super().__init__()
        self.pwconv1, self.pwconv2 = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.pwconv2(nn.functional.gelu(self.pwconv1(x)))


def train_neurons(rank):
    """Train with neurons on batches of this rank; return all weights and the masks."""
    torch.manual_seed(0)
    model = Block()
    sparsity = DynamicSparsity(
        select_targets(model), 0.5, 'uniform', dict(every=2, moments='layer'),
        structure='neuron', model=model, total_steps=20,
    )  # fmt: skip
    wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), 0.01)
    updates = []
    sparsity.attach(optimizer, updates.append)
    torch.manual_seed(rank)
    for _ in range(8):
        optimizer.zero_grad()
        wrapped(torch.randn(3, 12)).square().mean().backward()
        optimizer.step()
    return dict(
        moves=[sum(update.moves.values()) for update in updates],
        weights=model.state_dict(),
        masks=sparsity.masks.state_dict()['packed'],
    )


def differing_rates(start, rank):
    """Update masks every second step, compare every second update, and return the error.

    The learning rate of one rank differs before the first update.
    """
    model = copy.deepcopy(start)
    sparsity = DynamicSparsity(
        select_targets(model), 0.5, 'erk', dict(every=2), total_steps=13, verify_every=2
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.1 * (1 + rank))
    sparsity.attach(optimizer)
    for step in range(1, 13):
        optimizer.zero_grad()
        model(torch.ones(1, 12)).sum().backward()
        try:
            optimizer.step()
        except RankDifferenceError as error:
            return step, str(error)
    return None


def work(rank, folder):
    """Train on one of two ranks, and save what the tests compare in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    torch.manual_seed(0)
    start = network()
    result = {}

    torch.manual_seed(100 + rank)
    images = torch.randn(3, 12)
    scores = snip_scores(start, select_targets(start), lambda: start(images).square().mean())
    result['images'], result['scores'], result['start'] = images, scores, start.state_dict()

    for grow in ('random', 'gradient', 'momentum'):
        model = copy.deepcopy(start)
        sparsity = DynamicSparsity(
            select_targets(model),
            0.5,
            'snip',
            dict(every=2, grow=grow),
            scores=scores,
            total_steps=13,
        )
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.AdamW(wrapped.parameters(), 0.01)
        updates = []
        sparsity.attach(optimizer, updates.append)
        for _ in range(12):
            optimizer.zero_grad()
            wrapped(torch.randn(3, 12)).square().mean().backward()
            optimizer.step()
        result[grow] = [update.checksum for update in updates]
        result[f'{grow}.masks'] = sparsity.masks.state_dict()['packed']

    result['neurons'] = train_neurons(rank)
    sparsity.masks.verify_across_ranks()
    if rank == 1:
        mask = sparsity.masks['2.weight']
        mask.view(-1)[[0, 1]] = mask.view(-1)[[1, 0]]
        mask[0, 0] = ~mask[0, 0]
        sparsity.masks['2.weight'] = mask
    try:
        sparsity.masks.verify_across_ranks()
    except RankDifferenceError as error:
        result['error'] = str(error)
    result['rates'] = differing_rates(start, rank)
    torch.save(result, f'{folder}/rank{rank}.pth')
    dist.barrier()
    # gloo's threads and the reducer of DDP can wait for each other at the end of the process.
    os._exit(0)


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    mp.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize('grow', ['random', 'gradient', 'momentum'])
def test_masks_are_identical_on_both_ranks(results, grow):
    zero, one = results
    assert len(zero[grow]) == 6 and zero[grow] == one[grow]
    assert len(set(zero[grow])) == 6
    for name, packed in zero[f'{grow}.masks'].items():
        assert torch.equal(packed, one[f'{grow}.masks'][name])


def test_grown_neurons_are_identical_on_both_ranks(results):
    zero, one = (result['neurons'] for result in results)
    assert zero['moves'] == one['moves'] and all(zero['moves'])
    for part in ('weights', 'masks'):
        assert zero[part].keys() == one[part].keys()
        assert all(torch.equal(value, one[part][name]) for name, value in zero[part].items())


def test_scores_use_gradients_averaged_over_ranks(results):
    model = network()
    model.load_state_dict(results[0]['start'])
    images = torch.cat([result['images'] for result in results])
    model(images).square().mean().backward()
    for name, parameter in select_targets(model).items():
        expected = (parameter.grad * parameter.detach()).abs()
        for result in results:
            torch.testing.assert_close(result['scores'][name], expected)


def test_different_mask_is_named_on_both_ranks(results):
    for result in results:
        assert "the mask of '2.weight' differs between ranks: " in result['error']
        assert ' on rank 0, ' in result['error'] and ' on rank 1; ' in result['error']


def test_different_learning_rate_is_named_after_the_second_update(results):
    for result in results:
        assert result['rates'] == (
            4,
            'the learning rate of parameter group 0 differs between ranks: 0.1 on rank 0, 0.2 on '
            'rank 1; all ranks must train with the same seed and settings',
        )


def test_verify_every_must_be_positive():
    with pytest.raises(ValueError, match='verify_every must be a positive integer, got 0'):
        DynamicSparsity(
            select_targets(network()), 0.5, 'erk', dict(every=2), total_steps=9, verify_every=0
        )
