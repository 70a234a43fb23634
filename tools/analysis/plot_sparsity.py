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

from mmslak.analysis.curve_figures import draw_sparsity, read_sparsity
from mmslak.console import guarded


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
    figure = draw_sparsity(read_sparsity(args.work_dir))
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
    plt.close(figure)
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
