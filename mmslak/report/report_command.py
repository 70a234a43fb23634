"""The command ``mmslak report``."""

import argparse
import time
from pathlib import Path

import matplotlib

from ..analysis.curve_figures import draw_runs, draw_sparsity, sparsity_of
from ..analysis.curves import score_name
from ..cli.config import load_config, prepare
from ..console import guarded, progress_bar
from ..engine.packaged_configs import packaged_config
from ..predict import Predictor
from . import page
from .quality import SHOWN, Quality, measure
from .training import Run, differences, read_run


@guarded
def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(
        description='Write a report of a training, or of two side by side, as one HTML file: '
        'scores, curves, sparsity, settings, and with --images also classes and pictures.'
    )
    parser.add_argument(
        'work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='one or two, of tools/train.py'
    )
    parser.add_argument(
        '--out', type=Path, metavar='F', help='HTML file (default: report.html in WORK_DIR)'
    )
    parser.add_argument(
        '--images', type=int, default=0, metavar='N',
        help='predict for N validation images with the best checkpoint (default: 0)',
    )  # fmt: skip
    parser.add_argument('--device', help='for the predictions (default: a GPU if there is one)')
    args = parser.parse_args()
    if len(args.work_dirs) > 2:
        raise ValueError(f'a report compares at most two WORK_DIRs, got {len(args.work_dirs)}')
    if args.images < 0:
        raise ValueError(f'--images must not be negative, got {args.images}')
    out = args.out or args.work_dirs[0] / 'report.html'
    if out.suffix not in ('.html', '.htm'):
        raise ValueError(f'--out must end with .html, got {out}')
    matplotlib.use('Agg')
    runs = _read(args.work_dirs)
    quality = {run.name: _measured(run, args) for run in runs} if args.images else {}
    title = ' and '.join(run.name for run in runs)
    text = page.page(title, time.strftime('written on %Y-%m-%d'), sections(runs, quality))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding='utf-8')
    print(f'Written to {out}, {len(text) / 1e6:.1f} MB')


def _read(paths: list[Path]) -> list[Run]:
    same = len({path.resolve().name for path in paths}) < len(paths)
    return [read_run(path, str(path) if same else None) for path in paths]


def _measured(run: Run, args: argparse.Namespace) -> Quality:
    if run.config is None or run.checkpoint is None:
        raise FileNotFoundError(
            f'{run.path} has no {"config" if run.config is None else "checkpoint"}, which --images '
            'needs; leave --images out'
        )
    predictor = Predictor(run.config, run.checkpoint, device=args.device)
    with progress_bar() as bar:
        task = bar.add_task(run.name, total=args.images)
        return measure(predictor, args.images, lambda: bar.advance(task))


def sections(runs: list[Run], quality: dict[str, Quality]) -> list[tuple[str, str]]:
    """Return headings and contents of the report.

    Args:
        runs (list[Run]): One or two.
        quality (dict[str, Quality]): By name of the run; may be empty.
    """
    found = [('Summary', _summary(runs))]
    scalars = {run.name: run.scalars for run in runs}
    score = score_name([run.validation for run in scalars.values()])
    if any('loss' in run.training for run in scalars.values()):
        figure = draw_runs(scalars, 'loss', score, None)
        found.append(('Curves', page.figure(figure, 'loss and score over the iterations')))
    for run in runs:
        if series := sparsity_of(run.scalars):
            figure = draw_sparsity(series)
            found.append((_heading('Sparsity', run, runs), page.figure(figure, 'sparsity')))
    for run in runs:
        if run.name in quality:
            found += _quality(quality[run.name], run, runs)
    found += _settings(runs)
    names = dict.fromkeys(key for run in runs for key in run.environment)
    rows = [[name, *(run.environment.get(name, '-') for run in runs)] for name in names]
    if rows:
        found.append(('Environment', page.table(['', *(run.name for run in runs)], rows)))
    return found


def _heading(text: str, run: Run, runs: list[Run]) -> str:
    return text if len(runs) == 1 else f'{text}: {run.name}'


def _summary(runs: list[Run]) -> str:
    columns = []
    score = score_name([run.scalars.validation for run in runs])
    for run in runs:
        column = {}
        values = run.scalars.validation.get(score, []) if score else []
        if values:
            step, best = max(values, key=lambda point: point[1])
            column[f'best {score}'] = f'{best:.2f} (at {step:,})'
            column[f'last {score}'] = f'{values[-1][1]:.2f}'
        losses = run.scalars.training.get('loss', [])
        if losses:
            column['last loss'] = f'{losses[-1][1]:.4g}'
            column['iterations'] = f'{losses[-1][0]:,}'
            column['time of training'] = _duration(run.seconds)
            column['seconds per iteration'] = f'{run.seconds / losses[-1][0]:.3g}'
        if memory := run.scalars.training.get('memory'):
            column['GPU memory, MB'] = f'{max(value for _, value in memory):,.0f}'
        if run.checkpoint is not None:
            weights = run.weights()
            column['weights, M'] = f'{weights["stored"] / 1e6:.3f}'
            column['active weights, M'] = f'{weights["active"] / 1e6:.3f}'
            column['checkpoint'] = run.checkpoint.name
        columns.append(column)
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, '-') for column in columns)] for name in names]
    return page.table(['', *(run.name for run in runs)], rows)


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f'{hours} h {minutes:02d} min' if hours else f'{minutes} min'


def _quality(quality: Quality, run: Run, runs: list[Run]) -> list[tuple[str, str]]:
    rows = [
        [name, *(f'{value:.1f}' for value in values.values())]
        for name, values in quality.per_class()
    ]
    names = [*quality.classes, 'nothing'][: len(quality.confusion)]
    worst, best = quality.images[:SHOWN], quality.images[::-1][:SHOWN]
    remark = page.note(f'Image, truth and prediction. The score is the {quality.measure}.')
    return [
        (
            _heading('Classes', run, runs),
            page.note(f'In percent, on {quality.count} validation images.')
            + page.table(['class', 'recall', 'precision', 'IoU'], rows),
        ),
        (
            _heading('Confusion', run, runs),
            page.figure(page.confusion_figure(quality.confusion, names), 'confusion matrix'),
        ),
        (_heading('Worst images', run, runs), remark + page.pictures(worst)),
        (_heading('Best images', run, runs), remark + page.pictures(best)),
    ]


def _settings(runs: list[Run]) -> list[tuple[str, str]]:
    """Return the settings that differ between two runs, or from the config of the package."""
    if any(run.config is None for run in runs):
        return []
    if len(runs) == 2:
        heads = ['setting', *(run.name for run in runs)]
        rows = differences(runs[0].config, runs[1].config)
    else:
        # The work directory contains a copy of the config, with the name of the file.
        copies = [file.stem for file in runs[0].path.glob('*.py') if packaged_config(file.stem)]
        if not copies:
            return []
        heads = ['setting', f'mmslak::{copies[0]}', 'this run']
        packaged = load_config(f'mmslak::{copies[0]}')
        prepare(packaged)
        rows = differences(packaged, runs[0].config)
    if not rows:
        return [('Settings', page.note(f'The same as those of {heads[1]}.'))]
    return [('Settings that differ', page.table(heads, rows, code=True))]
