"""Recomputing batch norm statistics over the training data ("precise BN")."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recompute_statistics(model: nn.Module, loader: Iterable, batches: int | None = None) -> int:
    """Recompute the running statistics of all batch norms with fixed weights.

    The running mean and variance become the averages of the means and variances of all batches of
    all processes. All other modules are in evaluation mode: no drop path, no Mixup.

    Args:
        model (nn.Module): A model of MMEngine with ``data_preprocessor``.
        loader (Iterable): Training data.
        batches (int, optional): Stop after this number of batches. Default: one pass.

    Returns:
        int: Number of batches that this process used; 0 if there is no batch norm.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        # With None the running statistics are cumulative averages instead of exponential ones.
        norm.momentum = None
        norm.train()
    used = 0
    try:
        for data in loader:
            model(**model.data_preprocessor(data, False), mode='tensor')
            used += 1
            if used == batches:
                break
    finally:
        model.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for norm in norms:
        all_reduce(norm.running_mean, 'mean')
        all_reduce(norm.running_var, 'mean')
    return used
