"""Count the dense parameters of every SLaK architecture, with a head of 1000 classes.

python tools/analysis/count_parameters.py
"""

import argparse

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from mmslak.models import ARCHS, SLaK


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    table = Table('arch', 'widths', 'depths', title='Dense parameters, 1000 classes')
    table.add_column('all, M', justify='right')
    table.add_column('maskable, M', justify='right')
    for arch in ARCHS:
        # On the meta device no memory is allocated.
        with torch.device('meta'):
            backbone = SLaK(arch, out_indices=-1, gap_before_final_norm=True)
            network = nn.Sequential(backbone, nn.Linear(backbone.widths[-1], 1000))
        parameters = list(network.parameters())
        counts = [
            sum(p.numel() for p in parameters) / 1e6,
            sum(p.numel() for p in parameters if p.ndim > 1) / 1e6,
        ]
        shapes = (', '.join(map(str, values)) for values in (backbone.widths, backbone.depths))
        table.add_row(arch, *shapes, *(f'{count:.2f}' for count in counts))
    Console().print(table)


if __name__ == '__main__':
    main()
