"""Convert a checkpoint of the authors of SLaK or ConvNeXt to the format of this package.

    python tools/convert/official.py SLaK_tiny_checkpoint.pth slak_tiny.pth

SRC is a checkpoint of a classifier, or of MMSegmentation 0.x or MMDetection 2.x.
"""

import argparse
from pathlib import Path

from mmengine.runner import save_checkpoint
from rich.console import Console
from rich.table import Table

from mmslak.checkpoints import from_official, read_checkpoint
from mmslak.console import guarded


@guarded
def main() -> None:
    """Convert the file and print a summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', metavar='SRC', help="checkpoint in the authors' format")
    parser.add_argument('dst', metavar='DST', help='file to write')
    parser.add_argument(
        '--ema', action='store_true', help='convert the averaged weights (model_ema)'
    )
    parser.add_argument(
        '--trust',
        action='store_true',
        help='read objects other than tensors and plain containers, which can run any code; only '
        'for files from a source that you trust',
    )
    args = parser.parse_args()
    if Path(args.dst).exists():
        raise ValueError(f'DST {args.dst} already exists; give another one or remove it')
    found = from_official(read_checkpoint(args.src, args.trust), args.ema, args.src)
    save_checkpoint(found.checkpoint(), args.dst)

    table = Table('layer', 'shape', 'density')
    for name, density in found.densities.items():
        table.add_row(name, ' x '.join(map(str, found.state_dict[name].shape)), f'{density:.4f}')
    console = Console(width=110)
    console.print(table)
    sizes = {name: found.state_dict[name].numel() for name in found.densities}
    active = sum(density * sizes[name] for name, density in found.densities.items())
    settings = ', '.join(f'{key}={value!r}' for key, value in found.settings.items())
    kind = 'classifier' if found.kind == 'classifier' else 'segmentor or detector'
    print(f'{args.src}: a {kind} with SLaK({settings})')
    print(
        f'{len(found.state_dict)} entries: {found.renamed} renamed, the others (of which '
        f'{len(found.passed)} belong to heads) unchanged; none left over'
    )
    print(
        f'{len(found.masks)} of {len(sizes)} layers are sparse; density of all layers '
        f'{active / sum(sizes.values()):.4f}'
    )
    print(f'wrote {args.dst}')


if __name__ == '__main__':
    main()
