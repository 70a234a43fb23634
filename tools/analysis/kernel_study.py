"""Does the paper's ordering show at a small scale? Kernels of 7, 31 and 51 in the three modes.

    python tools/analysis/kernel_study.py --processes 2

Trains SLaK-nano on the sample data with and without --context (where the class of all objects
depends on a small cue far away), the same length each time: kernel sizes 7, 31 and 51, modes
naive, reparam and decomposed, dense at 1.0x width and 40 % sparse at 1.3x width, three seeds. The
head mixes nothing over space. Prints mean and standard deviation over the seeds and draws them.
The same command goes on after an interruption.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from mmslak.analysis.latency import machine
from mmslak.cli.study import (
    Training,
    mean_and_spread,
    paired_differences,
    run_study,
    summarise,
)
from mmslak.console import guarded, progress_bar
from mmslak.models import MODES, SLaK
from mmslak.sample_data import write_sample_data
from mmslak.sample_data.scenes import classes_of

CONFIG = 'configs/sample/kernel_study_nano_ade20k.py'
HOOK = 'default_hooks.sparsity'
#: Kernels of the four stages by that of the first, as in the paper's tables 1 and 2.
KERNELS = {7: (7, 7, 7, 7), 31: (31, 29, 27, 13), 51: (51, 49, 47, 13)}
DATA = ('plain', 'context')
#: How many of the weights are there, and how wide the network is.
DENSITIES = {'dense': 1.0, 'sparse': 1.3}
#: Seconds beside each other, roughly, as PyTorch's own kernels take on a CPU.
COSTS = {
    (mode, kernel): 1 + share * kernel ** (1 if mode == 'decomposed' else 2)
    for kernel in KERNELS
    for mode, share in (('naive', 1e-3), ('reparam', 1e-3), ('decomposed', 5e-3))
}


def training(
    data: str, kernel: int, mode: str, density: str, seed: int, args: argparse.Namespace
) -> Training:
    """Describe one training of the study."""
    factor = DENSITIES[density]
    with_widths = SLaK('nano', KERNELS[kernel], width_factor=factor, mode=mode)
    widths = str(list(with_widths.widths)).replace(' ', '')
    classes = str(list(classes_of(data == 'context'))).replace(' ', '').replace("'", '')
    root = (args.data / data / 'ADEChallengeData2016').as_posix()
    options = [
        f'data_root={root}',
        f'randomness.seed={seed}',
        f'train_cfg.max_iters={args.iters}',
        f'train_cfg.val_interval={args.iters}',
        # Nothing is kept of a hundred trainings but their curves.
        'default_hooks.checkpoint.interval=-1',
        'default_hooks.checkpoint.save_last=False',
        'default_hooks.checkpoint.save_best=None',
        f'param_scheduler.0.end={max(1, args.iters // 10)}',
        f'param_scheduler.1.end={args.iters}',
        f'train_dataloader.batch_size={args.batch}',
        f'optim_wrapper.optimizer.lr={args.lr}',
        f'model.data_preprocessor.size=({args.size},{args.size})',
        f'model.backbone.mode={mode}',
        f'model.backbone.kernel_sizes={KERNELS[kernel]}'.replace(' ', ''),
        f'model.backbone.width_factor={factor}',
        f'model.decode_head.in_channels={widths}',
        *(
            f'{split}_dataloader.dataset.metainfo.classes={classes}'
            for split in ('train', 'val', 'test')
        ),
    ]
    if density == 'dense':
        options.append(f'{HOOK}.mode=off')
    else:
        options += [f'{HOOK}.seed={seed}', f'{HOOK}.update.every={max(1, args.iters // 16)}']
    name = f'{data}-{kernel}-{mode}-{density}'
    scenes = dict(images=args.images, size=args.size, context=data == 'context')
    return Training(name, seed, CONFIG, options, COSTS[mode, kernel], data=scenes)


def make_data(args: argparse.Namespace) -> None:
    """Write the scenes to train on, where they are not there yet."""
    for data in args.sets:
        folder = args.data / data
        with progress_bar() as bar:
            task = bar.add_task(f'scenes, {data}', total=args.images)
            try:
                write_sample_data(
                    folder,
                    images=args.images,
                    size=args.size,
                    context=data == 'context',
                    progress=lambda done, _, bar=bar, task=task: bar.update(task, completed=done),
                )
            except FileExistsError as error:
                raise ValueError(
                    f'{folder} holds something else than these scenes: give another --data'
                ) from error


def draw(
    scores: dict[str, dict[int, float]], args: argparse.Namespace, path: Path, title: str
) -> None:
    """Draw the means over kernel sizes, a panel for each data set and density."""
    sets, densities = args.sets, args.densities
    figure, panels = plt.subplots(
        len(sets),
        len(densities),
        figsize=(1 + 3.8 * len(densities), 1.2 + 2.6 * len(sets)),
        sharex=True,
        sharey='row',
        squeeze=False,
        layout='constrained',
    )
    kernels, lines = args.kernels, {}
    for (row, data), (column, density) in itertools.product(enumerate(sets), enumerate(densities)):
        panel = panels[row, column]
        for shift, (mode, marker) in enumerate(zip(MODES, 'osD', strict=True)):
            found = [(i, scores.get(f'{data}-{k}-{mode}-{density}')) for i, k in enumerate(kernels)]
            found = [(i + 0.06 * (shift - 1), list(by.values())) for i, by in found if by]
            if not found:
                continue
            summary = [mean_and_spread(values) for _, values in found]
            colour = f'C{shift}'
            lines[mode] = panel.errorbar(
                [x for x, _ in found],
                [mean for mean, _ in summary],
                [spread for _, spread in summary],
                marker=marker,
                capsize=3,
                color=colour,
            )
            for x, values in found:
                panel.plot([x] * len(values), values, '.', color=colour, alpha=0.4, markersize=5)
        panel.set_title(
            f'{"distant cue" if data == "context" else "no cue"}, {density}, '
            f'{DENSITIES[density]}x wide',
            fontsize=10,
        )
        panel.set_xticks(range(len(kernels)), [f'{k} x {k}' for k in kernels])
        panel.set_xlim(-0.3, len(kernels) - 0.7)
        panel.grid(alpha=0.3)
        if column == 0:
            panel.set_ylabel('mIoU, %')
    figure.legend(lines.values(), lines.keys(), loc='outside lower center', ncols=len(MODES))
    for panel in panels[-1]:
        panel.set_xlabel('kernel of the first stage')
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


@guarded
def main() -> None:
    """Train what is not trained yet, then report."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seeds', type=int, default=3, help='trainings of each network')
    parser.add_argument('--iters', type=int, default=800, help='iterations of each training')
    parser.add_argument('--batch', type=int, default=4, help='images an iteration')
    parser.add_argument('--lr', type=float, default=2e-2, help='learning rate at its peak')
    parser.add_argument('--images', type=int, default=1600, help='scenes, one in five to validate')
    parser.add_argument('--size', type=int, default=96, help='longer side of a scene, pixels')
    parser.add_argument('--kernels', type=int, nargs='+', choices=KERNELS, default=list(KERNELS))
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--sets', nargs='+', choices=DATA, default=list(DATA))
    parser.add_argument('--densities', nargs='+', choices=DENSITIES, default=list(DENSITIES))
    parser.add_argument('--processes', type=int, default=1, help='trainings at a time')
    parser.add_argument('--report', action='store_true', help='train nothing, report what is there')
    parser.add_argument('--data', type=Path, default=Path('data/kernel_study'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/kernel_study'))
    args = parser.parse_args()
    if min(args.seeds, args.iters, args.batch, args.lr, args.processes) <= 0:
        raise ValueError('--seeds, --iters, --batch, --lr and --processes must be positive')
    console = Console(width=110)
    # A seed of all networks before the next: what an interrupted study has is comparable.
    trainings = [
        training(data, kernel, mode, density, seed, args)
        for seed in range(args.seeds)
        for kernel, data, mode, density in itertools.product(
            args.kernels, args.sets, args.modes, args.densities
        )
    ]
    if not args.report:
        summarise(trainings, args.work_dir)  # raises where the folder is of another study
        make_data(args)
        begin = time.perf_counter()
        run_study(trainings, args.work_dir, args.processes)
        minutes = (time.perf_counter() - begin) / 60
        console.print(
            f'{minutes:.0f} minutes for what was not there yet, {args.processes} training(s) at a '
            f'time, {os.cpu_count()} cores, {machine()}'
        )
    report(summarise(trainings, args.work_dir), args, console)
    done = [result for t in trainings if (result := t.result(args.work_dir))]
    minutes = sum(result['seconds'] for result in done) / 60
    console.print(
        f'{len(done)} of {len(trainings)} trainings are done; one after another they took '
        f'{minutes:.0f} minutes'
    )


def orderings(scores: dict[str, dict[int, float]], args: argparse.Namespace) -> Table:
    """Compare networks as the paper does, each with its counterpart of the same seed."""
    smallest, largest = min(args.kernels), max(args.kernels)
    table = Table(
        'compared with the same seed',
        title='Difference in mIoU: mean ± standard error (pairs in favour)',
    )
    for data in args.sets:
        table.add_column(data, justify='right')
    # What is compared, then the two networks for each density, kernel and mode in turn.
    comparisons: dict[str, list[tuple[str, str]]] = {}
    if largest > smallest:
        for mode in args.modes:
            comparisons[f'{mode}: {largest} x {largest} over {smallest} x {smallest}'] = [
                (f'{largest}-{mode}-{density}', f'{smallest}-{mode}-{density}')
                for density in args.densities
            ]
    for mode in ('naive', 'reparam'):
        if {'decomposed', mode} <= set(args.modes):
            for kernel in args.kernels:
                comparisons[f'{kernel} x {kernel}: decomposed over {mode}'] = [
                    (f'{kernel}-decomposed-{density}', f'{kernel}-{mode}-{density}')
                    for density in args.densities
                ]
    if {'dense', 'sparse'} <= set(args.densities):
        comparisons['sparse and wide over dense and narrow'] = [
            (f'{kernel}-{mode}-sparse', f'{kernel}-{mode}-dense')
            for kernel, mode in itertools.product(args.kernels, args.modes)
        ]
    for what, pairs in comparisons.items():
        cells = []
        for data in args.sets:
            named = [(f'{data}-{first}', f'{data}-{second}') for first, second in pairs]
            values = paired_differences(scores, named)
            if values:
                mean, spread = mean_and_spread(values)
                error = spread / len(values) ** 0.5
                better = sum(value > 0 for value in values)
                cells.append(f'{mean:+.2f} ± {error:.2f} ({better} of {len(values)})')
            else:
                cells.append('-')
        table.add_row(what, *cells)
    return table


def report(scores: dict[str, dict[int, float]], args: argparse.Namespace, console: Console) -> None:
    """Print the table and write table, figure and numbers."""
    what = f'mIoU, %, {args.iters} iterations of {args.batch} scenes of {args.size} pixels'
    table = Table(title=f'SLaK-nano, {what}; mean ± standard deviation (seeds)')
    columns = ['data', 'density', 'mode', *(f'{k} x {k}' for k in args.kernels)]
    for number, column in enumerate(columns):
        table.add_column(column, justify='left' if number < 3 else 'right')
    lines = ['| ' + ' | '.join(columns) + ' |', '|---|---|---|' + '---:|' * len(args.kernels)]
    for data, density, mode in itertools.product(args.sets, args.densities, args.modes):
        cells = []
        for kernel in args.kernels:
            by_seed = scores.get(f'{data}-{kernel}-{mode}-{density}')
            if by_seed:
                mean, spread = mean_and_spread(by_seed.values())
                cells.append(f'{mean:.2f} ± {spread:.2f} ({len(by_seed)})')
            else:
                cells.append('-')
        row = (data, f'{density}, {DENSITIES[density]}x wide', mode, *cells)
        table.add_row(*row)
        lines.append('| ' + ' | '.join(row) + ' |')
    console.print(table)
    console.print(orders := orderings(scores, args))
    lines += [
        '',
        '| ' + ' | '.join(str(column.header) for column in orders.columns) + ' |',
        '|---|' + '---:|' * (len(orders.columns) - 1),
        *(f'| {" | ".join(row)} |' for row in zip(*(c.cells for c in orders.columns), strict=True)),
    ]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    (args.work_dir / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    (args.work_dir / 'scores.md').write_text('\n'.join(lines) + '\n')
    draw(
        scores,
        args,
        args.work_dir / 'kernel_study.png',
        f'SLaK-nano on the sample data, {args.iters} iterations',
    )
    console.print(f'written to {args.work_dir}: scores.md, scores.json, kernel_study.png')


if __name__ == '__main__':
    main()
