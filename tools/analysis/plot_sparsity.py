"""Draw how the sparsity of a training evolved, from what DynamicSparsityHook logged.

    python tools/analysis/plot_sparsity.py work_dirs/slak_t_in1k

Three panels show the adaptation rate and the number of weights moved in each update, the share of
weights that have ever been active, and the density of each layer.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from mmslak.analysis.curves import Series, read_scalars
from mmslak.console import guarded


def read_sparsity(work_dir: Path) -> dict[str, Series]:
    """Read what DynamicSparsityHook logged in the runs of a work directory.

    Raises:
        FileNotFoundError: If no run has logged its sparsity.
    """
    hooks = read_scalars(work_dir).hooks
    series = {k: v for k, v in hooks.items() if k.startswith(('sparsity/', 'density/'))}
    if not series:
        raise FileNotFoundError(
            f'{work_dir} contains no run with DynamicSparsityHook (no sparsity in '
            '*/vis_data/scalars.json)'
        )
    return series


def draw(series: dict[str, Series]) -> Figure:
    """Draw the figure."""
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.5), width_ratios=(1, 1, 1.4), layout='constrained'
    )
    if 'sparsity/rate' in series:
        left.plot(*zip(*series['sparsity/rate'], strict=True), color='tab:blue', label='rate')
        left.set(xlabel='iteration', ylabel='adaptation rate', title='Updates', ylim=(0, None))
        left.yaxis.label.set_color('tab:blue')
        moves = left.twinx()
        moves.plot(*zip(*series['sparsity/moves'], strict=True), color='tab:orange')
        moves.set(ylim=(0, None))
        moves.set_ylabel('weights moved', color='tab:orange')
        middle.plot(*zip(*series['sparsity/explored'], strict=True), label='ever active')
        middle.plot(*zip(*series['sparsity/density'], strict=True), label='active')
        middle.set(xlabel='iteration', title='Share of the weights', ylim=(0, 1.02))
        middle.legend()
    else:
        for panel in (left, middle):
            panel.text(0.5, 0.5, 'no updates: the masks are fixed', ha='center', va='center')
            panel.set_axis_off()
    densities = {
        name.removeprefix('density/'): points[-1][1]
        for name, points in series.items()
        if name.startswith('density/')
    }
    names = [name.removeprefix('backbone.').removesuffix('.weight') for name in densities]
    right.barh(range(len(names)), list(densities.values()), color='tab:green')
    right.invert_yaxis()
    right.set_yticks(range(len(names)), names, fontsize=max(2, min(7, 260 / len(names))))
    right.set(xlabel='density', title='Density of each layer', xlim=(0, 1))
    return figure


@guarded
def main() -> None:
    """Draw the runs of one work directory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'work_dir', type=Path, metavar='WORK_DIR', help='directory that tools/train.py wrote'
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='figure to write (default: sparsity.png in the work directory)',
    )
    args = parser.parse_args()
    out = args.out or args.work_dir / 'sparsity.png'
    figure = draw(read_sparsity(args.work_dir))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    plt.close(figure)
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
