"""Draw the loss and the score of several trainings (figure 5 of the paper).

    python tools/analysis/plot_curves.py work_dirs/slak work_dirs/convnext --out curves

A WORK_DIR is what tools/train.py wrote; resumed runs in it are joined. Thin lines are the logged
values, thick lines their moving averages. Writes OUT.png and OUT.svg, and prints the last values of
each training.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mmslak.analysis.curves import Scalars, Series, moving_average, read_scalars, score_name
from mmslak.console import guarded


def draw_series(
    panel,
    series: dict[str, Series],
    colours: dict[str, str],
    window: int | None,
) -> None:
    """Draw the values of every run as a thin line, and their moving average as a thick line."""
    for name, points in series.items():
        colour = colours[name]
        steps, values = zip(*points, strict=True)
        width = window or 2 * (len(values) // 20) + 1
        average = moving_average(values, width)
        raw = dict(alpha=0.35, linewidth=0.8) if width > 1 else dict(alpha=0, linewidth=0)
        panel.plot(steps, values, color=colour, marker='.', markersize=2, **raw)
        mark = 'o' if len(values) < 12 else ''
        panel.plot(
            steps, average, color=colour, linewidth=1.8, marker=mark, markersize=3.5, label=name
        )
    panel.grid(alpha=0.3)


def draw_runs(runs: dict[str, Scalars], loss: str, score: str | None, window: int | None) -> Figure:
    """Draw the loss of all runs, and in a second panel their score if there is one.

    Args:
        runs (dict[str, Scalars]): What each run logged, by name.
        loss (str): Name of a training scalar.
        score (str, optional): Name of a validation scalar.
        window (int, optional): Number of values in a moving average. Default: a tenth of them.

    Raises:
        ValueError: If no run has logged ``loss``, naming the scalars that the runs have.
    """
    losses = {name: run.training[loss] for name, run in runs.items() if loss in run.training}
    if not losses:
        found = sorted({key for run in runs.values() for key in run.training})
        raise ValueError(f'--loss {loss} is in none of the runs, which have: {", ".join(found)}')
    scores = {name: run.validation[score] for name, run in runs.items() if score in run.validation}
    # A run has the same colour in both panels, even if others appear in only one of them.
    colours = {name: f'C{number}' for number, name in enumerate(runs)}

    panels = 1 if score is None else 2
    figure, axes = plt.subplots(
        1, panels, figsize=(5.4 * panels, 4), squeeze=False, layout='constrained'
    )
    draw_series(axes[0, 0], losses, colours, window)
    axes[0, 0].set(xlabel='iteration', ylabel=loss, title='Training loss')
    if score is not None:
        draw_series(axes[0, 1], scores, colours, window)
        axes[0, 1].set(xlabel=_unit(runs, score), ylabel=score, title='Validation')
    # The legend is in the first panel, so it shows the lines of that panel where a run has one.
    lines = {line.get_label(): line for panel in axes[0, ::-1] for line in panel.get_lines()}
    drawn = [name for name in runs if name in lines]
    axes[0, 0].legend([lines[name] for name in drawn], drawn, fontsize=8)
    return figure


def _unit(runs: dict[str, Scalars], score: str) -> str:
    """Return what the steps of validations count: epochs if training logs epochs."""
    units = {
        'epoch' if 'epoch' in run.training else 'iteration'
        for run in runs.values()
        if score in run.validation
    }
    return ' or '.join(sorted(units))


def last_values(runs: dict[str, Scalars], loss_name: str, score: str | None) -> Table:
    """Make a table of the last loss of each run, and its last and best score."""
    headings = ['run', 'iterations', f'last {loss_name}']
    if score is not None:
        headings += [f'last {score}', f'best {score}']
    table = Table(*headings)
    for name, run in runs.items():
        loss = run.training.get(loss_name, [])
        cells = [str(loss[-1][0]), f'{loss[-1][1]:.4g}'] if loss else ['-', '-']
        if score is not None:
            values = [value for _, value in run.validation.get(score, [])]
            cells += [f'{values[-1]:.4g}', f'{max(values):.4g}'] if values else ['-', '-']
        table.add_row(name, *cells)
    return table


def _name(path: Path, others: list[Path]) -> str:
    """Name a directory by its last part, or by its whole path if others have the same last part."""
    unique = [other.resolve().name for other in others].count(path.resolve().name) == 1
    return path.resolve().name if unique else str(path)


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'work_dirs',
        nargs='+',
        type=Path,
        metavar='WORK_DIR',
        help='directory that tools/train.py wrote',
    )
    parser.add_argument(
        '--names', nargs='+', help='names in the legend (default: those of the directories)'
    )
    parser.add_argument('--loss', default='loss', help='training scalar to draw (default: loss)')
    parser.add_argument(
        '--score', help='score to draw (default: accuracy, mIoU or mAP, whichever was logged)'
    )
    parser.add_argument(
        '--average',
        type=int,
        metavar='N',
        help='number of values in a moving average, odd (default: a tenth of the values)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('curves'),
        help='figures to write, without .png and .svg (default: curves)',
    )
    args = parser.parse_args()
    args.names = args.names or [_name(path, args.work_dirs) for path in args.work_dirs]
    if len(args.names) != len(args.work_dirs) or len(set(args.names)) != len(args.names):
        raise ValueError(
            f'--names must have {len(args.work_dirs)} different names, one per directory, '
            f'got {args.names}'
        )
    if args.average is not None and (args.average < 1 or args.average % 2 == 0):
        raise ValueError(f'--average must be odd and positive, got {args.average}')
    if args.out.suffix in ('.png', '.svg'):
        args.out = args.out.with_suffix('')
    return args


@guarded
def main() -> None:
    """Draw the trainings, and print their last values."""
    args = parse_args()
    runs = {n: read_scalars(path) for n, path in zip(args.names, args.work_dirs, strict=True)}
    score = score_name([run.validation for run in runs.values()], args.score)
    figure = draw_runs(runs, args.loss, score, args.average)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ('.png', '.svg'):
        figure.savefig(f'{args.out}{suffix}', dpi=120)
    plt.close(figure)
    console = Console(width=110)
    console.print(last_values(runs, args.loss, score))
    console.print(f'wrote {args.out}.png and {args.out}.svg')


if __name__ == '__main__':
    main()
