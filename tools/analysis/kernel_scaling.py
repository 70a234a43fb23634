"""Show what larger kernels cost, full and decomposed (figure 4 of the paper).

    python tools/analysis/kernel_scaling.py --out DIR
    python tools/analysis/kernel_scaling.py --out DIR --device cuda

Counts parameters and multiply-adds of ConvNeXt-T with larger kernels in all stages, and draws
kernel_scaling.png (figure 4, left). With --device, the forward pass of the operator is timed in
float32 as well, and drawn into kernel_scaling_latency_DEVICE.png (figure 4, right). The decomposed
operator is the sum of an M x 5 and a 5 x M kernel, because the 5 x 5 kernel merges into them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.table import Table

from mmslak.analysis.kernel_scaling import (
    CLAIM,
    SMALL_KERNEL,
    VARIANTS,
    Costs,
    Latency,
    claim_sentence,
    latency_sentences,
    measure_latency,
    network_costs,
)
from mmslak.analysis.latency import check_device, machine
from mmslak.analysis.paper import SPARSITY
from mmslak.cli.config import load_config
from mmslak.console import guarded, progress_bar
from mmslak.ops import IMPLEMENTATIONS, depthwise_conv2d

CONFIG = Path(__file__).resolve().parents[2] / 'configs/slak_t_in1k.py'
KERNELS = (7, 15, 31, 51, 61, 71, 91, 111, 131, 151)
#: Batch size and channels in figure 4, right.
BATCH, CHANNELS = 64, 384
COLOURS = {'full': 'tab:orange', 'decomposed': 'tab:green', 'decomposed, sparse': 'tab:blue'}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='directory of the figures'
    )
    parser.add_argument(
        '--kernels',
        nargs='+',
        type=int,
        default=list(KERNELS),
        metavar='M',
        help=f'kernel sizes, odd (default: {" ".join(map(str, KERNELS))})',
    )
    parser.add_argument(
        '--size', type=int, default=224, help='side of the image for the counts (default: 224)'
    )
    parser.add_argument(
        '--device', choices=('cpu', 'cuda'), help='device to time the operator on (default: none)'
    )
    parser.add_argument(
        '--implementation',
        nargs='+',
        choices=IMPLEMENTATIONS,
        default=['auto', 'native'],
        help='implementations of the operator to time (default: auto native)',
    )
    parser.add_argument(
        '--resolutions',
        nargs='+',
        type=int,
        default=[14, 28, 56],
        metavar='R',
        help='sides of the feature maps (default: 14 28 56)',
    )
    parser.add_argument(
        '--batch', type=int, help=f"batch size (default: the paper's {BATCH} on cuda, 1 on the CPU)"
    )
    parser.add_argument(
        '--channels',
        type=int,
        default=CHANNELS,
        help=f'number of channels (default: {CHANNELS}, as in the paper)',
    )
    parser.add_argument(
        '--repeats',
        type=int,
        default=10,
        help='timed runs, of which the median counts (default: 10)',
    )
    parser.add_argument(
        '--threads', type=int, help="CPU threads (default: PyTorch's number of threads)"
    )
    args = parser.parse_args()
    args.kernels = sorted(set(args.kernels))
    args.batch = args.batch or (BATCH if args.device == 'cuda' else 1)
    check(args)
    return args


def check(args: argparse.Namespace) -> None:
    """Raise an error for arguments that cannot be used, before any work starts."""
    for kernel in args.kernels:
        if kernel < SMALL_KERNEL or kernel % 2 == 0:
            raise ValueError(f'--kernels must be odd and at least {SMALL_KERNEL}, got {kernel}')
    for name in ('resolutions', 'batch', 'channels', 'repeats', 'threads', 'size'):
        value = getattr(args, name)
        values = value if isinstance(value, list) else [value]
        if any(number is not None and number < 1 for number in values):
            raise ValueError(f'--{name} must be positive, got {value}')
    if args.device:
        check_device(args.device)
        x = torch.zeros(1, 1, SMALL_KERNEL, SMALL_KERNEL, device=args.device)
        for name in args.implementation:
            try:
                depthwise_conv2d(x, x, implementation=name)
            except ValueError as error:
                raise ValueError(
                    f'--implementation {name} does not run with --device {args.device}: {error}'
                ) from error


# --- parameters and multiply-adds -----------------------------------------------------------------


def count_costs(args: argparse.Namespace) -> dict[int, Costs]:
    """Count every kernel size, including those of the paper's claim."""
    cfg = load_config(CONFIG)
    costs, kernels = {}, sorted({*args.kernels, *CLAIM})
    with progress_bar() as bar:
        for kernel in bar.track(kernels, description='counting'):
            costs[kernel] = network_costs(cfg, kernel, args.size)
    return costs


def costs_table(costs: dict[int, Costs], size: int) -> Table:
    """Make the table of parameters and multiply-adds."""
    table = Table('kernel', title=f'ConvNeXt-T, {size} x {size}: parameters, multiply-adds')
    for name in VARIANTS:
        table.add_column(name, justify='right')
    for kernel, row in costs.items():
        cells = (f'{params:.1f} M, {macs:.2f} G' for params, macs in row.values())
        table.add_row(f'{kernel} x {kernel}', *cells)
    return table


def draw_costs(costs: dict[int, Costs], path: Path, size: int) -> None:
    """Draw figure 4, left: multiply-adds and parameters over the kernel size."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout='constrained')
    large, small = CLAIM
    for panel, index, label in zip(
        panels, (1, 0), ('multiply-adds (G)', 'parameters (M)'), strict=True
    ):
        for name, colour in COLOURS.items():
            values = [costs[kernel][name][index] for kernel in costs]
            panel.plot(list(costs), values, 'o-', markersize=4, color=colour, label=name)
        level = costs[small]['full'][index]
        panel.axhline(level, color='grey', linewidth=0.8, linestyle='--')
        panel.annotate(
            f'full {small} x {small}', (large, level), (0, 4), textcoords='offset points',
            ha='right', color='grey', fontsize=8,
        )  # fmt: skip
        panel.set(xlabel='kernel size M (M x M in all stages)', ylabel=label, yscale='log')
        low, high = panel.get_ylim()
        ticks = [t for t in (2, 5, 10, 20, 50, 100, 200, 500) if low <= t <= high]
        panel.set_yticks(ticks, [str(t) for t in ticks])
        panel.minorticks_off()
        panel.set_xticks(list(costs), [str(kernel) for kernel in costs], fontsize=8)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(f'ConvNeXt-T, {size} x {size}')
    figure.savefig(path, dpi=150)
    plt.close(figure)


# --- latency of the operator ----------------------------------------------------------------------


def time_operator(args: argparse.Namespace) -> list[Latency]:
    """Time the operator, with a progress bar."""
    if args.threads:
        torch.set_num_threads(args.threads)
    cases = [(resolution, kernel) for resolution in args.resolutions for kernel in args.kernels]
    runs = len(cases) * 2 * len(args.implementation) * (args.repeats + 2)
    with progress_bar() as bar:
        task = bar.add_task('', total=runs)
        return measure_latency(
            cases,
            args.implementation,
            args.batch,
            args.channels,
            args.device,
            args.repeats,
            lambda case: bar.update(task, description=case, advance=1),
        )


def latency_table(found: Sequence[Latency], title: str) -> Table:
    """Make the table of latencies."""
    table = Table('implementation', title=title)
    for column in ('R', 'kernel', 'full, ms', 'decomposed, ms', 'full / decomposed'):
        table.add_column(column, justify='right')
    for item in found:
        cells = (f'{item.full:.2f}', f'{item.decomposed:.2f}', f'{item.full / item.decomposed:.2f}')
        table.add_row(item.implementation, str(item.resolution), str(item.kernel), *cells)
    return table


def draw_latency(found: Sequence[Latency], title: str, path: Path) -> None:
    """Draw figure 4, right: latency over the kernel size, with one panel per resolution."""
    resolutions = sorted({item.resolution for item in found})
    implementations = list(dict.fromkeys(item.implementation for item in found))
    figure, panels = plt.subplots(
        1, len(resolutions), figsize=(4.5 * len(resolutions) + 2.5, 4), squeeze=False,
        layout='constrained',
    )  # fmt: skip
    for panel, resolution in zip(panels[0], resolutions, strict=True):
        for implementation, style in zip(
            implementations, ('-', '--', ':', '-.') * len(implementations), strict=False
        ):
            rows = [
                item
                for item in found
                if (item.resolution, item.implementation) == (resolution, implementation)
            ]
            kernels = [item.kernel for item in rows]
            for name in ('full', 'decomposed'):
                panel.plot(
                    kernels, [getattr(item, name) for item in rows], 'o', linestyle=style,
                    markersize=4, color=COLOURS[name], label=f'{name}, {implementation}',
                )  # fmt: skip
        panel.set(xlabel='kernel size M', ylabel='latency (ms)', yscale='log')
        panel.set_title(f'{resolution} x {resolution}', fontsize=10)
        panel.set_xticks(kernels, [str(kernel) for kernel in kernels], fontsize=8)
        panel.grid(alpha=0.3, which='both')
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, loc='outside right center')
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)


@guarded
def main() -> None:
    """Count, time if a device is given, print and draw."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)

    costs = count_costs(args)
    console.print(costs_table(costs, args.size))
    console.print(
        f'Decomposed: M x {SMALL_KERNEL} + {SMALL_KERNEL} x M + {SMALL_KERNEL} x {SMALL_KERNEL}. '
        f'Sparse: every layer has a density of {1 - SPARSITY:.0%}.'
    )
    print(claim_sentence(costs))
    draw_costs(costs, args.out / 'kernel_scaling.png', args.size)
    print(f'wrote {args.out / "kernel_scaling.png"}')
    if not args.device:
        return

    found = time_operator(args)
    where = machine(args.device)
    if args.device == 'cpu':
        where += f', {torch.get_num_threads()} threads'
    shape = f'({args.batch}, {args.channels}, R, R)'
    title = f'Depth-wise convolution of {shape}, fp32, {where}'
    console.print(latency_table(found, f'{title}; median of {args.repeats} runs'))
    print('\n'.join(latency_sentences(found)))
    path = args.out / f'kernel_scaling_latency_{args.device}.png'
    draw_latency(found, title, path)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
