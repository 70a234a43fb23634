"""Draw loss and score of several trainings over each other (figure 5 of the paper).

    python tools/analysis/plot_curves.py work_dirs/slak work_dirs/convnext --out curves

A WORK_DIR is what tools/train.py wrote; resumed runs in it are joined. Thin lines are the values as
they were logged, thick ones their moving averages. Written: OUT.png and OUT.svg.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from mmslak.analysis.curves import Series, moving_average, read_scalars, score_name
from mmslak.console import guarded

#: Of each run, by name, what it logged of training and of validation.
Runs = dict[str, tuple[dict[str, Series], dict[str, Series]]]


def draw_series(
    panel,
    series: dict[str, Series],
    colours: dict[str, str],
    window: int | None,
) -> None:
    """Draw every run's values, thin, and their moving average, thick."""
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


def draw_runs(runs: Runs, loss: str, score: str | None, window: int | None) -> Figure:
    """Draw the loss of all runs, and in a second panel their score where there is one.

    Raises:
        ValueError: If no run has logged ``loss``, naming what there is.
    """
    losses = {name: train[loss] for name, (train, _) in runs.items() if loss in train}
    if not losses:
        found = sorted({key for train, _ in runs.values() for key in train})
        raise ValueError(f'--loss {loss} is in none of the runs; there: {", ".join(found)}')
    scores = {name: val[score] for name, (_, val) in runs.items() if score in val}
    # A run has its colour in both panels, also where another one is missing in one of them.
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
    # Of a run in both panels the legend shows the line of the loss, next to which it stands.
    lines = {line.get_label(): line for panel in axes[0, ::-1] for line in panel.get_lines()}
    drawn = [name for name in runs if name in lines]
    axes[0, 0].legend([lines[name] for name in drawn], drawn, fontsize=8)
    return figure


@guarded
def main() -> None:
    """Draw, and print where each run ended."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR')
    parser.add_argument('--names', nargs='+', help='in the legend; default: of the folders')
    parser.add_argument('--loss', default='loss', help='which logged value of training to draw')
    parser.add_argument('--score', help='which score; default: accuracy, mIoU or mAP, as there is')
    parser.add_argument(
        '--average',
        type=int,
        metavar='N',
        help='logged values in a moving average, odd; default: a tenth of them',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('curves'), help='figures to write, without .png and .svg'
    )
    args = parser.parse_args()
    names = args.names or [_name(path, args.work_dirs) for path in args.work_dirs]
    if len(names) != len(args.work_dirs) or len(set(names)) != len(names):
        raise ValueError(
            f'--names must give each of the {len(args.work_dirs)} folders a name of its own, '
            f'got {names}'
        )
    if args.average is not None:
        moving_average([0.0], args.average)  # raises where it is not odd
    runs = {n: read_scalars(path) for n, path in zip(names, args.work_dirs, strict=True)}
    score = score_name([val for _, val in runs.values()], args.score)
    figure = draw_runs(runs, args.loss, score, args.average)
    out = args.out.with_suffix('') if args.out.suffix in ('.png', '.svg') else args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ('.png', '.svg'):
        figure.savefig(f'{out}{suffix}', dpi=120)
    plt.close(figure)

    console = Console(width=110)
    console.print(ends(runs, args.loss, score))
    console.print(f'written to {out}.png and {out}.svg')


def ends(runs: Runs, loss_name: str, score: str | None) -> Table:
    """Tabulate where each run ended."""
    headings = ['run', 'iterations', f'last {loss_name}']
    if score is not None:
        headings += [f'last {score}', f'best {score}']
    table = Table(*headings)
    for name, (train, val) in runs.items():
        loss = train.get(loss_name, [])
        cells = [str(loss[-1][0]), f'{loss[-1][1]:.4g}'] if loss else ['-', '-']
        if score is not None:
            values = [value for _, value in val.get(score, [])]
            cells += [f'{values[-1]:.4g}', f'{max(values):.4g}'] if values else ['-', '-']
        table.add_row(name, *cells)
    return table


def _name(path: Path, others: list[Path]) -> str:
    """Name a folder by its last part, or by all of it where another one has the same."""
    alone = [other.resolve().name for other in others].count(path.resolve().name) == 1
    return path.resolve().name if alone else str(path)


def _unit(runs: Runs, score: str) -> str:
    """Tell what the steps of validation count: epochs are logged with training's iterations."""
    units = {
        'epoch' if 'epoch' in train else 'iteration' for train, val in runs.values() if score in val
    }
    return ' or '.join(sorted(units))


if __name__ == '__main__':
    main()
