"""Runs of a training as MMEngine writes them, for tests."""

import json


def write_run(work_dir, name, lines, resumed=None):
    """Write the scalars and the log of a run.

    Args:
        work_dir (Path): Work directory of the training.
        name (str): Name of the run, the time at which it began.
        lines (list[dict]): Its scalars.
        resumed (tuple[int, int], optional): Epoch and iteration at which it was resumed.
    """
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    log = ['2026/01/01 00:00:00 - mmengine - INFO - Load checkpoint from iter_30.pth']
    if resumed is not None:
        epoch, iteration = resumed
        log.append(
            f'2026/01/01 00:00:01 - mmengine - INFO - resumed epoch: {epoch}, iter: {iteration}'
        )
    (folder.parent / f'{name}.log').write_text('\n'.join(log) + '\n')


def step(number, loss, **more):
    """Scalars of a training iteration."""
    return dict(lr=0.1, loss=loss, data_time=0.1, time=0.2, iter=number, step=number, **more)
