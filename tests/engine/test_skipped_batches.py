"""How a resumed loop over iterations continues behind the batches that were used."""

import pytest
from mmengine.runner import IterBasedTrainLoop

from mmslak.engine.runner import _skip_used


class Loader:
    """Iterator over a data loader that has already skipped three batches."""

    def __init__(self):
        self.batches = iter([3, 4])

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.batches)


class LoaderOfFork(Loader):
    """The same in MMEngine's fork, which skips by a method."""

    def skip_iter(self, iterations):
        for _ in range(iterations):
            next(self.batches)


@pytest.mark.parametrize('iterator', [Loader, LoaderOfFork])
def test_no_further_batch_is_skipped(iterator):
    loop = object.__new__(IterBasedTrainLoop)
    loop.dataloader_iterator = iterator()
    _skip_used(loop, [None] * 5, dict(iter=3), 3)
    if iterator is LoaderOfFork:
        loop.dataloader_iterator.skip_iter(3)
    else:
        assert [next(loop.dataloader_iterator) for _ in range(3)] == [None] * 3
    assert list(loop.dataloader_iterator) == [3, 4]
