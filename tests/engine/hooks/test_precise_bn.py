"""Recomputed batch norm statistics."""

import pytest
import torch
from torch import nn

from mmslak.engine import recompute_statistics


class Preprocessor(nn.Module):
    def forward(self, data, training):
        assert not training
        return dict(x=data)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.data_preprocessor = Preprocessor()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x, mode):
        assert mode == 'tensor' and not self.drop.training
        return self.drop(self.bn(self.conv(x)))


@pytest.mark.parametrize('batches', [None, 2])
def test_statistics_are_averages_over_batches(batches):
    """The average of the means and of the variances of the batches, computed directly."""
    model = Small()
    model.bn.running_mean.fill_(7)
    data = [torch.randn(4, 3, 8, 8) + i for i in range(3)]
    before = {name: value.clone() for name, value in model.named_parameters()}
    assert recompute_statistics(model, data, batches) == len(data[:batches])
    outs = [model.conv(x).transpose(0, 1).flatten(1) for x in data[:batches]]
    torch.testing.assert_close(model.bn.running_mean, sum(x.mean(1) for x in outs) / len(outs))
    torch.testing.assert_close(model.bn.running_var, sum(x.var(1) for x in outs) / len(outs))
    assert model.bn.momentum == 0.1 and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert recompute_statistics(nn.Sequential(nn.Conv2d(3, 4, 3)), data) == 0
