"""Does the paper's ordering hold at a small scale? Kernels of 7, 31 and 51 in the three modes.

    python tools/analysis/kernel_study.py --processes 2

Trains SLaK-nano on the sample data with and without --context (where the classes of objects depend
on a small cue far away), with the same number of iterations each: kernel sizes 7, 31 and 51, modes
naive, reparam and decomposed, dense with width factor 1.0 and 40 % sparse with width factor 1.3,
three seeds. The head has 1 x 1 convolutions only. Prints mean and standard deviation over the seeds
and draws them. After an interruption, the same command continues.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from mmslak.analysis.latency import machine
from mmslak.analysis.paper import KERNEL_SIZES
from mmslak.cli.study import (
    Training,
    markdown_table,
    mean_and_spread,
    paired_differences,
    run_study,
    summarise,
)
from mmslak.console import guarded, progress_bar
from mmslak.models import MODES, SLaK
from mmslak.sample_data import classes_of, write_sample_data

CONFIG = 'configs/sample/kernel_study_nano_ade20k.py'
HOOK = 'default_hooks.sparsity'
#: Kernel sizes of the first stage that are compared.
KERNELS = (7, 31, 51)
DATA = ('plain', 'context')
#: Width factor of dense and of sparse networks.
DENSITIES = {'dense': 1.0, 'sparse': 1.3}
#: Rough relative duration of a training with PyTorch's own convolutions on a CPU.
COSTS = {
    (mode, kernel): 1 + share * kernel ** (1 if mode == 'decomposed' else 2)
    for kernel in KERNELS
    for mode, share in (('naive', 1e-3), ('reparam', 1e-3), ('decomposed', 5e-3))
}
#: Scores by name of the network and seed.
Scores = dict[str, dict[int, float]]


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--seeds', type=int, default=3, help='number of seeds of each network')
    parser.add_argument('--iters', type=int, default=800, help='iterations of each training')
    parser.add_argument('--batch', type=int, default=4, help='images per iteration')
    parser.add_argument('--lr', type=float, default=2e-2, help='highest learning rate')
    parser.add_argument('--images', type=int, default=1600, help='scenes; one in five validates')
    parser.add_argument('--size', type=int, default=96, help='longer side of a scene in pixels')
    parser.add_argument('--kernels', type=int, nargs='+', choices=KERNELS, default=list(KERNELS))
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--sets', nargs='+', choices=DATA, default=list(DATA))
    parser.add_argument('--densities', nargs='+', choices=DENSITIES, default=list(DENSITIES))
    parser.add_argument('--processes', type=int, default=1, help='number of trainings at a time')
    parser.add_argument(
        '--report', action='store_true', help='report finished trainings without starting others'
    )
    parser.add_argument('--data', type=Path, default=Path('data/kernel_study'))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/kernel_study'))
    args = parser.parse_args()
    for name in ('seeds', 'iters', 'batch', 'lr', 'processes'):
        if getattr(args, name) <= 0:
            raise ValueError(f'--{name} must be positive, got {getattr(args, name)}')
    return args


def training(
    data: str, kernel: int, mode: str, density: str, seed: int, args: argparse.Namespace
) -> Training:
    """Describe one training of the study."""
    factor = DENSITIES[density]
    with_widths = SLaK('nano', KERNEL_SIZES[kernel], width_factor=factor, mode=mode)
    widths = str(list(with_widths.widths)).replace(' ', '')
    classes = str(list(classes_of(data == 'context'))).replace(' ', '').replace("'", '')
    root = (args.data / data / 'ADEChallengeData2016').as_posix()
    options = [
        f'data_root={root}',
        f'randomness.seed={seed}',
        f'train_cfg.max_iters={args.iters}',
        f'train_cfg.val_interval={args.iters}',
        # Only the curves of a hundred trainings are kept.
        'default_hooks.checkpoint.interval=-1',
        'default_hooks.checkpoint.save_last=False',
        'default_hooks.checkpoint.save_best=None',
        f'param_scheduler.0.end={max(1, args.iters // 10)}',
        f'param_scheduler.1.end={args.iters}',
        f'train_dataloader.batch_size={args.batch}',
        f'optim_wrapper.optimizer.lr={args.lr}',
        f'model.data_preprocessor.size=({args.size},{args.size})',
        f'model.backbone.mode={mode}',
        f'model.backbone.kernel_sizes={KERNEL_SIZES[kernel]}'.replace(' ', ''),
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
    """Write the scenes, unless they are there already."""
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
                    f'{folder} does not contain these scenes: choose another directory with --data'
                ) from error


def draw(scores: Scores, args: argparse.Namespace, path: Path, title: str) -> None:
    """Draw the means over kernel sizes, with a panel for each dataset and density."""
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
    lines = {}
    for (row, data), (column, density) in itertools.product(enumerate(sets), enumerate(densities)):
        panel = panels[row, column]
        lines |= draw_panel(panel, scores, args.kernels, data, density)
        if column == 0:
            panel.set_ylabel('mIoU, %')
    figure.legend(lines.values(), lines.keys(), loc='outside lower center', ncols=len(MODES))
    for panel in panels[-1]:
        panel.set_xlabel('kernel of the first stage')
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_panel(panel, scores: Scores, kernels: list[int], data: str, density: str) -> dict:
    """Draw mean, standard deviation and values of each mode, and return the lines by mode."""
    lines = {}
    for shift, (mode, marker) in enumerate(zip(MODES, 'osD', strict=True)):
        found = [(i, scores.get(f'{data}-{k}-{mode}-{density}')) for i, k in enumerate(kernels)]
        # Modes are drawn next to each other.
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
    cue = 'distant cue' if data == 'context' else 'no cue'
    panel.set_title(f'{cue}, {density}, {DENSITIES[density]}x wide', fontsize=10)
    panel.set_xticks(range(len(kernels)), [f'{k} x {k}' for k in kernels])
    panel.set_xlim(-0.3, len(kernels) - 0.7)
    panel.grid(alpha=0.3)
    return lines


def score_table(scores: Scores, args: argparse.Namespace) -> Table:
    """Make the table of mean scores."""
    what = f'mIoU, %, {args.iters} iterations of {args.batch} scenes of {args.size} pixels'
    table = Table(title=f'SLaK-nano, {what}; mean ± standard deviation (seeds)')
    for column in ('data', 'density', 'mode'):
        table.add_column(column)
    for kernel in args.kernels:
        table.add_column(f'{kernel} x {kernel}', justify='right')
    for data, density, mode in itertools.product(args.sets, args.densities, args.modes):
        cells = []
        for kernel in args.kernels:
            by_seed = scores.get(f'{data}-{kernel}-{mode}-{density}')
            if by_seed:
                mean, spread = mean_and_spread(by_seed.values())
                cells.append(f'{mean:.2f} ± {spread:.2f} ({len(by_seed)})')
            else:
                cells.append('-')
        table.add_row(data, f'{density}, {DENSITIES[density]}x wide', mode, *cells)
    return table


def comparisons(args: argparse.Namespace) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the comparisons of the paper: a description, and pairs of networks without their data.

    The pairs of a comparison differ in density, kernel or mode.
    """
    smallest, largest = min(args.kernels), max(args.kernels)
    if largest > smallest:
        for mode in args.modes:
            yield (
                f'{mode}: {largest} x {largest} over {smallest} x {smallest}',
                [
                    (f'{largest}-{mode}-{density}', f'{smallest}-{mode}-{density}')
                    for density in args.densities
                ],
            )
    for mode in ('naive', 'reparam'):
        if {'decomposed', mode} <= set(args.modes):
            for kernel in args.kernels:
                yield (
                    f'{kernel} x {kernel}: decomposed over {mode}',
                    [
                        (f'{kernel}-decomposed-{density}', f'{kernel}-{mode}-{density}')
                        for density in args.densities
                    ],
                )
    if {'dense', 'sparse'} <= set(args.densities):
        yield (
            'sparse and wide over dense and narrow',
            [
                (f'{kernel}-{mode}-sparse', f'{kernel}-{mode}-dense')
                for kernel, mode in itertools.product(args.kernels, args.modes)
            ],
        )


def difference_table(scores: Scores, args: argparse.Namespace) -> Table:
    """Make the table of differences between two networks of the same seed."""
    table = Table(
        'compared with the same seed',
        title='Difference in mIoU: mean ± standard error (pairs in favour)',
    )
    for data in args.sets:
        table.add_column(data, justify='right')
    for what, pairs in comparisons(args):
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


def report(scores: Scores, args: argparse.Namespace, console: Console) -> None:
    """Print both tables, and write them with the scores and the figure."""
    tables = [score_table(scores, args), difference_table(scores, args)]
    for table in tables:
        console.print(table)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    (args.work_dir / 'scores.json').write_text(json.dumps(scores, indent=2) + '\n')
    (args.work_dir / 'scores.md').write_text('\n'.join(map(markdown_table, tables)))
    draw(
        scores,
        args,
        args.work_dir / 'kernel_study.png',
        f'SLaK-nano on the sample data, {args.iters} iterations',
    )
    console.print(f'written to {args.work_dir}: scores.md, scores.json, kernel_study.png')


@guarded
def main() -> None:
    """Run the trainings that are not finished, then report all."""
    args = parse_args()
    console = Console(width=110)
    # All networks with one seed, then the next seed, so that an interrupted study is comparable.
    trainings = [
        training(data, kernel, mode, density, seed, args)
        for seed in range(args.seeds)
        for kernel, data, mode, density in itertools.product(
            args.kernels, args.sets, args.modes, args.densities
        )
    ]
    if not args.report:
        summarise(trainings, args.work_dir)  # raises if the directory is of another study
        make_data(args)
        begin = time.perf_counter()
        run_study(trainings, args.work_dir, args.processes)
        minutes = (time.perf_counter() - begin) / 60
        console.print(
            f'{minutes:.0f} minutes for the trainings of this run, {args.processes} at a time, '
            f'{os.cpu_count()} cores, {machine()}'
        )
    report(summarise(trainings, args.work_dir), args, console)
    done = [result for t in trainings if (result := t.result(args.work_dir))]
    minutes = sum(result['seconds'] for result in done) / 60
    console.print(
        f'{len(done)} of {len(trainings)} trainings are finished; one after another they took '
        f'{minutes:.0f} minutes'
    )


if __name__ == '__main__':
    main()
