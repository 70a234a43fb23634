"""Scalars of trainings over time, such as the loss, the score and the sparsity."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: Names of scores; the first one that a run has is drawn.
SCORES = (
    'accuracy/top1',
    'single-label/f1-score',
    'mIoU',
    'coco/bbox_mAP',
    'pascal_voc/mAP',
    'bbox_mAP',
    'mAP',
)
#: Scalars of a validation that are not scores.
_NO_SCORES = ('step', 'epoch', 'iter', 'time', 'data_time', 'lr', 'base_lr', 'memory')

#: Steps and values, in order of steps.
Series = list[tuple[int, float]]
_Points = dict[str, dict[int, float]]


class Scalars(NamedTuple):
    """The scalars of a training by name.

    Args:
        training (dict[str, Series]): Logged during training, by iteration.
        validation (dict[str, Series]): Logged by validations; by iteration, or by epoch if the
            config counts epochs.
        hooks (dict[str, Series]): Logged by hooks, such as the density of the layers, by iteration.
    """

    training: dict[str, Series]
    validation: dict[str, Series]
    hooks: dict[str, Series]


def read_scalars(work_dir: str | Path) -> Scalars:
    """Read the scalars of all runs in a work directory as one training.

    A resumed run replaces what earlier runs logged after the point of resuming, and a run that
    started from scratch replaces everything. The point of resuming is read from the log of the
    run, because the first step in the scalars depends on the logging interval.

    Args:
        work_dir (str or Path): Directory that ``tools/train.py`` wrote, with a directory per run.

    Returns:
        Scalars: Of training, validation and hooks.

    Raises:
        FileNotFoundError: If there is no such directory, no run in it has logged anything, or a
            later run has no log.
    """
    work_dir = Path(work_dir)
    train: _Points = {}
    val: _Points = {}
    hooks: _Points = {}
    # The directories of the runs are named after the time at which they began.
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        # Only training logs a learning rate, and hooks do not log times.
        training = [line for line in lines if 'lr' in line]
        validation = [line for line in lines if 'lr' not in line and 'data_time' in line]
        of_hooks = [line for line in lines if 'lr' not in line and 'data_time' not in line]
        if lines and (train or val or hooks):
            resumed = _resumed(path.parents[1])
            # Validations are counted in epochs if training logs epochs.
            by_epoch = bool(train.get('epoch')) or any('epoch' in line for line in training)
            # If a run was interrupted before its first step, only hooks have logged.
            if training or validation:
                _keep(train, resumed and resumed['iter'])
                _keep(val, resumed and resumed['epoch' if by_epoch else 'iter'])
            _keep(hooks, resumed and resumed['iter'])
        _add(train, training)
        _add(val, validation)
        _add(hooks, of_hooks)
    if not train and not val and not hooks:
        raise FileNotFoundError(
            f'{work_dir} contains no run that logged anything (no */vis_data/scalars.json); give '
            'the directory that tools/train.py wrote'
        )
    return Scalars(
        *(
            {name: sorted(values.items()) for name, values in points.items() if values}
            for points in (train, val, hooks)
        )
    )


def _resumed(run: Path) -> dict[str, int] | None:
    """Read the epoch and iteration at which a run was resumed; None if it started from scratch."""
    logs = sorted(run.glob('*.log'))
    if not logs:
        raise FileNotFoundError(
            f'{run} contains no log that says where the run began; copy its .log file there, or '
            'move the earlier runs out of the work directory'
        )
    for log in logs:
        text = log.read_text(encoding='utf-8', errors='replace')
        if found := re.search(r'resumed epoch: (\d+), iter: (\d+)', text):
            return {'epoch': int(found[1]), 'iter': int(found[2])}
    return None


def _keep(points: _Points, last: int | None) -> None:
    """Remove what was logged after step ``last``, or everything if it is None."""
    for values in points.values():
        for step in [step for step in values if last is None or step > last]:
            del values[step]


def _add(points: _Points, lines: list[dict]) -> None:
    """Add the numbers of a run's lines."""
    for line in lines:
        for name, value in line.items():
            if isinstance(value, (int, float)) and name != 'step':
                points.setdefault(name, {})[line['step']] = float(value)


def score_name(validations: Sequence[dict[str, Series]], wanted: str | None = None) -> str | None:
    """Choose the score by which runs are compared.

    Args:
        validations (Sequence[dict]): The validation scalars of each run, from
            :func:`read_scalars`.
        wanted (str, optional): Name of the score. Default: the first of :data:`SCORES` that a run
            has, or any other score.

    Returns:
        str: The name, or None if no run was validated.

    Raises:
        ValueError: If no run has ``wanted``, naming the scores that the runs have.
    """
    names = [name for val in validations for name in val if name not in _NO_SCORES]
    if wanted is not None:
        if wanted not in names:
            found = ', '.join(sorted(set(names))) or 'none'
            raise ValueError(f'--score {wanted} is in none of the runs, which have: {found}')
        return wanted
    known = [name for name in SCORES if name in names]
    return (known or names or [None])[0]


def moving_average(values: Sequence[float], window: int) -> np.ndarray:
    """Average each value with its neighbours.

    Args:
        values (Sequence[float]): N values.
        window (int): Number of values in an average, odd; near the ends it is smaller, with as
            many values before as after.

    Returns:
        np.ndarray: N averages.

    Raises:
        ValueError: If the window is even or not positive.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f'window must be odd and positive, got {window}')
    values = np.asarray(values, float)
    averages = np.empty_like(values)
    for i in range(len(values)):
        reach = min(window // 2, i, len(values) - 1 - i)
        averages[i] = values[i - reach : i + reach + 1].mean()
    return averages
