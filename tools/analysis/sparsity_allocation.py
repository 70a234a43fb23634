"""Show how each allocation shares a sparsity over SLaK's layers, and what it costs to run.

    python tools/analysis/sparsity_allocation.py --images data/sample/imagenet/train

SNIP scores one batch of the images given, through the cross-entropy of an untrained network.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from mmslak.analysis.complexity import weight_uses
from mmslak.analysis.snip_on_images import image_batch, labelled_images
from mmslak.console import guarded
from mmslak.models import ARCHS, SLaK
from mmslak.sparsity import allocate, select_targets, snip_scores

#: Paper, table 3, at 40 % sparsity and 224 x 224.
PAPER_GMACS = {'tiny': 5.0, 'small': 9.8, 'base': 17.1}


def classifier(arch: str, layer_scale: float) -> nn.Sequential:
    """Build the network of pre-training, with a head of 1000 classes, as it is initialised."""
    backbone = SLaK(
        arch, out_indices=-1, gap_before_final_norm=True, layer_scale_init_value=layer_scale
    )
    head = nn.Linear(backbone.widths[-1], 1000)
    for layer in [*backbone.modules(), head]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    class Last(nn.Module):
        def forward(self, outs):
            return outs[-1]

    return nn.Sequential(backbone, Last(), head)


def group_of(name: str) -> str:
    """Shorten a weight's name to its stage and kind of layer."""
    parts = name.split('.')
    if parts[1] == 'stages':
        return f'stage {int(parts[2]) + 1} {".".join(parts[4:-1])}'
    return f'{parts[1]}.{parts[2]}' if parts[0] == '0' else 'head'


@guarded
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--arch', choices=list(ARCHS), default='tiny')
    parser.add_argument('--sparsity', type=float, default=0.4)
    parser.add_argument('--images', type=Path, default=Path('data/sample/imagenet/train'))
    parser.add_argument('--batch', type=int, default=16, help='images that SNIP scores')
    parser.add_argument('--size', type=int, default=224, help='side of the images in pixels')
    parser.add_argument('--layer-scale', type=float, default=1e-6, help='initial layer scale')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
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

    table = Table('layers', title=f'Density by layer, SLaK-{args.arch}, sparsity {args.sparsity}')
    for column in ('weights', 'GMACs dense', *kept):
        table.add_column(column, justify='right')
    groups = defaultdict(list)
    for name in weights:
        groups[group_of(name)].append(name)
    for group, names in groups.items():
        size = sum(weights[n].numel() for n in names)
        table.add_row(
            group,
            f'{size:,}',
            f'{sum(weights[n].numel() * uses[n] for n in names) / 1e9:.3f}',
            *(f'{sum(counts[n] for n in names) / size:.3f}' for counts in kept.values()),
        )
    table.add_section()
    total = sum(w.numel() for w in weights.values())
    table.add_row(
        'density', f'{total:,}', '', *(f'{sum(c.values()) / total:.6f}' for c in kept.values())
    )
    dense = sum(w.numel() * uses[n] for n, w in weights.items()) / 1e9
    sparse = {m: sum(k * uses[n] for n, k in counts.items()) / 1e9 for m, counts in kept.items()}
    table.add_row('GMACs', '', f'{dense:.2f}', *(f'{g:.2f}' for g in sparse.values()), style='bold')
    Console(width=120).print(table)
    if args.arch in PAPER_GMACS and (args.sparsity, args.size) == (0.4, 224):
        print(f'The paper has {PAPER_GMACS[args.arch]} G with its SNIP allocation (table 3).')
    left = sorted({group_of(n) for n in weights if kept['snip'][n] == weights[n].numel()})
    print(f'Left dense by SNIP, in whole or in part: {", ".join(left) or "none"}.')


if __name__ == '__main__':
    main()
