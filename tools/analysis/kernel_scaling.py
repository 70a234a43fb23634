"""Show what larger kernels cost, full and decomposed: the paper's figure 4.

    python tools/analysis/kernel_scaling.py --out DIR
    python tools/analysis/kernel_scaling.py --out DIR --device cuda

The first line counts parameters and multiply-adds of ConvNeXt-T with every kernel enlarged, and
draws kernel_scaling.png (figure 4, left). With --device the operator is timed as well, forward
and in fp32, and drawn into kernel_scaling_latency_DEVICE.png (figure 4, right). The decomposed
operator is the sum of an M x N and an N x M kernel: the N x N one merges into them.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from mmslak.analysis.complexity import config_costs
from mmslak.analysis.latency import check_device, compare, machine
from mmslak.cli.config import load_config
from mmslak.console import guarded, progress_bar
from mmslak.ops import IMPLEMENTATIONS, decomposed_conv2d, depthwise_conv2d

ROOT = Path(__file__).resolve().parents[2]
KERNELS = (7, 15, 31, 51, 61, 71, 91, 111, 131, 151)
#: The paper's claim (section 6.2): the first, decomposed, costs less than the second, full.
CLAIM = (151, 51)
SMALL_KERNEL, SPARSITY = 5, 0.4
#: Batch size and channels of the paper's figure 4, right.
BATCH, CHANNELS = 64, 384
#: name -> mode of the block, and sparsity.
VARIANTS = {
    'full': ('naive', 0.0),
    'decomposed': ('decomposed', 0.0),
    'decomposed, sparse': ('decomposed', SPARSITY),
}
COLOURS = {'full': 'tab:orange', 'decomposed': 'tab:green', 'decomposed, sparse': 'tab:blue'}


# ---------------------------------------------------------------------------------------------
# Parameters and multiply-adds (left)


def network_costs(kernel: int, size: int) -> dict[str, tuple[float, float]]:
    """Count ConvNeXt-T with one kernel size in all stages.

    Args:
        kernel (int): M, odd.
        size (int): Side of the image in pixels.

    Returns:
        dict: variant -> parameters in millions and multiply-adds in G.
    """
    costs = {}
    for name, (mode, sparsity) in VARIANTS.items():
        cfg = load_config(
            ROOT / 'configs/slak_t_in1k.py',
            {
                'model.backbone.mode': mode,
                'model.backbone.kernel_sizes': (kernel,) * 4,
                'model.backbone.small_kernel': SMALL_KERNEL,
                'model.backbone.width_factor': 1.0,
                'model.head.in_channels': 768,
            },
        )
        counts = config_costs(cfg, (size, size), sparsity)
        which = 'sparse' if sparsity else 'dense'
        costs[name] = (counts[f'params_{which}'] / 1e6, counts[f'macs_{which}'] / 1e9)
    return costs


def claim_sentence(costs: dict[int, dict[str, tuple[float, float]]]) -> str:
    """Say with numbers whether the paper's claim holds."""
    large, small = CLAIM
    full = costs[small]['full']
    parts, holds = [], True
    for name in list(VARIANTS)[1:]:
        ours = costs[large][name]
        holds = holds and ours[0] < full[0] and ours[1] < full[1]
        parts.append(f'{name} {ours[0]:.1f} M parameters and {ours[1]:.2f} G multiply-adds')
    verdict = 'holds' if holds else 'does not hold'
    return (
        f"The paper's claim (section 6.2) that ConvNeXt-T with {large} x {large} kernels, "
        f'decomposed, costs less than with full {small} x {small} kernels {verdict}: '
        f'{"; ".join(parts)}; full {full[0]:.1f} M and {full[1]:.2f} G.'
    )


def draw_costs(costs: dict[int, dict[str, tuple[float, float]]], path: Path) -> None:
    """Write figure 4, left: multiply-adds and parameters over the kernel size."""
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
    figure.suptitle('ConvNeXt-T, 224 x 224')
    figure.savefig(path, dpi=150)
    plt.close(figure)


# ---------------------------------------------------------------------------------------------
# Latency of the operator (right)


@dataclass(frozen=True)
class Latency:
    """Median time of one forward pass, in milliseconds."""

    implementation: str
    resolution: int
    kernel: int
    full: float
    decomposed: float


def operators(
    channels: int, kernel: int, device: str, implementation: str
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Build the full and the decomposed operator with random weights.

    Returns:
        tuple: Two functions of a map of shape (N, C, R, R) to one of the same shape.
    """
    full, tall, wide = (
        torch.randn(channels, 1, *shape, device=device) / kernel
        for shape in ((kernel, kernel), (kernel, SMALL_KERNEL), (SMALL_KERNEL, kernel))
    )

    def run_full(x: Tensor) -> Tensor:
        return depthwise_conv2d(x, full, implementation=implementation)

    def run_decomposed(x: Tensor) -> Tensor:
        return decomposed_conv2d(x, tall, wide, implementation=implementation)

    return run_full, run_decomposed


def measure(args: argparse.Namespace) -> list[Latency]:
    """Time both operators for every implementation, resolution and kernel."""
    torch.manual_seed(0)
    cases = [(resolution, kernel) for resolution in args.resolutions for kernel in args.kernels]
    found = []
    # TF32 would make the GPU's fp32 another thing than the paper's.
    torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode(), progress_bar() as progress:
        ways = 2 * len(args.implementation)
        task = progress.add_task('', total=len(cases) * ways * (args.repeats + 2))
        for resolution, kernel in cases:
            progress.update(task, description=f'{resolution} x {resolution}, M {kernel}')
            x = torch.randn(args.batch, args.channels, resolution, resolution, device=args.device)
            runs = {}
            for implementation in args.implementation:
                pair = operators(args.channels, kernel, args.device, implementation)
                for name, operator in zip(('full', 'decomposed'), pair, strict=True):
                    runs[implementation, name] = lambda operator=operator, x=x: operator(x)
            ways = {key: lambda run=run: run for key, run in runs.items()}
            costs = compare(ways, args.device, args.repeats, lambda: progress.advance(task))
            found += [
                Latency(
                    name, resolution, kernel, costs[name, 'full'].ms, costs[name, 'decomposed'].ms
                )
                for name in args.implementation
            ]
    return found


def draw_latency(found: Sequence[Latency], title: str, path: Path) -> None:
    """Write figure 4, right: time over the kernel size, one panel for each resolution."""
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


def latency_sentences(found: Sequence[Latency]) -> list[str]:
    """Say how the decomposed operator compares, for each implementation, from 51 x 51 on."""
    sentences = []
    for implementation in dict.fromkeys(item.implementation for item in found):
        rows = [i for i in found if i.implementation == implementation and i.kernel >= CLAIM[1]]
        if not rows:
            continue
        ratios = [item.full / item.decomposed for item in rows]
        verdict = 'holds' if min(ratios) > 4 else 'does not hold everywhere'
        sentences.append(
            f"The paper's claim of more than 4x for decomposed kernels {verdict} with "
            f'{implementation!r} for kernels of {CLAIM[1]} and more: {min(ratios):.2f} to '
            f'{max(ratios):.2f} times as fast as full ones.'
        )
    return sentences


# ---------------------------------------------------------------------------------------------


def check(args: argparse.Namespace) -> None:
    """Raise a ValueError for what cannot be counted or timed."""
    for kernel in args.kernels:
        if kernel < SMALL_KERNEL or kernel % 2 == 0:
            raise ValueError(f'--kernels must be odd and at least {SMALL_KERNEL}, got {kernel}')
    for name in ('resolutions', 'batch', 'channels', 'repeats', 'threads'):
        value = getattr(args, name)
        values = value if isinstance(value, list) else [value]
        if any(number is not None and number < 1 for number in values):
            raise ValueError(f'--{name} must be positive, got {value}')
    if args.device:
        check_device(args.device)
        # Each is timed only after everything has been counted: too late to be refused.
        x = torch.zeros(1, 1, SMALL_KERNEL, SMALL_KERNEL, device=args.device)
        for name in args.implementation:
            try:
                depthwise_conv2d(x, x, implementation=name)
            except ValueError as error:
                raise ValueError(
                    f'--implementation {name} does not run with --device {args.device}: {error}'
                ) from error


@guarded
def main() -> None:
    """Count, time where asked to, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='for the figures')
    parser.add_argument('--kernels', nargs='+', type=int, default=list(KERNELS), metavar='M')
    parser.add_argument('--size', type=int, default=224, help='side of the image, for the counts')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='time the operator there')
    parser.add_argument(
        '--implementation',
        nargs='+',
        choices=IMPLEMENTATIONS,
        default=['auto', 'native'],
        help='of mmslak.ops.depthwise_conv2d, to be timed',
    )
    parser.add_argument(
        '--resolutions', nargs='+', type=int, default=[14, 28, 56], metavar='R', help='side of maps'
    )
    parser.add_argument(
        '--batch', type=int, help=f"default: the paper's {BATCH} on cuda, 1 on the CPU"
    )
    parser.add_argument('--channels', type=int, default=CHANNELS, help="default: the paper's")
    parser.add_argument('--repeats', type=int, default=10, help='timed calls; the median counts')
    parser.add_argument('--threads', type=int, help='of PyTorch on the CPU')
    args = parser.parse_args()
    args.kernels = sorted(set(args.kernels))
    args.batch = args.batch or (BATCH if args.device == 'cuda' else 1)
    check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120)

    costs = {
        kernel: network_costs(kernel, args.size)
        for kernel in track(sorted({*args.kernels, *CLAIM}), 'counting')
    }
    table = Table('kernel', title=f'ConvNeXt-T, {args.size} x {args.size}: M parameters, GMACs')
    for name in VARIANTS:
        table.add_column(name, justify='right')
    for kernel, row in costs.items():
        cells = (f'{params:.1f} M, {macs:.2f} G' for params, macs in row.values())
        table.add_row(f'{kernel} x {kernel}', *cells)
    console.print(table)
    console.print(
        f'Decomposed: M x {SMALL_KERNEL} + {SMALL_KERNEL} x M + {SMALL_KERNEL} x {SMALL_KERNEL}. '
        f'Sparse: every layer keeps {1 - SPARSITY:.0%} of its weights.'
    )
    print(claim_sentence(costs))
    draw_costs(costs, args.out / 'kernel_scaling.png')
    print(f'wrote {args.out / "kernel_scaling.png"}')
    if not args.device:
        return

    found = measure(args)
    shape = f'({args.batch}, {args.channels}, R, R)'
    where = machine(args.device)
    if args.device == 'cpu':
        where += f', {torch.get_num_threads()} threads'
    title = f'Depth-wise convolution of {shape}, fp32, {where}'
    table = Table('implementation', title=f'{title}; median of {args.repeats} calls')
    for column in ('R', 'kernel', 'full, ms', 'decomposed, ms', 'full / decomposed'):
        table.add_column(column, justify='right')
    for item in found:
        cells = (f'{item.full:.2f}', f'{item.decomposed:.2f}', f'{item.full / item.decomposed:.2f}')
        table.add_row(item.implementation, str(item.resolution), str(item.kernel), *cells)
    console.print(table)
    print('\n'.join(latency_sentences(found)))
    path = args.out / f'kernel_scaling_latency_{args.device}.png'
    draw_latency(found, title, path)
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
