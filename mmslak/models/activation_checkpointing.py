"""Activation checkpointing that counts each batch once in the statistics of batch norms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(function: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> Tensor:
    """Compute ``function(x)``, and recompute its activations in the backward pass.

    Args:
        function (Callable): A function of one tensor that uses the layers of ``module``.
        x (Tensor): Its input.
        module (nn.Module): Its batch norms are not updated by the recomputation.

    Returns:
        Tensor: ``function(x)``.
    """

    def contexts() -> tuple:
        return nullcontext(), _statistics_kept(module)

    # A compiled graph does not repeat its side effects in the recomputation.
    keep = {} if torch.compiler.is_compiling() else dict(context_fn=contexts)
    return checkpoint(function, x, use_reentrant=False, **keep)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of all batch norms in ``module`` unchanged inside the context."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        # track_running_stats=False would change which tensors the recomputation saves.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, batches in kept:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
