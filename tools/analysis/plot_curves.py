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
from rich.console import Console

from mmslak.analysis.curve_figures import draw_runs, last_values
from mmslak.analysis.curves import read_scalars, score_name
from mmslak.console import guarded


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
