"""Show how each allocation distributes a sparsity over SLaK's layers, and the multiply-adds.

    python tools/analysis/sparsity_allocation.py --images data/imagenet/val

SNIP scores one batch of the images with the cross-entropy loss of an untrained network.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from mmslak.analysis.complexity import weight_uses
from mmslak.analysis.paper import SPARSITY, row_of
from mmslak.analysis.snip_allocation import image_batch, labelled_images
from mmslak.console import guarded
from mmslak.models import ARCHS, SLaK
from mmslak.sparsity import allocate, select_targets, snip_scores

#: Architecture -> its row in table 3 of the paper.
PAPER_ROWS = {'tiny': 'SLaK-T', 'small': 'SLaK-S', 'base': 'SLaK-B'}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--arch', choices=list(ARCHS), default='tiny', help='architecture (default: tiny)'
    )
    parser.add_argument(
        '--sparsity', type=float, default=0.4, help='share of masked weights (default: 0.4)'
    )
    parser.add_argument(
        '--images',
        type=Path,
        default=Path('data/sample/imagenet/train'),
        metavar='DIR',
        help='directory with one directory of images per class '
        '(default: data/sample/imagenet/train)',
    )
    parser.add_argument(
        '--batch', type=int, default=16, help='number of images that SNIP scores (default: 16)'
    )
    parser.add_argument(
        '--size', type=int, default=224, help='side of the images in pixels (default: 224)'
    )
    parser.add_argument(
        '--layer-scale', type=float, default=1e-6, help='initial layer scale (default: 1e-6)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the initialisation (default: 0)'
    )
    return parser.parse_args()


class Last(nn.Module):
    """Select the last output of a backbone."""

    def forward(self, outs):
        """Return the last element of a sequence."""
        return outs[-1]


def classifier(arch: str, layer_scale: float) -> nn.Sequential:
    """Build an untrained classifier with 1000 classes, initialised as for pre-training."""
    backbone = SLaK(
        arch, out_indices=-1, gap_before_final_norm=True, layer_scale_init_value=layer_scale
    )
    head = nn.Linear(backbone.widths[-1], 1000)
    for layer in [*backbone.modules(), head]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return nn.Sequential(backbone, Last(), head)


def group_of(name: str) -> str:
    """Return the stage and the kind of layer that a weight belongs to."""
    parts = name.split('.')
    if parts[1] == 'stages':
        return f'stage {int(parts[2]) + 1} {".".join(parts[4:-1])}'
    return f'{parts[1]}.{parts[2]}' if parts[0] == '0' else 'head'


def make_table(
    title: str,
    sizes: Mapping[str, int],
    uses: Mapping[str, int],
    kept: Mapping[str, Mapping[str, int]],
) -> Table:
    """Make the table of densities and multiply-adds.

    Args:
        title (str): Its title.
        sizes (Mapping[str, int]): Number of weights of each layer.
        uses (Mapping[str, int]): Multiply-adds of each weight of a layer.
        kept (Mapping): Number of active weights of each layer, for each allocation.
    """
    table = Table('layers', title=title)
    for column in ('weights', 'GMACs dense', *kept):
        table.add_column(column, justify='right')
    groups = defaultdict(list)
    for name in sizes:
        groups[group_of(name)].append(name)
    for group, names in groups.items():
        size = sum(sizes[name] for name in names)
        gmacs = sum(sizes[name] * uses[name] for name in names) / 1e9
        densities = (sum(active[name] for name in names) / size for active in kept.values())
        table.add_row(group, f'{size:,}', f'{gmacs:.3f}', *(f'{d:.3f}' for d in densities))
    table.add_section()
    total = sum(sizes.values())
    densities = (sum(active.values()) / total for active in kept.values())
    table.add_row('density', f'{total:,}', '', *(f'{d:.6f}' for d in densities))
    gmacs = (
        sum(active[name] * uses[name] for name in sizes) / 1e9 for active in (sizes, *kept.values())
    )
    table.add_row('GMACs', '', *(f'{g:.2f}' for g in gmacs), style='bold')
    return table


@guarded
def main() -> None:
    """Allocate, and print the table."""
    args = parse_args()
    chosen = labelled_images(args.images, args.batch)
    images = image_batch([path for path, _ in chosen], args.size)
    labels = torch.tensor([label for _, label in chosen])
    torch.manual_seed(args.seed)
    network = classifier(args.arch, args.layer_scale)
    weights = select_targets(network)
    uses = weight_uses(network.eval(), lambda: network(images[:1]))
    network.train()
    scores = snip_scores(
        network, weights, lambda: nn.functional.cross_entropy(network(images), labels)
    )
    kept = {m: allocate(weights, args.sparsity, m, scores) for m in ('uniform', 'erk', 'snip')}
    sizes = {name: weight.numel() for name, weight in weights.items()}
    title = f'Density by layer, SLaK-{args.arch}, sparsity {args.sparsity}'
    Console(width=120).print(make_table(title, sizes, uses, kept))
    if args.arch in PAPER_ROWS and (args.sparsity, args.size) == (SPARSITY, 224):
        gmacs = row_of(3, PAPER_ROWS[args.arch]).gmacs
        print(f'The paper has {gmacs} G with its SNIP allocation (table 3).')
    dense = sorted({group_of(name) for name in sizes if kept['snip'][name] == sizes[name]})
    print(f'Layers that SNIP leaves dense, at least in some blocks: {", ".join(dense) or "none"}.')


if __name__ == '__main__':
    main()
