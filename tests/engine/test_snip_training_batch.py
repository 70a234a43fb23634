"""SNIP scores on one batch of training data."""

import random

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import DataLoader, Dataset

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
