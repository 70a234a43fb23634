"""Time networks of timm and MMSegmentation before and after mmslak.ops.accelerate.

    python tools/benchmark/accelerate.py --batch 4 --size 224
    python tools/benchmark/accelerate.py --page docs/other_networks.md

Each network is timed in evaluation mode and in training mode (forward and backward). The copies
before and after are timed in turns. Quote the ratios, because milliseconds depend on the machine.
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmslak.analysis.latency import check_device, machine, measure_in_turns
from mmslak.analysis.pages import insert_table
from mmslak.cli.config import ToolboxMissingError
from mmslak.console import guarded, print_table, progress_bar
from mmslak.ops import accelerate

#: Title in the table by name; the first four are models of timm.
NETWORKS = dict(
    convnext_tiny="timm's ConvNeXt-T",
    inception_next_tiny="timm's InceptionNeXt-T",
    rdnet_tiny="timm's RDNet-T",
    mobilenetv4_conv_medium="timm's MobileNetV4-Conv-M",
    mscan_t="MMSegmentation's MSCAN-T (SegNeXt)",
)
MODES = ('evaluation', 'training')
#: Name of the table in a page.
TABLE = 'accelerate'


def parse_args() -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS),
        help='networks to time (default: all)',
    )  # fmt: skip
    parser.add_argument(
        '--modes', nargs='+', choices=MODES, default=MODES, help='modes to time (default: both)'
    )
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu', help='default: cpu')
    parser.add_argument('--batch', type=int, default=4, help='batch size (default: 4)')
    parser.add_argument(
        '--size', type=int, default=224, help='side of the images in pixels (default: 224)'
    )
    parser.add_argument(
        '--repeats', type=int, default=10, help='timed runs, of which the median counts'
    )
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(),
        help="CPU threads (default: PyTorch's number of threads)",
    )  # fmt: skip
    parser.add_argument('--page', type=Path, help='page of the docs that gets the table')
    parser.add_argument('--json', action='store_true', help='print the numbers as JSON')
    args = parser.parse_args()
    check_device(args.device)
    for name in ('batch', 'size', 'repeats', 'threads'):
        value = getattr(args, name)
        if value < 1:
            raise ValueError(f'--{name} must be positive, got {value}')
    if args.page:
        # Before hours of timing.
        insert_table(args.page.read_text(), TABLE, Table())
    return args


def build(name: str) -> nn.Module:
    """Build an untrained network."""
    torch.manual_seed(0)
    if name == 'mscan_t':
        try:
            from mmseg.models import MSCAN
        except ImportError:
            raise ToolboxMissingError('mmseg') from None
        return MSCAN(
            embed_dims=[32, 64, 160, 256], mlp_ratios=[8, 8, 4, 4], depths=[3, 3, 5, 2],
            norm_cfg=dict(type='BN'),
        )  # fmt: skip
    try:
        import timm
    except ImportError:
        raise ImportError('timm is needed for this network: pip install timm') from None
    return timm.create_model(name, pretrained=False)


def relative_difference(model: nn.Module, fast: nn.Module, images: Tensor) -> float:
    """Return the largest difference of the outputs, relative to the largest output."""
    with torch.no_grad():
        pairs = zip(tree_leaves(model(images)), tree_leaves(fast(images)), strict=True)
        return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def step_of(model: nn.Module, images: Tensor) -> Callable[[], object]:
    """Return a function that runs the network, in training mode with the backward pass."""

    def infer():
        with torch.inference_mode():
            return model(images)

    def train():
        sum(out.square().mean() for out in tree_leaves(model(images))).backward()
        model.zero_grad()

    return train if model.training else infer


def measure(name: str, mode: str, args: argparse.Namespace, progress: Callable) -> dict:
    """Time a network in a mode before and after."""
    model = build(name).to(args.device).train(mode == 'training')
    images = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    fast = copy.deepcopy(model)
    swaps = accelerate(fast, images, log=None)
    difference = None if model.training else relative_difference(model, fast, images)
    ways = dict(before=lambda: step_of(model, images), after=lambda: step_of(fast, images))
    costs = measure_in_turns(ways, args.device, args.repeats, progress)
    timed = [swap for swap in swaps if swap.before is not None]
    return dict(
        network=name, mode=mode, batch=args.batch, size=args.size,
        found=len(swaps), replaced=sum(swap.swapped for swap in swaps),
        convolutions_before=sum(swap.before for swap in timed),
        convolutions_after=sum(min(swap.before, swap.after) for swap in timed),
        before=costs['before'].ms, after=costs['after'].ms, difference=difference,
    )  # fmt: skip


def make_table(rows: list[dict]) -> Table:
    """Make the table with a row for each network and mode."""
    table = Table('network', 'mode', 'images')
    for heading in (
        'convolutions, replaced', 'convolutions, ms', 'after', 'network, ms', 'after',
        'times faster', 'difference of outputs',
    ):  # fmt: skip
        table.add_column(heading, justify='right')
    for row in rows:
        difference = row['difference']
        table.add_row(
            NETWORKS[row['network']], row['mode'],
            f'{row["batch"]} x {row["size"]} x {row["size"]}',
            f'{row["found"]}, {row["replaced"]}',
            f'{row["convolutions_before"]:.0f}', f'{row["convolutions_after"]:.0f}',
            f'{row["before"]:.0f}', f'{row["after"]:.0f}', f'{row["before"] / row["after"]:.2f}',
            '' if difference is None else f'{difference:.0e}' if difference else '0',
        )  # fmt: skip
    return table


@guarded
def main() -> None:
    """Time the networks, and print the table or JSON."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    rows, cases = [], [(name, mode) for name in args.networks for mode in args.modes]
    with progress_bar() as bar:
        task = bar.add_task('', total=2 * (args.repeats + 2) * len(cases))
        for name, mode in cases:
            bar.update(task, description=f'{name}, {mode}')
            rows.append(measure(name, mode, args, lambda: bar.advance(task)))
    table = make_table(rows)
    if args.page:
        args.page.write_text(insert_table(args.page.read_text(), TABLE, table))
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    threads = f', {args.threads} threads' if args.device == 'cpu' else ''
    print(f'{machine(args.device)}{threads}, torch {torch.__version__}')
    print_table(table)


if __name__ == '__main__':
    main()
