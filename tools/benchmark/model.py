"""Time whole networks: SLaK-T, and ConvNeXt-S, which has as many multiply-adds.

    python tools/benchmark/model.py --device cpu --threads 2
    python tools/benchmark/model.py --modes train --batch 4 --size 224

slak_t is the network as it was trained, slak_t_native uses PyTorch's own convolution, slak_t_merged
is the network after SLaK.switch_to_deploy(), and convnext_s is MMPretrain's. The networks named
"unaligned" have aligned=False. In those named "neuron" 40 % of the hidden units are masked: they
are left out of the products in training, and removed from the merged network. ConvNeXt-T has half
the multiply-adds. The networks are timed in turns. Quote the ratios of their medians, because
milliseconds depend on the machine.
"""

import argparse
import json
from collections.abc import Callable

import torch
from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from mmslak.analysis.latency import check_device, machine, measure_in_turns
from mmslak.cli.config import ToolboxMissingError
from mmslak.console import guarded, print_table, progress_bar
from mmslak.models import SLaK, SLaKBlock
from mmslak.ops import LargeKernelConv2d

DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
#: Options of the variants of SLaK-T by name.
SLAK_T = dict(
    slak_t=dict(),
    slak_t_unaligned=dict(aligned=False),
    slak_t_merged=dict(merged=True),
    slak_t_merged_unaligned=dict(merged=True, aligned=False),
    slak_t_native=dict(implementation='native'),
    slak_t_neuron=dict(masked_units=0.4),
    slak_t_neuron_merged=dict(masked_units=0.4, merged=True),
)
CONVNEXTS = dict(convnext_s='small', convnext_t='tiny')
MODELS = (*CONVNEXTS, *SLAK_T)
MODES = ('inference', 'train')
#: (mode, batch size, side of the images in pixels)
CASES = [
    *(('inference', batch, size) for size in (224, 512) for batch in (1, 8)),
    ('train', 4, 224),
]


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], default='cpu', help='device (default: cpu)'
    )
    parser.add_argument(
        '--dtype', choices=list(DTYPES), default='fp32', help='dtype of autocast (default: fp32)'
    )
    parser.add_argument(
        '--models', nargs='+', choices=MODELS, default=list(MODELS),
        help='networks to time (default: all)',
    )  # fmt: skip
    parser.add_argument('--modes', nargs='+', choices=MODES, help='modes to time (default: both)')
    parser.add_argument(
        '--batch', type=int, help='batch size; with --size, instead of the usual cases'
    )
    parser.add_argument('--size', type=int, help='side of the images in pixels; with --batch')
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
    check_device(args.device)
    if (args.batch is None) != (args.size is None):
        raise ValueError('--batch and --size go together: give both or neither')
    for name in ('batch', 'size', 'repeats', 'threads'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f'--{name} must be positive, got {value}')
    return args


def run_benchmark(args: argparse.Namespace) -> list[dict]:
    """Time all cases, with a progress bar; one dict for each case and network."""
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    modes = args.modes or MODES
    cases = CASES
    if args.batch is not None:
        cases = [(mode, args.batch, args.size) for mode in modes]
    # A merged network is for inference.
    networks = {
        case: [name for name in args.models if case[0] != 'train' or not _is_merged(name)]
        for case in cases
        if case[0] in modes
    }
    rows = []
    with progress_bar() as bar:
        total = (args.repeats + 2) * sum(map(len, networks.values()))
        task = bar.add_task('', total=total)
        for (mode, batch, size), names in networks.items():
            bar.update(task, description=f'{mode}, {batch} x {size} x {size}')
            ways = {name: _way(name, mode, batch, size, args) for name in names}
            costs = measure_in_turns(ways, args.device, args.repeats, lambda: bar.advance(task))
            rows += [
                dict(
                    model=name, mode=mode, batch=batch, size=size, ms=round(cost.ms, 3),
                    peak_mb=None if cost.peak_mb is None else round(cost.peak_mb, 1),
                )
                for name, cost in costs.items()
            ]  # fmt: skip
    return rows


def build(name: str) -> nn.Module:
    """Build an untrained network, without a head."""
    torch.manual_seed(0)
    if name in CONVNEXTS:
        try:
            from mmpretrain.models import ConvNeXt
        except ImportError:
            raise ToolboxMissingError('mmpretrain') from None
        return ConvNeXt(CONVNEXTS[name])
    options = SLAK_T[name]
    aligned = options.get('aligned', 'auto')
    model = SLaK('tiny', out_indices=(3,), gap_before_final_norm=True, aligned=aligned)
    for module in model.modules():
        if isinstance(module, LargeKernelConv2d):
            module.implementation = options.get('implementation', 'auto')
    if 'masked_units' in options:
        mask_units(model, options['masked_units'])
    return model.eval().switch_to_deploy() if _is_merged(name) else model


def mask_units(model: SLaK, share: float) -> None:
    """Mask a share of the hidden units of every block at random, as structured sparsity does."""
    for block in (module for module in model.modules() if isinstance(module, SLaKBlock)):
        hidden = block.pwconv1.out_features
        masked = torch.randperm(hidden)[: round(share * hidden)]
        with torch.no_grad():
            block.pwconv1.weight[masked] = 0
            block.pwconv1.bias[masked] = 0
            block.pwconv2.weight[:, masked] = 0
    model.leave_out_zero_units()


def _is_merged(name: str) -> bool:
    return SLAK_T.get(name, {}).get('merged', False)


def _way(
    name: str, mode: str, batch: int, size: int, args: argparse.Namespace
) -> Callable[[], Callable[[], object]]:
    """Return a function that makes network and images and returns the function to time."""
    half = args.dtype != 'fp32'

    def prepare():
        # The faster memory format for all networks.
        model = build(name).to(args.device, memory_format=torch.channels_last)
        model.train(mode == 'train')
        images = torch.randn(batch, 3, size, size, device=args.device)
        images = images.contiguous(memory_format=torch.channels_last)

        def infer():
            with torch.inference_mode(), torch.autocast(args.device, DTYPES[args.dtype], half):
                return model(images)

        def train():
            with torch.autocast(args.device, DTYPES[args.dtype], half):
                loss = model(images)[-1].square().mean()
            loss.backward()
            model.zero_grad()

        return train if mode == 'train' else infer

    return prepare


def report(rows: list[dict], args: argparse.Namespace) -> None:
    """Print the table."""
    threads = f', {args.threads} threads' if args.device == 'cpu' else ''
    print(f'{machine(args.device)}{threads}, {args.dtype}, torch {torch.__version__}')
    table = Table('mode', 'batch', 'size', 'model', box=SIMPLE)
    peers = [name for name in CONVNEXTS if name in args.models]
    for heading in ('ms', 'images/s', 'peak MB', *(f'time / {name}' for name in peers)):
        table.add_column(heading, justify='right')
    times = {(row['model'], row['mode'], row['batch'], row['size']): row['ms'] for row in rows}
    for row in rows:
        case = (row['mode'], row['batch'], row['size'])
        table.add_row(
            row['mode'], str(row['batch']), str(row['size']), row['model'], f'{row["ms"]:.1f}',
            f'{1e3 * row["batch"] / row["ms"]:.1f}',
            '-' if row['peak_mb'] is None else f'{row["peak_mb"]:.0f}',
            *(f'{row["ms"] / times[(name, *case)]:.2f}' for name in peers),
        )  # fmt: skip
    print_table(table)


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
