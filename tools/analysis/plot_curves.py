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
from rich.console import Console
from rich.table import Table

from mmslak.analysis.curves import moving_average, read_scalars, score_name
from mmslak.engine.launch import guarded


def draw_series(panel, series: dict[str, list[tuple[int, float]]], window: int | None) -> None:
    """Draw every run's values, thin, and their moving average, thick."""
    for number, (name, points) in enumerate(series.items()):
        colour = f'C{number}'
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
    losses = {name: train[args.loss] for name, (train, _) in runs.items() if args.loss in train}
    if not losses:
        found = sorted({key for train, _ in runs.values() for key in train})
        raise ValueError(f'--loss {args.loss} is in none of the runs; there: {", ".join(found)}')
    scores = {name: val[score] for name, (_, val) in runs.items() if score in val}

    panels = 1 if score is None else 2
    figure, axes = plt.subplots(
        1, panels, figsize=(5.4 * panels, 4), squeeze=False, layout='constrained'
    )
    draw_series(axes[0, 0], losses, args.average)
    axes[0, 0].set(xlabel='iteration', ylabel=args.loss, title='Training loss')
    if score is not None:
        draw_series(axes[0, 1], scores, args.average)
        axes[0, 1].set(xlabel=_unit(runs, score), ylabel=score, title='Validation')
    axes[0, 0].legend(fontsize=8)
    out = args.out.with_suffix('') if args.out.suffix in ('.png', '.svg') else args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix in ('.png', '.svg'):
        figure.savefig(f'{out}{suffix}', dpi=120)
    plt.close(figure)

    table = Table('run', 'iterations', f'last {args.loss}', f'last {score}', f'best {score}')
    for name, (train, val) in runs.items():
        loss, values = train.get(args.loss, []), [v for _, v in val.get(score, [])]
        table.add_row(
            name,
            str(loss[-1][0]) if loss else '-',
            f'{loss[-1][1]:.4g}' if loss else '-',
            f'{values[-1]:.4g}' if values else '-',
            f'{max(values):.4g}' if values else '-',
        )
    console = Console(width=110)
    console.print(table)
    console.print(f'written to {out}.png and {out}.svg')


def _name(path: Path, others: list[Path]) -> str:
    """Name a folder by its last part, or by all of it where another one has the same."""
    alone = [other.resolve().name for other in others].count(path.resolve().name) == 1
    return path.resolve().name if alone else str(path)


def _unit(runs: dict[str, tuple[dict, dict]], score: str) -> str:
    """Tell what the steps of validation count: epochs are logged with training's iterations."""
    units = {
        'epoch' if 'epoch' in train else 'iteration' for train, val in runs.values() if score in val
    }
    return ' or '.join(sorted(units))


if __name__ == '__main__':
    main()
