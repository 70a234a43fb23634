"""Loss and score of trainings, as MMEngine wrote them down."""

import json
import re
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

    A run that was resumed takes the place of what earlier ones wrote beyond the point of resuming;
    one that was started again takes the place of all of it. Where it began is read from its log:
    the first step it logged does not tell, as that depends on the interval of logging.

    Args:
        work_dir (str or Path): Folder that ``tools/train.py`` wrote, with a folder for each run.

    Returns:
        tuple: Of training and of validation, by name, as (step, value) in order of steps. Steps of
        training are iterations; those of validation iterations, or epochs where a config counts
        in epochs.

    Raises:
        FileNotFoundError: If there is no such folder, no run in it has logged anything, or a later
            run has no log.
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
        if not training and not validation:
            continue
        if train or val:
            resumed = _resumed(path.parents[1])
            # Validation counts in epochs where they are logged with training's iterations.
            by_epoch = bool(train.get('epoch')) or any('epoch' in line for line in training)
            for series, unit in ((train, 'iter'), (val, 'epoch' if by_epoch else 'iter')):
                _keep(series, resumed and resumed[unit])
        _add(train, training)
        _add(val, validation)
    if not train and not val:
        raise FileNotFoundError(
            f'{work_dir} holds no run that logged anything (no */vis_data/scalars.json): give the '
            'folder that tools/train.py wrote'
        )
    return tuple(
        {name: sorted(values.items()) for name, values in series.items() if values}
        for series in (train, val)
    )


def _resumed(run: Path) -> dict[str, int] | None:
    """Read after which epoch and iteration a run went on, or None where it started from nothing."""
    logs = sorted(run.glob('*.log'))
    if not logs:
        raise FileNotFoundError(
            f'{run} holds no log that tells where the run began: copy its .log file there, or move '
            'the earlier runs out of the work folder'
        )
    for log in logs:
        text = log.read_text(encoding='utf-8', errors='replace')
        if found := re.search(r'resumed epoch: (\d+), iter: (\d+)', text):
            return {'epoch': int(found[1]), 'iter': int(found[2])}
    return None


def _keep(series: dict[str, dict[int, float]], last: int | None) -> None:
    """Leave out what comes after a step, or all where there is none."""
    for values in series.values():
        for step in [step for step in values if last is None or step > last]:
            del values[step]


def _add(series: dict[str, dict[int, float]], lines: list[dict]) -> None:
    """Add the numbers of a run's lines."""
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
