"""Recomputing batch norm statistics over the training data ("precise BN")."""

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def recompute_statistics(model: nn.Module, loader: Iterable, batches: int | None = None) -> int:
    """Compute the running statistics of all batch norms anew, weights held fixed.

    Each becomes the plain average over batches of the batch's mean and variance, over all
    processes. Everything but the batch norms is in evaluation mode: no drop path, no Mixup.

    Args:
        model (nn.Module): With a ``data_preprocessor``, as MMEngine's models have.
        loader (Iterable): Training data.
        batches (int, optional): Stop after as many. Default: one pass.

    Returns:
        int: Batches used by this process; 0 where there is no batch norm.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        # A cumulative average instead of an exponential one.
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
