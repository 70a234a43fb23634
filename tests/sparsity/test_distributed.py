"""Two processes have the same masks, and an error is raised if they differ."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mmslak.sparsity import DynamicSparsity, select_targets, snip_scores


def network():
    return nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 4))


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

    sparsity.masks.verify_across_ranks()
    if rank == 1:
        mask = sparsity.masks['2.weight']
        mask.view(-1)[[0, 1]] = mask.view(-1)[[1, 0]]
        mask[0, 0] = ~mask[0, 0]
        sparsity.masks['2.weight'] = mask
    try:
        sparsity.masks.verify_across_ranks()
    except RuntimeError as error:
        result['error'] = str(error)
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
        assert "the mask of '2.weight' differs between rank 0" in result['error']
