"""Comparison of the complete states of two trainings."""

from pathlib import Path

import torch

#: Differs between two runs of the same training: times, paths, config and version.
_RUN = {
    'time', 'data_time', 'memory', 'eta', 'cfg', 'experiment_name', 'last_ckpt', 'mmengine_version',
}  # fmt: skip

#: MMEngine sets them before each iteration, and a repeated validation comes before one.
_PLACE = {'.message_hub.runtime_info.epoch', '.message_hub.runtime_info.iter'}


def assert_same_state(expected, found, ignored=()):
    """Compare two checkpoints bit by bit: weights, masks, optimiser, averages, scores, history.

    Args:
        expected (Path): Checkpoint of an uninterrupted training.
        found (Path): Checkpoint of a resumed one.
        ignored (Sequence[str]): Keys that may differ.
    """
    first, second = (torch.load(path, weights_only=True) for path in (expected, found))
    differences = list(_differences(first, second, '', _RUN.union(ignored)))
    assert not differences, '\n'.join(differences[:20])


def _differences(a, b, path, ignored):
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            name = f'{path}.{key}'
            if str(key).rsplit('/', 1)[-1] in ignored or name in _PLACE:
                continue
            if key in a and key in b:
                yield from _differences(a[key], b[key], name, ignored)
            else:
                yield f'{name} is only in one of them'
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from _differences(*pair, f'{path}[{index}]', ignored)
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or a.numpy().tobytes() != b.numpy().tobytes():
            yield f'{path}: {a} and {b}'
    elif path.endswith('.best_ckpt') and isinstance(a, str) and isinstance(b, str):
        if Path(a).name != Path(b).name:
            yield f'{path}: {a} and {b}'
    elif a != b:
        yield f'{path}: {a} and {b}'
