"""Random numbers that depend only on the seed, the process and the iteration."""

import random
from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

#: Last number of a key, so that a batch and the network draw different random numbers.
DATA, NETWORK = 0, 1


def seed_generators(*key: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch.

    Args:
        *key (int): Non-negative integers. All of them together determine the states.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


class SeededBatch:
    """Indices of a batch. The process that loads the batch seeds its generators first.

    Args:
        indices (list[int]): Indices of samples.
        key (tuple[int, ...]): Arguments of :func:`seed_generators`.
    """

    def __init__(self, indices: list[int], key: tuple[int, ...]):
        self.indices, self.key = indices, key

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        seed_generators(*self.key)
        return iter(self.indices)


class SeededBatches:
    """Batch sampler whose augmentation does not depend on earlier batches or on the workers.

    A resumed training therefore only skips the indices of the batches that were used, without
    loading an image.

    Args:
        batch_sampler (Sampler): Returns the indices of the batches.
        sampler (Sampler): Returns the indices of the samples.
        key (tuple[int, ...]): Seed and rank. The number of the iteration is added.
        iteration (Callable): Returns the number of iterations so far.
    """

    def __init__(
        self,
        batch_sampler: Sampler,
        sampler: Sampler,
        key: tuple[int, ...],
        iteration: Callable[[], int],
    ):
        self.batch_sampler, self._key, self._iteration = batch_sampler, key, iteration
        self._samplers = (sampler, getattr(batch_sampler, 'sampler', None))
        self._start = self._skip = 0

    def __getattr__(self, name: str):
        return getattr(self.batch_sampler, name)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[SeededBatch]:
        # A loader with workers calls this twice, and uses the second iterator.
        skip, self._skip = self._skip, 0
        start = max(self._iteration(), self._start)
        for iteration, indices in zip(count(start), self._after(skip), strict=False):
            yield SeededBatch(indices, (*self._key, iteration, DATA))

    def resume(self, iteration: int, skip: int) -> None:
        """Continue a training.

        Args:
            iteration (int): Number of iterations so far.
            skip (int): Number of batches that the next pass skips.
        """
        self._start, self._skip = iteration, skip

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next passes."""
        for sampler in self._samplers:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)

    def _after(self, skip: int) -> Iterator[list[int]]:
        batches, restarts = iter(self.batch_sampler), 0
        for _ in range(skip):
            if next(batches, None) is None:
                # A loop over iterations starts a finite sampler again.
                restarts += 1
                self.set_epoch(restarts)
                batches = iter(self.batch_sampler)
                next(batches)
        return batches


def seed_batches(
    loader: DataLoader, key: tuple[int, ...], iteration: Callable[[], int]
) -> SeededBatches | None:
    """Seed the random generators before each batch of a data loader.

    Args:
        loader (DataLoader): Changed in place.
        key (tuple[int, ...]): Seed and rank.
        iteration (Callable): Returns the number of iterations so far.

    Returns:
        SeededBatches or None: The new batch sampler of the loader; None if the loader has no
        indices that can be skipped.
    """
    if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
        return None
    batches = SeededBatches(loader.batch_sampler, loader.sampler, key, iteration)
    # PyTorch refuses this assignment, because it cannot change the number of batches afterwards.
    object.__setattr__(loader, 'batch_sampler', batches)
    return batches
