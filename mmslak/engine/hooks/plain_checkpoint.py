"""Exact resuming: checkpoints that load safely, and the states of the random generators."""

import random
from collections import deque

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.runner import IterBasedTrainLoop

from ...registry import HOOKS

_HISTORY = '__history__'


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Save MMEngine's message hub as tensors, numbers and lists, and rebuild it on loading.

    MMEngine 0.10 pickles ``HistoryBuffer`` objects and NumPy scalars into its checkpoints, which
    ``torch.load`` refuses since PyTorch 2.6. With this hook checkpoints contain only tensors and
    plain containers, so that resuming works and safe loading stays on.
    """

    # After the hooks that add to the checkpoint, such as the masks.
    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Replace the objects in the message hub and in the meta data by plain values."""
        for key in ('message_hub', 'meta'):
            if key in checkpoint:
                checkpoint[key] = to_plain(checkpoint[key], key)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Rebuild the message hub's history buffers."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, value in scalars.items():
            if isinstance(value, dict) and _HISTORY in value:
                values, counts = (t.cpu().numpy() for t in value[_HISTORY])
                scalars[name] = HistoryBuffer(values, counts, value['max_length'])


def to_plain(value, path: str):
    """Copy ``value`` with NumPy and MMEngine objects replaced by tensors and containers.

    Args:
        value: Any nesting of dicts, lists, tuples, numbers, strings, tensors, NumPy arrays
            and history buffers.
        path (str): Keys that lead to ``value``, for the error.

    Raises:
        TypeError: If ``value`` contains anything else, naming the keys that lead to it.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.Tensor)):
        # np.float64 is a float, but it pickles as a NumPy object.
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, HistoryBuffer):
        return {
            _HISTORY: [torch.from_numpy(np.asarray(array, np.float64)) for array in value.data],
            'max_length': value.max_length,
        }
    if isinstance(value, dict):
        return {key: to_plain(item, f'{path}.{key}') for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item, path) for item in value)
    if isinstance(value, (list, deque)):
        return [to_plain(item, path) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(to_plain(item, path) for item in value)
    raise TypeError(
        f'{path} is a {type(value).__name__}, which a checkpoint that loads safely cannot hold; '
        'store a tensor, a number, a string or a container of these'
    )


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save the states of the random generators in checkpoints, so that resuming is exact.

    Drop path, dropout and, without worker processes, augmentation draw from the generators of the
    main process. Without this hook a resumed training draws other numbers. It works for a single
    process: of several processes only the first writes checkpoints.
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
        """Keep the states until training continues."""
        if runner._resume and runner.world_size == 1:
            self._state = checkpoint.get('random_state')

    def before_train_epoch(self, runner) -> None:
        """Restore the states: now, or after a loop over iterations has skipped the seen data."""
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
    """An iterator that calls ``then`` after ``skip`` items, before it returns the next one."""

    def __init__(self, iterator, skip: int, then):
        self.iterator, self.left, self.then = iterator, skip, then

    def __iter__(self):
        return self

    def __next__(self):
        if self.left == 0:
            self.then()
        self.left -= 1
        return next(self.iterator)
