"""Checkpoints of tensors and plain containers, which load safely."""

from collections import deque

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from ...registry import HOOKS

_HISTORY = '__history__'


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Save MMEngine's message hub as tensors, numbers and lists, and rebuild it after loading.

    MMEngine 0.10 pickles ``HistoryBuffer`` objects and NumPy scalars into its checkpoints, which
    ``torch.load`` refuses by default since PyTorch 2.6. With this hook checkpoints contain only
    tensors and plain containers, so that training can be resumed with safe loading.
    """

    # After the hooks that add something to the checkpoint, such as masks.
    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Replace the objects in the message hub and in the meta data by plain values.

        Raises:
            TypeError: If one of them contains an object that cannot be stored as plain values.
        """
        for key in ('message_hub', 'meta'):
            if key in checkpoint:
                checkpoint[key] = to_plain(checkpoint[key], key)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Rebuild the history buffers of the message hub."""
        scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
        for name, value in scalars.items():
            if isinstance(value, dict) and _HISTORY in value:
                values, counts = (t.cpu().numpy() for t in value[_HISTORY])
                scalars[name] = HistoryBuffer(values, counts, value['max_length'])


def to_plain(value, path: str):
    """Copy ``value`` with NumPy and MMEngine objects replaced by tensors and containers.

    Args:
        value: A number, string, tensor, NumPy array or history buffer, or any nesting of dicts,
            lists, tuples, sets and deques of these.
        path (str): Keys that lead to ``value``, for the error.

    Returns:
        The copy; sets become sorted lists, and deques become lists.

    Raises:
        TypeError: If ``value`` contains anything else, naming the keys that lead to it.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.Tensor)):
        # np.float64 is a float, but it is pickled as a NumPy object.
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
        f'{path} in the checkpoint must be a tensor, a number, a string or a container of these to '
        f'load safely, got {type(value).__name__}'
    )
