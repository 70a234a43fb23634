"""Loss and score of trainings, as MMEngine wrote them down."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

#: Names of scores, the first one found being the one to draw.
SCORES = (
    'accuracy/top1',
    'single-label/f1-score',
    'mIoU',
    'coco/bbox_mAP',
    'pascal_voc/mAP',
    'bbox_mAP',
    'mAP',
)
#: What a line of validation holds besides scores.
_NO_SCORES = ('step', 'epoch', 'iter', 'time', 'data_time', 'lr', 'base_lr', 'memory')

Series = list[tuple[int, float]]


def read_scalars(work_dir: str | Path) -> tuple[dict[str, Series], dict[str, Series]]:
    """Read what all runs in a work folder logged, of training and of validation.

    A run that was resumed, or started again, takes the place of what earlier ones wrote from the
    step on at which it begins.

    Args:
        work_dir (str or Path): Folder that ``tools/train.py`` wrote, with a folder for each run.

    Returns:
        tuple: Of training and of validation, by name, as (step, value) in order of steps. Steps of
        training are iterations; those of validation iterations, or epochs where a config counts
        in epochs.

    Raises:
        FileNotFoundError: If there is no such folder, or no run in it has logged anything.
    """
    work_dir = Path(work_dir)
    train: dict[str, dict[int, float]] = {}
    val: dict[str, dict[int, float]] = {}
    # The folders of the runs are named by the time at which they began.
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        # Only training has a learning rate; validation is timed, and lines of hooks are not.
        training = [line for line in lines if 'lr' in line]
        validation = [line for line in lines if 'lr' not in line and 'data_time' in line]
        if training and _first(training) <= min((_start(s) for s in train.values()), default=0):
            val.clear()
        _join(train, training)
        _join(val, validation)
    if not train and not val:
        raise FileNotFoundError(
            f'{work_dir} holds no run that logged anything (no */vis_data/scalars.json): give the '
            'folder that tools/train.py wrote'
        )
    return tuple(
        {name: sorted(values.items()) for name, values in series.items() if values}
        for series in (train, val)
    )


def _first(lines: list[dict]) -> int:
    return min(line['step'] for line in lines)


def _start(values: dict[int, float]) -> int:
    return min(values, default=0)


def _join(series: dict[str, dict[int, float]], lines: list[dict]) -> None:
    """Add a later run's lines in the place of all from its first step on."""
    if not lines:
        return
    for values in series.values():
        for step in [step for step in values if step >= _first(lines)]:
            del values[step]
    for line in lines:
        for name, value in line.items():
            if isinstance(value, (int, float)) and name != 'step':
                series.setdefault(name, {})[line['step']] = float(value)


def score_name(validations: Sequence[dict[str, Series]], wanted: str | None = None) -> str | None:
    """Choose the score to compare runs by.

    Args:
        validations (Sequence[dict]): What :func:`read_scalars` read of each run's validation.
        wanted (str, optional): A name that has to be in one of them.

    Returns:
        str: The name, or None where no run was validated.

    Raises:
        ValueError: If no run has ``wanted``, naming what there is.
    """
    names = [name for val in validations for name in val if name not in _NO_SCORES]
    if wanted is not None:
        if wanted not in names:
            found = ', '.join(sorted(set(names))) or 'none'
            raise ValueError(f'--score {wanted} is in none of the runs; there: {found}')
        return wanted
    known = [name for name in SCORES if name in names]
    return (known or names or [None])[0]


def moving_average(values: Sequence[float], window: int) -> np.ndarray:
    """Average each value with its neighbours.

    Args:
        values (Sequence[float]): N values.
        window (int): How many are averaged, odd; fewer at the ends, as many on either side.

    Returns:
        np.ndarray: N averages.

    Raises:
        ValueError: If the window is even or not positive.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f'the window must be odd and positive, got {window}')
    values = np.asarray(values, float)
    averages = np.empty_like(values)
    for i in range(len(values)):
        reach = min(window // 2, i, len(values) - 1 - i)
        averages[i] = values[i - reach : i + reach + 1].mean()
    return averages
