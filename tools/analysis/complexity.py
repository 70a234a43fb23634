"""Count the parameters and multiply-adds of configs, dense and sparse, and compare with the paper.

    python tools/analysis/complexity.py configs/upernet_slak_*.py configs/baselines/upernet_*.py

With `--allocation snip`, SNIP scores one batch of each config's training data with the loss of its
untrained model. Without ImageNet's training images, use the validation images:
`--cfg-options data_root=PATH train_dataloader.dataset.split=val
train_dataloader.dataset.ann_file=meta/val.txt`.
"""

import argparse
import json
from pathlib import Path

from mmengine.config import DictAction
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmslak.analysis.complexity import config_costs, config_sparsity, default_shape, format_count
from mmslak.analysis.paper import row_of_config
from mmslak.analysis.paper_differences import FAR, QUANTITIES, reason_for
from mmslak.analysis.snip_allocation import allocate_by_training_batch
from mmslak.cli.config import load_config
from mmslak.console import guarded

CONVENTION = (
    'Each multiply-add counts once, including those on padding: the convolutions and matrix '
    'products, including those of attention, that run at test time. Detectors have 1000 proposals '
    'and 100 masks. Sparse: without the masked weights; '
)
ALLOCATIONS = {
    'uniform': 'every layer of the backbone has the same density (uniform).',
    'snip': 'SNIP chooses the density of each layer from one batch of the training data.',
}
#: The same in the tables of the paper.
PAPER_ALLOCATIONS = {'uniform': 'uniform', 'snip': 'SNIP'}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config of any toolbox')
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='height and width of the image (default: those of the paper for each task, 800 1280, '
        '512 2048 or 224 224)',
    )
    parser.add_argument(
        '--sparsity',
        type=float,
        help="sparsity of the backbone (default: that of the config's DynamicSparsityHook, or 0.4)",
    )
    parser.add_argument(
        '--allocation',
        choices=list(ALLOCATIONS),
        default='uniform',
        help='how the sparsity is distributed over the layers; snip needs the training data '
        '(default: uniform)',
    )
    parser.add_argument(
        '--batch',
        type=int,
        default=16,
        help='number of training images that SNIP scores (default: 16)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of all configs',
    )
    parser.add_argument('--json', action='store_true', help='print the numbers as JSON')
    return parser.parse_args()


def count(path: str, args: argparse.Namespace) -> dict:
    """Count the model of one config."""
    cfg = load_config(path, args.cfg_options)
    shape = tuple(args.shape or default_shape(cfg))
    sparsity = config_sparsity(cfg) if args.sparsity is None else args.sparsity
    kept = None
    if args.allocation == 'snip' and sparsity:
        kept = allocate_by_training_batch(cfg, args.batch, sparsity)
    return dict(config=path, shape=list(shape), **config_costs(cfg, shape, sparsity, kept))


def make_table(rows: list[dict], allocation: str, compare: bool) -> tuple[Table, list[str]]:
    """Make the table, and a note for each number that is more than 3 % away from the paper's.

    Args:
        rows (list[dict]): From :func:`count`.
        allocation (str): A key of :data:`ALLOCATIONS`.
        compare (bool): Compare with the paper; not with other settings than the configs'.
    """
    table = Table('config', 'H x W')
    for quantity in ('params dense, M', 'GMACs dense'):
        for column in (quantity, 'sparse', 'paper', '%'):
            table.add_column(column, justify='right')
    table.add_column('executed', justify='right')
    notes = []
    for row in rows:
        name = Path(row['config']).stem
        cells = [name, ' x '.join(map(str, row['shape']))]
        number, paper = (row_of_config(name) if compare else None) or (None, None)
        for quantity, key, unit in (('params', 'params', 1e6), ('gmacs', 'macs', 1e9)):
            dense, sparse = row[f'{key}_dense'] / unit, row[f'{key}_sparse'] / unit
            cells += [format_count(dense), format_count(sparse)]
            value = getattr(paper, quantity) if paper else None
            if value is None:
                cells += ['-', '-']
                continue
            difference = (sparse if paper.sparsity else dense) / value - 1
            cells += [str(value), f'{difference:+.1%}']
            if abs(difference) > FAR:
                used = PAPER_ALLOCATIONS[allocation] if paper.sparsity else 'dense'
                reason = reason_for(number, paper.label, quantity, used)
                notes.append(f'{name}, {QUANTITIES[quantity][0]}, {difference:+.1%}: {reason}')
        table.add_row(*cells, format_count(row['macs_executed'] / 1e9))
    return table, notes


@guarded
def main() -> None:
    """Count the configs, and print a table or JSON."""
    args = parse_args()
    # MMEngine logs how every parameter is initialised.
    MMLogger.get_current_instance().setLevel('WARNING')
    rows = [count(path, args) for path in args.configs]
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    compare = args.shape is None and args.sparsity is None and args.cfg_options is None
    table, notes = make_table(rows, args.allocation, compare)
    console = Console(width=140)
    console.print(table)
    console.print(CONVENTION + ALLOCATIONS[args.allocation])
    console.print(
        'Executed: multiply-adds of the merged network, which computes with the zeros of masked '
        "weights. Only masked neurons (structure='neuron') are removed."
    )
    console.print('%: our sparse numbers for SLaK, our dense numbers for other networks.')
    for note in notes:
        console.print(f'More than 3 % away: {note}')


if __name__ == '__main__':
    main()
