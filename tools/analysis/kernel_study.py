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

import matplotlib
from rich.console import Console

from mmslak.analysis.paper import KERNEL_SIZES
from mmslak.cli.kernel_grid import Grid, report
from mmslak.cli.study import Training, add_study_options, check_positive, run_study, summarise
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


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_study_options(parser, 800, 'data/kernel_study', 'work_dirs/kernel_study')
    parser.add_argument('--batch', type=int, default=4, help='images per iteration')
    parser.add_argument('--lr', type=float, default=2e-2, help='highest learning rate')
    parser.add_argument('--images', type=int, default=1600, help='scenes; one in five validates')
    parser.add_argument('--size', type=int, default=96, help='longer side of a scene in pixels')
    parser.add_argument('--kernels', type=int, nargs='+', choices=KERNELS, default=list(KERNELS))
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--sets', nargs='+', choices=DATA, default=list(DATA))
    parser.add_argument('--densities', nargs='+', choices=DENSITIES, default=list(DENSITIES))
    parser.add_argument(
        '--report', action='store_true', help='report finished trainings without starting others'
    )
    args = parser.parse_args()
    check_positive(args, 'seeds', 'iters', 'batch', 'lr', 'processes')
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
    name = Grid.name(data, kernel, mode, density)
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


def grid_of(args: argparse.Namespace) -> Grid:
    """Return the networks of the study."""
    cues = dict(plain='no cue', context='distant cue')
    return Grid(
        sets={data: cues[data] for data in args.sets},
        kernels=args.kernels,
        modes=args.modes,
        densities={density: f'{DENSITIES[density]}x wide' for density in args.densities},
    )


@guarded
def main() -> None:
    """Run the trainings that are not finished, then report all."""
    args = parse_args()
    matplotlib.use('Agg')
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
        run_study(trainings, args.work_dir, args.processes)
    what = f'mIoU, %, {args.iters} iterations of {args.batch} scenes of {args.size} pixels'
    report(
        summarise(trainings, args.work_dir),
        grid_of(args),
        args.work_dir,
        console,
        table_title=f'SLaK-nano, {what}',
        title=f'SLaK-nano on the sample data, {args.iters} iterations',
    )
    done = [result for t in trainings if (result := t.result(args.work_dir))]
    minutes = sum(result['seconds'] for result in done) / 60
    console.print(
        f'{len(done)} of {len(trainings)} trainings are finished; one after another they took '
        f'{minutes:.0f} minutes'
    )


if __name__ == '__main__':
    main()
