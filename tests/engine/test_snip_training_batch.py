"""SNIP scores on one batch of training data."""

import random

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmslak.engine.optim.amp import AmpOptimWrapper
from mmslak.engine.snip_training_batch import batch_size, score_training_batch


class Regression(BaseModel):
    """A linear layer with the squared error as its loss."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 1, bias=False), nn.BatchNorm1d(1)

    def forward(self, inputs, targets, mode='tensor'):
        self.norm(self.layer(inputs))  # updates the running statistics
        error = self.layer(inputs).squeeze(1) - targets
        return dict(loss=error.square().mean()) if mode == 'loss' else error


class Samples(Dataset):
    """Samples that draw from all random generators when they are read."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        random.random(), np.random.rand(), torch.rand(1)
        inputs = torch.arange(3.0) + index
        return dict(inputs=inputs, targets=torch.tensor(0.5 * index))


@pytest.mark.parametrize('rank', [0, 1, 2])
def test_scores_of_the_batch_of_a_rank(rank):
    torch.manual_seed(0)
    model, loader = Regression().eval(), DataLoader(Samples(), batch_size=4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    scores = score_training_batch(model, loader, {'w': model.layer.weight}, seed=5, rank=rank)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # Ten samples and batches of four: the third rank starts again with the first samples.
    order = torch.randperm(10, generator=torch.Generator().manual_seed(5)).tolist() * 2
    samples = [Samples()[i] for i in order[4 * rank : 4 * rank + 4]]
    inputs = torch.stack([sample['inputs'] for sample in samples])
    targets = torch.stack([sample['targets'] for sample in samples])
    weight = model.layer.weight.detach()
    gradient = 2 * ((inputs @ weight.T).squeeze(1) - targets) @ inputs / 4
    torch.testing.assert_close(scores['w'], (gradient * weight).abs())


def test_batch_size():
    assert batch_size(DataLoader(Samples(), batch_size=4)) == 4


def test_scores_use_the_precision_and_the_batches_of_the_training():
    """Two accumulated batches of two samples are scored as one batch of four."""
    torch.manual_seed(0)
    model = Regression().eval()
    seen = []
    forward = model.forward

    def watched(inputs, *args, **kwargs):
        seen.append((len(inputs), torch.is_autocast_enabled('cpu')))
        return forward(inputs, *args, **kwargs)

    model.forward = watched
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    weights = {'w': model.layer.weight}

    def score(size, wrapper):
        loader = DataLoader(Samples(), batch_size=size)
        return score_training_batch(model, loader, weights, 5, 1, wrapper)['w']

    whole = score(4, OptimWrapper(optimizer))
    assert seen == [(4, False)]
    accumulated = score(2, OptimWrapper(optimizer, accumulative_counts=2))
    assert seen[1:] == [(2, False)] * 2
    torch.testing.assert_close(accumulated, whole)
    wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='bfloat16', accumulative_counts=2)
    mixed = score(2, wrapper)
    assert seen[3:] == [(2, True)] * 2
    # bfloat16 has 8 significant bits.
    torch.testing.assert_close(mixed, whole, rtol=0.05, atol=0)
    assert not torch.equal(mixed, whole)


class Scaler:
    """A loss scaler with a fixed scale."""

    def get_scale(self):
        return 2.0**126


class Scaled(OptimWrapper):
    """A wrapper whose scale is so large that the gradients of the loss are infinite."""

    loss_scaler = Scaler()


def test_scale_of_the_loss_is_lowered_until_scores_are_finite():
    torch.manual_seed(0)
    model, loader = Regression(), DataLoader(Samples(), batch_size=4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    weights = {'w': model.layer.weight}
    plain = score_training_batch(model, loader, weights)['w']
    scaled = score_training_batch(model, loader, weights, optim_wrapper=Scaled(optimizer))['w']
    assert torch.isfinite(scaled).all()
    torch.testing.assert_close(scaled / scaled.sum(), plain / plain.sum())
