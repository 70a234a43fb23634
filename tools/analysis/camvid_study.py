"""Do large kernels help on real images? Kernels of 7, 31 and 51 in the three modes on CamVid.

    python tools/analysis/camvid_study.py --processes 2

Trains SLaK-nano with a head of 1 x 1 convolutions at 240 x 180 on data/camvid, which
tools/prepare_camvid.py writes: kernel sizes 7, 31 and 51, modes naive, reparam and decomposed,
dense and 40 % sparse and wider, and MMPretrain's ConvNeXt with the same depths, three seeds. Widths
are chosen so that all networks have as many active parameters as the dense decomposed one with
51 x 51 kernels. Prints mean and standard deviation over the seeds and draws them. After an
interruption, the same command continues.

    python tools/analysis/camvid_study.py --structures --processes 2

What do structured zeros cost? Trains the same network with decomposed 51 x 51 kernels, in which
every layer is 50 % sparse: without a structure, with neurons, with taps and with 2:4 sparsity, and
with both rules for the moments of grown weights.
"""

import argparse
import bisect
import dataclasses
import itertools
import json
from functools import cache

import matplotlib
import torch
from mmengine.config import Config, DictAction
from rich.console import Console

from mmslak.analysis.paper import KERNEL_SIZES, SPARSITY
from mmslak.cli.config import load_config
from mmslak.cli.kernel_grid import CAMVID, CAMVID_PEER, Grid, report, summary
from mmslak.cli.structure_grid import STRUCTURES, active_weights, report_structures
from mmslak.cli.study import Training, add_study_options, check_positive, run_study, summarise
from mmslak.console import guarded
from mmslak.models import SLaK, build_model
from mmslak.sparsity import select_model_targets

CONFIG = 'configs/analysis/kernel_study_nano_camvid.py'
HOOK = 'default_hooks.sparsity'
#: Relative duration of a training.
COSTS = {
    (mode, kernel): 1 + share * kernel
    for kernel in CAMVID.kernels
    for mode, share in (('naive', 2e-3), ('reparam', 3e-3), ('decomposed', 3e-3))
}
#: Sparsity of all weights that can be masked. 2:4 sparsity needs one half.
SPARSITIES = {'dense': 0.0, 'sparse': SPARSITY, 'half': 0.5}
#: Width factors that are tried.
FACTORS = [i / 100 for i in range(30, 201)]


@cache
def head_channels() -> int:
    """Return the channels of the head."""
    return load_config(CONFIG).model.decode_head.channels


def active_parameters(kernel: int, mode: str, density: str, factor: float) -> int:
    """Count the active parameters of a backbone and of the layer of the head that depends on it."""
    with torch.device('meta'):
        model = torch.nn.ModuleDict(
            dict(backbone=SLaK('nano', KERNEL_SIZES[kernel], width_factor=factor, mode=mode))
        )
    head = head_channels() * sum(model.backbone.widths)
    count = sum(parameter.numel() for parameter in model.parameters()) + head
    masked = sum(weight.numel() for weight in select_model_targets(model).values())
    return count - round(SPARSITIES[density] * masked)


@cache
def width_factor(kernel: int, mode: str, density: str) -> float:
    """Return the width factor with which a network has as many active parameters as the others."""
    target = active_parameters(max(CAMVID.kernels), 'decomposed', 'dense', 1.0)

    def excess(factor: float) -> int:
        return active_parameters(kernel, mode, density, factor) - target

    above = bisect.bisect_left(FACTORS, 0, key=excess)
    return min(FACTORS[above - 1 : above + 1], key=lambda factor: abs(excess(factor)))


def shared_options(seed: int, args: argparse.Namespace) -> list[str]:
    """Return the options that all trainings share."""
    warm_up = max(1, args.iters // 10)
    return [
        f'data_root={args.data.as_posix()}',
        f'randomness.seed={seed}',
        f'train_cfg.max_iters={args.iters}',
        f'train_cfg.val_interval={args.iters}',
        f'param_scheduler.0.end={warm_up}',
        f'param_scheduler.1.begin={warm_up}',
        f'param_scheduler.1.end={args.iters}',
    ]


def training(kernel: int, mode: str, density: str, seed: int, args: argparse.Namespace) -> Training:
    """Describe one training of SLaK."""
    factor = width_factor(kernel, mode, density)
    widths = SLaK('nano', width_factor=factor).widths
    options = [
        *shared_options(seed, args),
        f'model.backbone.mode={mode}',
        f'model.backbone.kernel_sizes={KERNEL_SIZES[kernel]}'.replace(' ', ''),
        f'model.backbone.width_factor={factor}',
        f'model.decode_head.in_channels={list(widths)}'.replace(' ', ''),
    ]
    if density == 'dense':
        options.append(f'{HOOK}.mode=off')
    else:
        options += [f'{HOOK}.seed={seed}', f'{HOOK}.update.every={max(1, args.iters // 16)}']
    name = Grid.name('camvid', kernel, mode, density)
    keep = seed == 0  # for the effective receptive fields
    return Training(name, seed, CONFIG, options, COSTS[mode, kernel], keep_checkpoint=keep)


def structured(structure: str, moments: str, seed: int, args: argparse.Namespace) -> Training:
    """Describe one training of the study of structures."""
    one = training(max(CAMVID.kernels), 'decomposed', 'half', seed, args)
    options = [
        *one.options,
        f'{HOOK}.sparsity={SPARSITIES["half"]}',
        # Every layer keeps as many weights with each structure.
        f'{HOOK}.allocation=uniform',
        f'{HOOK}.structure={structure}',
        f'{HOOK}.update.moments={moments}',
    ]
    name = STRUCTURES.name('camvid', structure, moments)
    return dataclasses.replace(one, name=name, options=options, keep_checkpoint=False)


def peer(seed: int, args: argparse.Namespace) -> Training:
    """Describe one training of MMPretrain's ConvNeXt, as wide as SLaK with naive 7 x 7 kernels."""
    slak = SLaK(
        'nano', KERNEL_SIZES[7], width_factor=width_factor(7, 'naive', 'dense'), mode='naive'
    )
    widths = str(list(slak.widths)).replace(' ', '')
    depths = str(list(slak.depths)).replace(' ', '')
    backbone = dict(
        type='mmpretrain.ConvNeXt',
        **{'arch.depths': depths, 'arch.channels': widths},
        out_indices='[0,1,2,3]',
        gap_before_final_norm=False,
        layer_scale_init_value=1.0,
    )
    options = [
        *shared_options(seed, args),
        'model.backbone._delete_=True',
        *(f'model.backbone.{key}={value}' for key, value in backbone.items()),
        f'model.decode_head.in_channels={widths}',
        f'{HOOK}.mode=off',
    ]
    return Training(CAMVID_PEER, seed, CONFIG, options, keep_checkpoint=seed == 0)


def plan(args: argparse.Namespace) -> list[Training]:
    """Return all trainings: all networks with one seed, then the next seed."""
    if args.structures:
        cells = list(itertools.product(STRUCTURES.structures, STRUCTURES.moments))
        return [structured(*cell, seed, args) for seed in range(args.seeds) for cell in cells]
    networks = list(itertools.product(CAMVID.kernels, CAMVID.modes, CAMVID.densities))
    return [
        one
        for seed in range(args.seeds)
        for one in [peer(seed, args), *(training(*network, seed, args) for network in networks)]
    ]


def config_of(one: Training) -> Config:
    """Load the config of a training with its options."""
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='+', action=DictAction)
    return load_config(one.config, parser.parse_args(one.options).options)


def parameters_of(one: Training) -> float:
    """Count the active parameters of a network, in millions."""
    model = build_model(config_of(one))
    count = sum(parameter.numel() for parameter in model.parameters())
    if f'{HOOK}.mode=off' not in one.options:
        count -= round(SPARSITY * sum(w.numel() for w in select_model_targets(model).values()))
    return count / 1e6


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_study_options(parser, 460, 'data/camvid', 'work_dirs/camvid_study')
    parser.add_argument(
        '--report', action='store_true', help='report finished trainings without starting others'
    )
    parser.add_argument(
        '--structures', action='store_true', help='compare structures of the zeros instead'
    )
    args = parser.parse_args()
    check_positive(args, 'seeds', 'iters', 'processes')
    return args


@guarded
def main() -> None:
    """Run the trainings that are not finished, then report all."""
    args = parse_args()
    matplotlib.use('Agg')
    console = Console(width=110)
    trainings = plan(args)
    if not args.report:
        run_study(trainings, args.work_dir, args.processes)
    scores = summarise(trainings, args.work_dir)
    if args.structures:
        first = [one for one in trainings if one.seed == 0]
        active = {one.name: active_weights(config_of(one)) for one in first}
        report_structures(scores, active, args.work_dir, console, args.iters)
        return
    report(
        scores,
        CAMVID,
        args.work_dir,
        console,
        table_title=f'SLaK-nano, mIoU, %, {args.iters} iterations',
        title=f'SLaK-nano on CamVid, {args.iters} iterations',
    )
    console.print(
        f"MMPretrain's ConvNeXt with the same depths: {summary(scores.get(CAMVID_PEER, {}))}"
    )
    first = [one for one in trainings if one.seed == 0]
    parameters = {one.name: round(parameters_of(one), 4) for one in first}
    (args.work_dir / 'parameters.json').write_text(json.dumps(parameters, indent=2) + '\n')
    console.print(
        f'active parameters: {min(parameters.values()):.3f} M to {max(parameters.values()):.3f} M'
    )


if __name__ == '__main__':
    main()
