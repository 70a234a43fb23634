"""Time whole networks: SLaK-T against ConvNeXt-S, which has as many multiply-adds.

    python tools/benchmark/model.py --device cpu --threads 2
    python tools/benchmark/model.py --modes train --batch 4 --size 224

slak_t is the network as it was trained, slak_t_native the same on PyTorch's own convolution,
slak_t_merged after SLaK.switch_to_deploy(), convnext_s MMPretrain's. Runs take turns; the ratios
are what to quote.
"""

import argparse
import json

import torch
from rich.box import SIMPLE
from rich.table import Table
from torch import nn

from mmslak.analysis.latency import check_device, compare, machine
from mmslak.cli.config import ToolboxMissingError
from mmslak.console import guarded, print_table, progress_bar
from mmslak.models import SLaK
from mmslak.ops import LargeKernelConv2d

DTYPES = dict(fp32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)
MODELS = ('convnext_s', 'slak_t', 'slak_t_merged', 'slak_t_native')
#: (mode, batch, size in pixels)
CASES = [
    *(('inference', batch, size) for size in (224, 512) for batch in (1, 8)),
    ('train', 4, 224),
]


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--dtype', choices=list(DTYPES), default='fp32', help='autocast to it')
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--modes', nargs='+', choices=['inference', 'train'])
    parser.add_argument('--batch', type=int, help='with --size: this instead of the usual cases')
    parser.add_argument('--size', type=int, help='side of the images in pixels')
    parser.add_argument('--repeats', type=int, default=10, help='timed runs of each (median)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--json', action='store_true', help='print a JSON list and nothing else')
    args = parser.parse_args()
    check_device(args.device)
    if (args.batch is None) != (args.size is None):
        raise ValueError('--batch and --size go together: give both or neither')
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    cases = CASES
    if args.batch is not None:
        cases = [(mode, args.batch, args.size) for mode in args.modes or ['inference', 'train']]
    cases = [case for case in cases if args.modes is None or case[0] in args.modes]
    # A merged network is for inference.
    runs = {
        case: [name for name in args.models if (case[0], name) != ('train', 'slak_t_merged')]
        for case in cases
    }
    rows = []
    with progress_bar() as progress:
        total = (args.repeats + 2) * sum(map(len, runs.values()))
        task = progress.add_task('', total=total)
        for (mode, batch, size), names in runs.items():
            progress.update(task, description=f'{mode}, {batch} x {size} x {size}')
            ways = {name: _way(name, mode, batch, size, args) for name in names}
            costs = compare(ways, args.device, args.repeats, lambda: progress.advance(task))
            rows += [
                dict(
                    model=name, mode=mode, batch=batch, size=size, ms=round(cost.ms, 3),
                    peak_mb=None if cost.peak_mb is None else round(cost.peak_mb, 1),
                )
                for name, cost in costs.items()
            ]  # fmt: skip
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    _print(rows, args)


def build(name: str) -> nn.Module:
    """Build a network that maps images to one feature a sample."""
    torch.manual_seed(0)
    if name == 'convnext_s':
        try:
            from mmpretrain.models import ConvNeXt
        except ImportError:
            raise ToolboxMissingError('mmpretrain') from None
        return ConvNeXt('small')
    model = SLaK('tiny', out_indices=(3,), gap_before_final_norm=True)
    for module in model.modules():
        if name == 'slak_t_native' and isinstance(module, LargeKernelConv2d):
            module.implementation = 'native'
    return model.eval().switch_to_deploy() if name == 'slak_t_merged' else model


def _way(name: str, mode: str, batch: int, size: int, args: argparse.Namespace):
    """Return a function that makes network and images and returns what is timed."""
    half = args.dtype != 'fp32'

    def prepare():
        # The faster layout for all of them.
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


def _print(rows: list[dict], args: argparse.Namespace) -> None:
    threads = f', {args.threads} threads' if args.device == 'cpu' else ''
    print(f'{machine(args.device)}{threads}, {args.dtype}, torch {torch.__version__}')
    table = Table('mode', 'batch', 'size', 'model', box=SIMPLE)
    for heading in ('ms', 'images/s', 'peak MB', 'time over convnext_s'):
        table.add_column(heading, justify='right')
    peers = {
        (row['mode'], row['batch'], row['size']): row['ms']
        for row in rows
        if row['model'] == 'convnext_s'
    }
    for row in rows:
        peer = peers.get((row['mode'], row['batch'], row['size']))
        table.add_row(
            row['mode'], str(row['batch']), str(row['size']), row['model'], f'{row["ms"]:.1f}',
            f'{1e3 * row["batch"] / row["ms"]:.1f}',
            '-' if row['peak_mb'] is None else f'{row["peak_mb"]:.0f}',
            '-' if peer is None else f'{row["ms"] / peer:.2f}',
        )  # fmt: skip
    print_table(table)


if __name__ == '__main__':
    guarded(main)()
