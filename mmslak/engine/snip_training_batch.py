"""SNIP scores of a model of MMEngine on one batch of its training data."""

import random
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..sparsity import snip_scores


def score_training_batch(
    model: nn.Module,
    loader: DataLoader,
    parameters: dict[str, nn.Parameter],
    seed: int = 0,
    rank: int = 0,
) -> dict[str, Tensor]:
    """Compute SNIP scores |g * w| with the loss of the model on one batch of training data.

    The states of the random generators do not change.

    Args:
        model (nn.Module): A model of MMEngine with ``data_preprocessor``. Its state does not
            change.
        loader (DataLoader): Loader of the training data. It determines the batch size.
        parameters (dict[str, nn.Parameter]): The weights to score, by name.
        seed (int): Seed of the choice of samples.
        rank (int): Rank of this process. Each rank uses its own batch, and the gradients are
            averaged.

    Returns:
        dict[str, Tensor]: Scores in the shapes of the parameters, by name.
    """
    size = batch_size(loader)
    order = torch.randperm(
        len(loader.dataset), generator=torch.Generator().manual_seed(seed)
    ).tolist()
    first = rank * size
    with _random_state_kept():
        chosen = [order[(first + i) % len(order)] for i in range(size)]
        batch = loader.collate_fn([loader.dataset[i] for i in chosen])

        def loss() -> Tensor:
            model.train()
            data = model.data_preprocessor(batch, True)
            return model.parse_losses(model._run_forward(data, mode='loss'))[0]

        return snip_scores(model, parameters, loss)


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
