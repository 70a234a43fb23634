"""Compare kinds of sparse training, and dense training, on the sample data.

    python tools/analysis/sparsity_study.py --seeds 3

Trains SLaK-nano with UperNet, with the same number of iterations each: dynamic sparsity with width
factor 1.3 and random or gradient growth, the same with fixed masks, and a dense network with width
factor 1.0. Prints mean and standard deviation over the seeds, and writes them as JSON and Markdown.
After an interruption, the same command continues.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmslak.analysis.pages import markdown_table
from mmslak.cli.study import (
    Training,
    add_study_options,
    check_positive,
    mean_and_spread,
    run_study,
    summarise,
)
from mmslak.console import guarded
from mmslak.sample_data import write_sample_data

CONFIG = 'configs/sample/upernet_slak_nano_ade20k.py'
HOOK = 'default_hooks.sparsity'
#: Name in the table -> options of the config.
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
    """Run the trainings that are not finished, then report all."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_study_options(parser, 400, 'data/sample', 'work_dirs/sparsity_study')
    args = parser.parse_args()
    check_positive(args, 'seeds', 'iters', 'processes')
    write_sample_data(args.data)
    trainings = [
        training(number, seed, args.iters, args.data)
        for seed in range(args.seeds)
        for number in range(len(VARIANTS))
    ]
    run_study(trainings, args.work_dir, args.processes)
    found = summarise(trainings, args.work_dir)
    scores = {name: found[f'variant{number}'] for number, name in enumerate(VARIANTS)}

    table = Table('SLaK-nano', title=f'mIoU, %, after {args.iters} iterations on the sample data')
    for column in ('mean', 'standard deviation', *(f'seed {seed}' for seed in range(args.seeds))):
        table.add_column(column, justify='right')
    for name, by_seed in scores.items():
        values = list(by_seed.values())
        table.add_row(name, *(f'{value:.2f}' for value in (*mean_and_spread(values), *values)))
    console = Console(width=100)
    console.print(table)
    (args.work_dir / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    (args.work_dir / 'scores.md').write_text(markdown_table(table))
    console.print(f'written to {args.work_dir / "scores.md"} and scores.json')


if __name__ == '__main__':
    main()
