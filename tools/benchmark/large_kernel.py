"""Time depth-wise convolutions with large kernels, all implementations in one run.

    python tools/benchmark/large_kernel.py --device cpu --threads 2
    python tools/benchmark/large_kernel.py --device cuda --dtype bf16 --shapes figure4
    python tools/benchmark/large_kernel.py --shapes stage1 --kernels 5x5 13x13 --dilation 2 5

The implementations are timed in turns. Quote the ratios of their medians, because milliseconds
depend on the machine. `native` is nn.Conv2d, which the speed-up compares with. Implementations
whose names end in `_channels_last` get their input in this memory format.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor

from mmslak.analysis.latency import check_device, machine, measure_in_turns
from mmslak.console import guarded, print_table, progress_bar
from mmslak.ops import cpp, decomposed_conv2d, depthwise_conv2d

#: (N, C, H, W) of the feature map, and kernel size M.
STAGES = [
    ((4, 124, 56, 56), 51),
    ((4, 249, 28, 28), 49),
    ((4, 499, 14, 14), 47),
    ((4, 998, 7, 7), 13),
]
SHAPES = {
    'stages': STAGES,
    'stage1': STAGES[:1],
    'maps': [((1, 124, 200, 320), 51), ((1, 124, 128, 128), 51)],
    # Figure 4 of the paper, right: 384 channels, batch size 64.
    'figure4': [((64, 384, side, side), 51) for side in (7, 14, 28, 56)],
}
SMALL = 5
DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
#: name -> sizes of the kernels whose outputs are summed, given M.
KERNELS = {
    'wide': lambda m: [(SMALL, m)],
    'tall': lambda m: [(m, SMALL)],
    'block': lambda m: [(m, SMALL), (SMALL, m), (SMALL, SMALL)],
    # Kernels of other networks, for which this package should not be slower.
    **{f'{k}x{k}': lambda m, k=k: [(k, k)] for k in (3, 5, 7, 9, 13, 31)},
}
PASSES = ('forward', 'forward_backward')
LAST = '_channels_last'


@dataclass(frozen=True)
class Case:
    """What all implementations compute.

    Args:
        shape (tuple[int, ...]): (N, C, H, W) of the feature map.
        m (int): Kernel size M.
        kernel (str): A key of :data:`KERNELS`.
        dilation (int): Distance of neighbouring weights.
        direction (str): One of :data:`PASSES`.
        device (str): ``cpu`` or ``cuda``.
        dtype (str): A key of :data:`DTYPES`.
    """

    shape: tuple[int, ...]
    m: int
    kernel: str
    dilation: int
    direction: str
    device: str
    dtype: str

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Sizes of the kernels."""
        return KERNELS[self.kernel](self.m)

    @property
    def kernel_size(self) -> str | list[int]:
        """Height and width of the kernel, or ``block``."""
        return 'block' if self.kernel == 'block' else list(self.sizes[0])

    def __str__(self) -> str:
        name = _kernel_name(self.kernel_size, self.dilation)
        return f'{_times(self.shape)}, {name}, {self.direction}'


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], default='cpu', help='device (default: cpu)'
    )
    parser.add_argument(
        '--dtype', choices=list(DTYPES), default='fp32', help='dtype of all tensors (default: fp32)'
    )
    parser.add_argument(
        '--shapes', nargs='+', choices=list(SHAPES), default=['stages', 'maps'],
        help='feature maps: stages are those of SLaK-T at 224 x 224 with batch size 4, stage1 is '
        'the first of them, maps are larger, figure4 are those of figure 4 in the paper '
        '(default: stages maps)',
    )  # fmt: skip
    parser.add_argument(
        '--kernels', nargs='+', choices=list(KERNELS), default=['wide', 'tall', 'block'],
        help='kernels: wide is 5 x M, tall is M x 5, block is the sum of M x 5, 5 x M and 5 x 5 '
        '(default: wide tall block)',
    )  # fmt: skip
    parser.add_argument(
        '--dilation',
        nargs='+',
        type=int,
        default=[1],
        metavar='D',
        help='distances of neighbouring weights (default: 1)',
    )
    parser.add_argument(
        '--implementations',
        nargs='+',
        metavar='NAME',
        help='implementations to time (default: all that run on the device)',
    )
    parser.add_argument(
        '--passes', nargs='+', choices=PASSES, default=list(PASSES),
        help='passes to time (default: both)',
    )  # fmt: skip
    parser.add_argument(
        '--repeats',
        type=int,
        default=10,
        help='timed runs, of which the median counts (default: 10)',
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=torch.get_num_threads(),
        help="CPU threads (default: PyTorch's number of threads)",
    )
    parser.add_argument('--json', action='store_true', help='print the numbers as JSON')
    args = parser.parse_args()
    available = implementations(args.device)
    unknown = set(args.implementations or []) - set(available)
    if unknown:
        raise ValueError(
            f'--implementations: {", ".join(sorted(unknown))} not among {", ".join(available)}'
        )
    args.implementations = [n for n in available if n in (args.implementations or available)]
    if min(args.dilation) < 1:
        raise ValueError(f'--dilation must be positive, got {min(args.dilation)}')
    if args.repeats < 1:
        raise ValueError(f'--repeats must be positive, got {args.repeats}')
    return args


def implementations(device: str) -> list[str]:
    """Return the names of all implementations that run on a device, PyTorch's first."""
    check_device(device)
    own = ['triton'] if device == 'cuda' else ['pytorch', *(['cpp'] if cpp.available() else [])]
    both = [f'{name}{layout}' for name in ('native', *own, 'auto') for layout in ('', LAST)]
    return [*both, *(['fft'] if device == 'cuda' else [])]


def run_benchmark(args: argparse.Namespace) -> list[dict]:
    """Time all cases, with a progress bar; one dict for each case and implementation."""
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    cases = [
        Case(shape, m, kernel, dilation, direction, args.device, args.dtype)
        for group in args.shapes
        for kernel in args.kernels
        for dilation in args.dilation
        for shape, m in SHAPES[group]
        for direction in args.passes
    ]
    rows = []
    with progress_bar() as bar:
        runs = len(cases) * len(args.implementations) * (args.repeats + 2)
        task = bar.add_task('', total=runs)
        for case in cases:
            bar.update(task, description=str(case))
            ways = {name: _way(name, case) for name in args.implementations}
            costs = measure_in_turns(ways, args.device, args.repeats, lambda: bar.advance(task))
            native = costs['native'].ms if 'native' in costs else None
            rows += [
                dict(
                    shape=list(case.shape),
                    kernel=case.kernel_size,
                    dilation=case.dilation,
                    implementation=name,
                    ms=round(cost.ms, 4),
                    peak_mb=None if cost.peak_mb is None else round(cost.peak_mb, 2),
                    ratio=None if native is None else round(native / cost.ms, 3),
                    **{'pass': case.direction},
                )
                for name, cost in costs.items()
            ]
    return rows


def fft_conv2d(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """Convolve by Fourier transforms, whose time does not grow with the kernel."""
    height, width = x.shape[-2:]
    rows, columns = (dilation * (k - 1) + 1 for k in weight.shape[-2:])
    spread = weight.new_zeros(*weight.shape[:2], rows, columns)
    spread[..., ::dilation, ::dilation] = weight
    size = (height + rows - 1, width + columns - 1)
    spectrum = torch.fft.rfft2(x.float(), s=size)
    kernel = torch.fft.rfft2(spread[:, 0].float(), s=size)
    out = torch.fft.irfft2(spectrum * kernel.conj(), s=size)
    # The negative shifts of the correlation are at the end.
    out = out.roll((rows // 2, columns // 2), (-2, -1))
    return out[..., :height, :width].to(x.dtype)


def _native(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    padding = [k // 2 * dilation for k in weight.shape[-2:]]
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=x.shape[1])


def _way(name: str, case: Case) -> Callable[[], Callable[[], object]]:
    """Return a function that makes the inputs and returns the function to time."""
    backward = case.direction == 'forward_backward'
    layout = torch.channels_last if name.endswith(LAST) else torch.contiguous_format
    implementation = name.removesuffix(LAST)
    options = dict(implementation=implementation, dilation=case.dilation)

    def convolve(x: Tensor, weights: list[Tensor]) -> Tensor:
        if implementation == 'native':
            outputs = [_native(x, weight, case.dilation) for weight in weights]
        elif implementation == 'fft':
            outputs = [fft_conv2d(x, weight, case.dilation) for weight in weights]
        elif len(weights) == 3 and not backward:
            # As in inference, where the batch norms between the branches and the sum are folded.
            return decomposed_conv2d(x, *weights, **options)
        else:
            outputs = [depthwise_conv2d(x, weight, **options) for weight in weights]
        return sum(outputs[1:], outputs[0])

    def prepare():
        place = dict(device=case.device, dtype=DTYPES[case.dtype])
        x = torch.randn(case.shape, **place).contiguous(memory_format=layout)
        weights = [torch.randn(case.shape[1], 1, *size, **place) / case.m for size in case.sizes]
        if not backward:

            def run():
                with torch.no_grad():
                    return convolve(x, weights)

            return run
        grad = torch.randn_like(x)
        for tensor in (x, *weights):
            tensor.requires_grad_()

        return lambda: torch.autograd.grad(convolve(x, weights), (x, *weights), grad)

    return prepare


def _times(numbers) -> str:
    return 'x'.join(map(str, numbers))


def _kernel_name(kernel: str | list[int], dilation: int) -> str:
    name = kernel if isinstance(kernel, str) else _times(kernel)
    return name if dilation == 1 else f'{name}, dilation {dilation}'


def report(rows: list[dict], args: argparse.Namespace) -> None:
    """Print the table."""
    threads = f', {args.threads} threads' if args.device == 'cpu' else ''
    print(f'{machine(args.device)}{threads}, {args.dtype}, torch {torch.__version__}')
    table = Table(box=SIMPLE)
    for heading in ('feature map', 'kernel', 'pass', 'implementation'):
        table.add_column(heading, no_wrap=True)
    for heading in ('ms', 'peak MB', 'speed-up', 'over best native', 'slower than best'):
        table.add_column(heading, justify='right')
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        name = _kernel_name(row['kernel'], row['dilation'])
        groups.setdefault((tuple(row['shape']), name, row['pass']), []).append(row)
    worst = 0.0
    for (shape, name, direction), group in groups.items():
        native = [r['ms'] for r in group if r['implementation'].startswith('native')]
        heading = [_times(shape), name, direction.replace('_', ' + ')]
        for row in group:
            # Users choose the memory format, so the best is that of the same format.
            last = row['implementation'].endswith(LAST)
            best = min(r['ms'] for r in group if r['implementation'].endswith(LAST) == last)
            over = row['ms'] / best - 1
            if row['implementation'].startswith('auto'):
                worst = max(worst, over)
            table.add_row(
                *(heading if row is group[0] else ['', '', '']),
                row['implementation'],
                f'{row["ms"]:.2f}',
                '-' if row['peak_mb'] is None else f'{row["peak_mb"]:.1f}',
                '-' if row['ratio'] is None else f'{row["ratio"]:.1f}',
                f'{min(native) / row["ms"]:.1f}' if native else '-',
                f'{over:.0%}',
                end_section=row is group[-1],
            )
    print_table(table)
    print(f'auto is at most {worst:.0%} slower than the best implementation for its memory format')


@guarded
def main() -> None:
    """Run the benchmark, and print a table or JSON."""
    args = parse_args()
    rows = run_benchmark(args)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        report(rows, args)


if __name__ == '__main__':
    main()
