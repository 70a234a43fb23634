"""The states of the random generators in checkpoints, so that resuming is exact."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop

from ...registry import HOOKS
from .plain_checkpoint import to_plain


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save the states of the random generators in checkpoints, so that resuming is exact.

    Drop path, dropout and, without worker processes, augmentation use the random generators of the
    main process. Without this hook a resumed training draws other random numbers. The hook works
    only for a single process, because only the first of several processes writes checkpoints.
    """

    def __init__(self):
        self._state: dict | None = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the states to a checkpoint."""
        if runner.world_size == 1:
            states = dict(
                python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state()
            )
            if torch.cuda.is_available():
                states['cuda'] = torch.cuda.get_rng_state()
            checkpoint['random_state'] = to_plain(states, 'random_state')

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the saved states until training continues."""
        if runner._resume and runner.world_size == 1:
            self._state = checkpoint.get('random_state')

    def before_train_epoch(self, runner) -> None:
        """Restore the states.

        A resumed loop over iterations first skips the data of earlier iterations, which draws
        random numbers. The states are then restored after the skipping.
        """
        if self._state is None:
            return
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = _AfterSkipping(
                loop.dataloader_iterator, loop.iter, self._restore
            )
        else:
            self._restore()

    def _restore(self) -> None:
        state, self._state = self._state, None
        random.setstate(state['python'])
        kind, keys, *rest = state['numpy']
        np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state['torch'].cpu())
        if 'cuda' in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state['cuda'].cpu())


class _AfterSkipping:
    """Iterator that calls ``then`` once, after ``skip`` items."""

    def __init__(self, iterator: Iterator, skip: int, then: Callable[[], None]):
        self.iterator, self.left, self.then = iterator, skip, then

    def __iter__(self):
        return self

    def __next__(self):
        if self.left == 0:
            self.then()
        self.left -= 1
        return next(self.iterator)
