"""Draw how the sparsity of a training evolved, from what its hook wrote.

    python tools/analysis/plot_sparsity.py WORK_DIR [--out FIGURE]

Three panels: the adaptation rate and the weights moved in each update, the share of weights
ever used, and the density of each layer.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from mmslak.console import guarded


def read_scalars(work_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Read all scalars of a work folder's runs, by name, as (step, value) in order of steps.

    Raises:
        FileNotFoundError: If no run in the folder wrote scalars of sparsity.
    """
    series: dict[str, dict[int, float]] = {}
    # Later runs (resumed ones) replace what earlier ones wrote for the same step.
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            values = json.loads(line)
            step = values.pop('step', 0)
            for name, value in values.items():
                if name.startswith(('sparsity/', 'density/')):
                    series.setdefault(name, {})[step] = value
    if not series:
        raise FileNotFoundError(
            f'{work_dir} holds no run with DynamicSparsityHook (no sparsity in '
            '*/vis_data/scalars.json)'
        )
    return {name: sorted(values.items()) for name, values in series.items()}


def draw(series: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Write the figure."""
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.5), width_ratios=(1, 1, 1.4), layout='constrained'
    )
    if 'sparsity/rate' in series:
        left.plot(*zip(*series['sparsity/rate'], strict=True), color='tab:blue', label='rate')
        left.set(xlabel='iteration', ylabel='adaptation rate', title='Updates', ylim=(0, None))
        moves = left.twinx()
        moves.plot(*zip(*series['sparsity/moves'], strict=True), color='tab:orange')
        moves.set(ylim=(0, None))
        moves.set_ylabel('weights moved', color='tab:orange')
        left.yaxis.label.set_color('tab:blue')
        middle.plot(*zip(*series['sparsity/explored'], strict=True), label='ever used')
        middle.plot(*zip(*series['sparsity/density'], strict=True), label='in use')
        middle.set(xlabel='iteration', title='Share of the weights', ylim=(0, 1.02))
        middle.legend()
    else:
        for panel in (left, middle):
            panel.text(0.5, 0.5, 'no updates: the masks are fixed', ha='center', va='center')
            panel.set_axis_off()
    layers = [(n.removeprefix('density/'), v[-1][1]) for n, v in series.items() if 'density/' in n]
    layers = [item for item in layers if item[0] != 'sparsity/density']
    positions = range(len(layers))
    right.barh(positions, [density for _, density in layers], color='tab:green')
    right.invert_yaxis()
    names = [name.removeprefix('backbone.').removesuffix('.weight') for name, _ in layers]
    right.set_yticks(positions, names, fontsize=max(2, min(7, 260 / len(layers))))
    right.set(xlabel='density', title='Density of each layer', xlim=(0, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


@guarded
def main() -> None:
    """Draw one work folder."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('work_dir', type=Path, help='folder that tools/train.py wrote')
    parser.add_argument('--out', type=Path, help='default: sparsity.png in the work folder')
    args = parser.parse_args()
    out = args.out or args.work_dir / 'sparsity.png'
    draw(read_scalars(args.work_dir), out)
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
