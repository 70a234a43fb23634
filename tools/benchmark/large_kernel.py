"""Time depth-wise convolutions with large kernels, every implementation in one run.

    python tools/benchmark/large_kernel.py --device cpu --threads 2
    python tools/benchmark/large_kernel.py --device cuda --dtype bf16 --shapes figure4

Runs of all implementations take turns, each at its median of at least 10; ratios are what to
quote, for milliseconds vary with the machine. `native` is nn.Conv2d. Names that end in
`_channels_last` got their input in that layout.
"""

import argparse
import json

import torch
import torch.nn.functional as F
from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor

from mmslak.analysis.latency import check_device, compare, machine
from mmslak.console import guarded, print_table, progress_bar
from mmslak.ops import cpp, decomposed_conv2d, depthwise_conv2d

#: (N, C, H, W) of the map and M of the kernels.
STAGES = [
    ((4, 124, 56, 56), 51),
    ((4, 249, 28, 28), 49),
    ((4, 499, 14, 14), 47),
    ((4, 998, 7, 7), 13),
]
SHAPES = {
    'stages': STAGES,
    'maps': [((1, 124, 200, 320), 51), ((1, 124, 128, 128), 51)],
    # Figure 4 of the paper, right: 384 channels, a batch of 64.
    'figure4': [((64, 384, side, side), 51) for side in (7, 14, 28, 56)],
}
SMALL = 5
DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
KERNELS = {
    'wide': lambda m: (SMALL, m),
    'tall': lambda m: (m, SMALL),
    'block': lambda m: 'block',
    # Of other networks, where this package should not be in the way.
    '3x3': lambda m: (3, 3),
    '7x7': lambda m: (7, 7),
    '31x31': lambda m: (31, 31),
}


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--dtype', choices=list(DTYPES), default='fp32')
    parser.add_argument(
        '--shapes', nargs='+', choices=list(SHAPES), default=['stages', 'maps'],
        help='stages: those of SLaK-T at 224 x 224, batch 4; maps: larger; figure4: of the paper',
    )  # fmt: skip
    parser.add_argument(
        '--kernels', nargs='+', choices=list(KERNELS), default=['wide', 'tall', 'block']
    )
    parser.add_argument(
        '--implementations', nargs='+', help='only these (default: all that run on the device)'
    )
    parser.add_argument(
        '--passes', nargs='+', choices=['forward', 'forward_backward'],
        default=['forward', 'forward_backward'],
    )  # fmt: skip
    parser.add_argument('--repeats', type=int, default=10, help='timed runs of each (median)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--json', action='store_true', help='print a JSON list and nothing else')
    args = parser.parse_args()
    available = implementations(args.device)
    unknown = set(args.implementations or []) - set(available)
    if unknown:
        raise ValueError(
            f'--implementations: {", ".join(sorted(unknown))} not among {", ".join(available)}'
        )
    if args.repeats < 1:
        raise ValueError(f'--repeats must be positive, got {args.repeats}')
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    names = [name for name in available if name in (args.implementations or available)]
    cases = [
        (shape, KERNELS[kernel](m), direction)
        for group in args.shapes
        for kernel in args.kernels
        for shape, m in SHAPES[group]
        for direction in args.passes
    ]
    sizes = {shape: m for group in args.shapes for shape, m in SHAPES[group]}
    rows = []
    with progress_bar() as progress:
        task = progress.add_task('', total=len(cases) * len(names) * (args.repeats + 2))
        for shape, kernel, direction in cases:
            size = f'{"x".join(map(str, shape))}, {_kernel_name(kernel)}, {direction}'
            progress.update(task, description=size)
            ways = {
                name: _way(name, shape, kernel, sizes[shape], direction, args) for name in names
            }
            costs = compare(ways, args.device, args.repeats, lambda: progress.advance(task))
            native = costs['native'].ms if 'native' in costs else None
            rows += [
                dict(
                    shape=list(shape),
                    kernel=kernel if kernel == 'block' else list(kernel),
                    implementation=name,
                    ms=round(cost.ms, 4),
                    peak_mb=None if cost.peak_mb is None else round(cost.peak_mb, 2),
                    ratio=None if native is None else round(native / cost.ms, 3),
                    **{'pass': direction},
                )
                for name, cost in costs.items()
            ]
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    _print(rows, args)


def implementations(device: str) -> list[str]:
    """List what can be timed on ``device``, the peers first."""
    check_device(device)
    own = ['triton'] if device == 'cuda' else ['pytorch', *(['cpp'] if cpp.available() else [])]
    both = [f'{name}{layout}' for name in ('native', *own, 'auto') for layout in ('', LAST)]
    return [*both, *(['fft'] if device == 'cuda' else [])]


LAST = '_channels_last'


def fft_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve by Fourier transforms, the peer whose time does not grow with the kernel."""
    height, width = x.shape[-2:]
    rows, columns = weight.shape[-2:]
    size = (height + rows - 1, width + columns - 1)
    spectrum = torch.fft.rfft2(x.float(), s=size)
    kernel = torch.fft.rfft2(weight[:, 0].float(), s=size)
    out = torch.fft.irfft2(spectrum * kernel.conj(), s=size)
    # A correlation's negative shifts stand at the end.
    out = out.roll((rows // 2, columns // 2), (-2, -1))
    return out[..., :height, :width].to(x.dtype)


def _way(name: str, shape, kernel, m: int, direction: str, args):
    """Return a function that makes inputs and returns what is timed."""
    backward = direction == 'forward_backward'
    layout = torch.channels_last if name.endswith(LAST) else torch.contiguous_format
    implementation = name.removesuffix(LAST)
    sizes = [(m, SMALL), (SMALL, m), (SMALL, SMALL)] if kernel == 'block' else [kernel]

    def convolve(x: Tensor, weights: list[Tensor]) -> Tensor:
        if implementation == 'native':
            one = [_native(x, weight) for weight in weights]
        elif implementation == 'fft':
            one = [fft_conv2d(x, weight) for weight in weights]
        elif len(weights) == 3 and not backward:
            # As in inference, where the norms between branches and sum are folded away.
            return decomposed_conv2d(x, *weights, implementation=implementation)
        else:
            one = [depthwise_conv2d(x, weight, None, implementation) for weight in weights]
        return sum(one[1:], one[0])

    def prepare():
        options = dict(device=args.device, dtype=DTYPES[args.dtype])
        x = torch.randn(shape, **options).contiguous(memory_format=layout)
        weights = [torch.randn(shape[1], 1, *size, **options) / m for size in sizes]
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


def _native(x: Tensor, weight: Tensor) -> Tensor:
    padding = (weight.shape[-2] // 2, weight.shape[-1] // 2)
    return F.conv2d(x, weight, padding=padding, groups=x.shape[1])


def _kernel_name(kernel) -> str:
    return kernel if kernel == 'block' else 'x'.join(map(str, kernel))


def _print(rows: list[dict], args: argparse.Namespace) -> None:
    threads = f', {args.threads} threads' if args.device == 'cpu' else ''
    print(f'{machine(args.device)}{threads}, {args.dtype}, torch {torch.__version__}')
    table = Table(box=SIMPLE)
    for heading in ('map', 'kernel', 'pass', 'implementation'):
        table.add_column(heading, no_wrap=True)
    for heading in ('ms', 'peak MB', 'x native', 'x best native', 'over best'):
        table.add_column(heading, justify='right')
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((tuple(row['shape']), str(row['kernel']), row['pass']), []).append(row)
    worst = 0.0
    for group in groups.values():
        native = [r['ms'] for r in group if r['implementation'].startswith('native')]
        for row in group:
            # The layout of the input is the user's: the best is the best for that layout.
            last = row['implementation'].endswith(LAST)
            best = min(r['ms'] for r in group if r['implementation'].endswith(LAST) == last)
            over = row['ms'] / best - 1
            if row['implementation'].startswith('auto'):
                worst = max(worst, over)
            first = row is group[0]
            table.add_row(
                'x'.join(map(str, row['shape'])) if first else '',
                (row['kernel'] if row['kernel'] == 'block' else 'x'.join(map(str, row['kernel'])))
                if first
                else '',
                row['pass'].replace('_', ' + ') if first else '',
                row['implementation'],
                f'{row["ms"]:.2f}',
                '-' if row['peak_mb'] is None else f'{row["peak_mb"]:.1f}',
                '-' if row['ratio'] is None else f'{row["ratio"]:.1f}',
                f'{min(native) / row["ms"]:.1f}' if native else '-',
                f'{over:.0%}',
                end_section=row is group[-1],
            )
    print_table(table)
    print(f'auto is at most {worst:.0%} over the best implementation for the layout of its input')


if __name__ == '__main__':
    guarded(main)()
