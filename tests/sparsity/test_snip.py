"""SNIP scores."""

import pytest
import torch
from torch import nn

from mmslak.sparsity import allocate, select_targets, snip_scores


def test_scores_and_allocation_worked_out_by_hand():
    # y = B A x, loss = sum(y). With x = (1, 2), A = [[1, -1], [2, 0.5]], B = [[3, -0.1]]:
    # dL/dA = B^T x^T = [[3, 6], [-0.1, -0.2]], so |g * A| = [[3, 6], [0.2, 0.1]];
    # dL/dB = (A x)^T = [[-1, 3]], so |g * B| = [[3, 0.3]].
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, -1.0], [2.0, 0.5]])
    model[1].weight.data = torch.tensor([[3.0, -0.1]])
    parameters = select_targets(model)
    scores = snip_scores(model, parameters, lambda: model(torch.tensor([[1.0, 2.0]])).sum())
    torch.testing.assert_close(scores['0.weight'], torch.tensor([[3.0, 6.0], [0.2, 0.1]]))
    torch.testing.assert_close(scores['1.weight'], torch.tensor([[3.0, 0.3]]))
    # Scores in descending order, with the layer: 6 (0), 3 (0), 3 (1), 0.3 (1), 0.2 (0), 0.1 (0).
    assert allocate(parameters, 0.5, 'snip', scores) == {'0.weight': 2, '1.weight': 1}
    # With four weights the second layer is dense.
    assert allocate(parameters, 1 / 3, 'snip', scores) == {'0.weight': 2, '1.weight': 2}


@pytest.mark.parametrize('training', [True, False])
def test_scoring_does_not_change_the_model(training):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 3)
    )
    model.train(training)
    model[1].eval()
    model[3].weight.requires_grad_(False)
    parameters = select_targets(model)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    images = torch.ones(2, 3, 8, 8)

    def closure():
        model.train()
        return model(images).square().sum()

    scores = snip_scores(model, parameters, closure)
    assert (scores['0.weight'] > 0).any() and not scores['3.weight'].any()
    assert all(p.grad is None for p in model.parameters())
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random_state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
