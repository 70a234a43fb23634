"""Compare ways of being sparse, and being dense, on the sample data.

    python tools/analysis/sparsity_study.py --seeds 3

Trains SLaK-nano with UperNet, the same length each time: dynamic sparsity at 1.3x width with
random and with gradient growth, the same masks never moved, and a dense network at 1.0x width.
Prints mean and spread over the seeds, and writes them as JSON and Markdown. The same command goes
on after an interruption.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmslak.cli.study import Training, mean_and_spread, run_study, summarise
from mmslak.console import guarded
from mmslak.sample_data import write_sample_data

CONFIG = 'configs/sample/upernet_slak_nano_ade20k.py'
HOOK = 'default_hooks.sparsity'
#: name -> options of the config. 1.0x is the width before the paper's factor.
VARIANTS = {
    'sparse 0.4, 1.3x wide, random growth': [],
    'sparse 0.4, 1.3x wide, gradient growth': [f'{HOOK}.update.grow=gradient'],
    'sparse 0.4, 1.3x wide, masks never moved': [f'{HOOK}.mode=fixed', f'{HOOK}.init=random'],
    'dense, 1.0x wide': [
        f'{HOOK}.mode=off',
        'model.backbone.width_factor=1.0',
        'model.decode_head.in_channels=[16,32,64,128]',
        'model.auxiliary_head.in_channels=64',
    ],
}


def training(number: int, seed: int, iters: int, data: Path) -> Training:
    """Describe the training of one variant, by its number, with one seed."""
    options = [
        *list(VARIANTS.values())[number],
        f'data_root={data / "ADEChallengeData2016"}',
        f'randomness.seed={seed}',
        f'{HOOK}.seed={seed}',
        f'train_cfg.max_iters={iters}',
        f'train_cfg.val_interval={iters}',
        f'default_hooks.checkpoint.interval={iters}',
        f'param_scheduler.1.end={iters}',
    ]
    return Training(f'variant{number}', seed, CONFIG, options)


@guarded
def main() -> None:
    """Run the study; finished trainings of an interrupted one are not repeated."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each variant')
    parser.add_argument('--iters', type=int, default=400, help='iterations of each training')
    parser.add_argument('--processes', type=int, default=1, help='trainings at a time')
    parser.add_argument('--data', type=Path, default=Path('data/sample'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/sparsity_study'))
    args = parser.parse_args()
    write_sample_data(args.data)
    console = Console(width=100)
    trainings = [
        training(number, seed, args.iters, args.data)
        for seed in range(args.seeds)
        for number in range(len(VARIANTS))
    ]
    run_study(trainings, args.work_dir, args.processes)
    found = summarise(trainings, args.work_dir)
    scores = {name: found[f'variant{number}'] for number, name in enumerate(VARIANTS)}

    table = Table('SLaK-nano', title=f'mIoU, %, after {args.iters} iterations on the sample data')
    columns = ('mean', 'standard deviation', *(f'seed {seed}' for seed in range(args.seeds)))
    for column in columns:
        table.add_column(column, justify='right')
    lines = ['| SLaK-nano | ' + ' | '.join(columns) + ' |', '|---' * (len(columns) + 1) + '|']
    for name, values in scores.items():
        cells = [f'{value:.2f}' for value in (*mean_and_spread(values), *values)]
        table.add_row(name, *cells)
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    console.print(table)
    (args.work_dir / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    (args.work_dir / 'scores.md').write_text('\n'.join(lines) + '\n')
    console.print(f'written to {args.work_dir / "scores.md"} and scores.json')


if __name__ == '__main__':
    main()
