"""SNIP scores of a model of MMEngine on the training data of one step."""

import random
from contextlib import contextmanager, nullcontext
from itertools import count

import numpy as np
import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..sparsity import snip_scores


def score_training_batch(
    model: nn.Module,
    loader: DataLoader,
    parameters: dict[str, nn.Parameter],
    seed: int = 0,
    rank: int = 0,
    optim_wrapper: OptimWrapper | None = None,
) -> dict[str, Tensor]:
    """Compute SNIP scores |g * w| with the loss of the model on the training data of one step.

    A step takes as much memory in training: batches that are accumulated are scored one after the
    other, in mixed precision if the training is. The states of the random generators do not change.

    Args:
        model (nn.Module): A model of MMEngine with ``data_preprocessor``. Its state does not
            change.
        loader (DataLoader): Loader of the training data. It determines the batch size.
        parameters (dict[str, nn.Parameter]): The weights to score, by name.
        seed (int): Seed of the choice of samples.
        rank (int): Rank of this process. Each rank uses its own batches, and the gradients are
            averaged.
        optim_wrapper (OptimWrapper, optional): The optimiser wrapper of the training. Default: one
            batch in the precision of the model.

    Returns:
        dict[str, Tensor]: Scores in the shapes of the parameters, by name.
    """
    size = batch_size(loader)
    batches = 1 if optim_wrapper is None else optim_wrapper._accumulative_counts
    order = torch.randperm(
        len(loader.dataset), generator=torch.Generator().manual_seed(seed)
    ).tolist()

    def score(scale: float) -> dict[str, Tensor]:
        samples = count(rank * batches * size)

        def loss() -> Tensor:
            chosen = [order[next(samples) % len(order)] for _ in range(size)]
            batch = loader.collate_fn([loader.dataset[i] for i in chosen])
            model.train()
            context = nullcontext() if optim_wrapper is None else optim_wrapper.optim_context(model)
            with context:
                data = model.data_preprocessor(batch, True)
                losses = model._run_forward(data, mode='loss')
            return scale * model.parse_losses(losses)[0]

        with _random_state_kept():
            return snip_scores(model, parameters, loss, batches)

    # In float16 small gradients would be zero, and large ones infinite. A scale of the loss does
    # not change the order of the scores.
    scaler = getattr(optim_wrapper, 'loss_scaler', None)
    scale = 1.0 if scaler is None else scaler.get_scale()
    scores = score(scale)
    while scale > 1 and not all(torch.isfinite(values).all() for values in scores.values()):
        scale = max(1.0, scale / 16)
        scores = score(scale)
    return scores


def batch_size(loader: DataLoader) -> int:
    """Return the number of samples in a batch of one process."""
    return loader.batch_size or loader.batch_sampler.batch_size


@contextmanager
def _random_state_kept():
    """Restore the random states of Python, NumPy and PyTorch after the context."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
