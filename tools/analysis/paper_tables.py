"""Count the parameters and multiply-adds of the networks in the paper's tables.

    python tools/analysis/paper_tables.py --images data/imagenet/val

Builds the network of every row of tables 1, 2, 3, 4, 5, 7 and 8 and writes the paper's numbers, the
counts and the differences to docs/paper_tables.md. SNIP, the paper's allocation of the sparsity,
scores images with the loss of the untrained network; without --images only the uniform allocation
is counted. SNIP allocations are kept in --cache, and an interrupted run continues from there. An
existing docs/paper_tables.md is only replaced by a run of all tables with --images.
"""

import argparse
import importlib.util
import logging
import shlex
from pathlib import Path

from mmengine.logging import MMLogger

from mmslak.analysis.paper import TABLES
from mmslak.analysis.paper_counts import SnipCache, count_tables
from mmslak.analysis.paper_tables import document, summary
from mmslak.analysis.snip_allocation import labelled_images
from mmslak.cli.config import EXTRAS, ToolboxMissingError
from mmslak.console import guarded, progress_bar

ROOT = Path(__file__).resolve().parents[2]
#: Default of --out.
DOCUMENT = ROOT / 'docs/paper_tables.md'


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--tables', nargs='+', type=int, choices=list(TABLES), help='tables to count (default: all)'
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='directory with one directory of images per class, for SNIP',
    )
    parser.add_argument(
        '--num', type=int, default=8, help='number of images that SNIP scores (default: 8)'
    )
    parser.add_argument(
        '--seeds', type=int, default=3, help='number of initialisations for SNIP (default: 3)'
    )
    parser.add_argument(
        '--cache',
        type=Path,
        default=Path('work_dirs/paper_tables/snip.json'),
        metavar='FILE',
        help='file of SNIP allocations (default: work_dirs/paper_tables/snip.json)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='Markdown file to write (default: docs/paper_tables.md)',
    )
    return parser


def check(args: argparse.Namespace) -> None:
    """Raise an error for arguments that cannot be used, before any work starts."""
    for name in ('num', 'seeds'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name} must be positive, got {getattr(args, name)}')
    if args.out is None and (args.tables or not args.images) and DOCUMENT.exists():
        raise ValueError(
            f'give --out FILE with --tables or without --images: {DOCUMENT} exists, and only a '
            'run of all tables with --images replaces it'
        )
    for toolbox in EXTRAS:
        if importlib.util.find_spec(toolbox) is None:
            raise ToolboxMissingError(toolbox)


def command(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """Return the command that writes this document, without options at their defaults."""
    words = ['python', 'tools/analysis/paper_tables.py']
    for name in ('tables', 'images', 'num', 'seeds'):
        value = getattr(args, name)
        if value != parser.get_default(name):
            values = value if isinstance(value, list) else [value]
            words += [f'--{name}', *map(str, values)]
    return shlex.join(words)


@guarded
def main() -> None:
    """Count the networks and write the document."""
    parser = argument_parser()
    args = parser.parse_args()
    check(args)
    snip = None
    if args.images:
        snip = SnipCache(labelled_images(args.images, args.num), args.seeds, args.cache)
    # Toolboxes log how every parameter is initialised.
    MMLogger.get_instance('mmslak').setLevel(logging.WARNING)
    tables = sorted(set(args.tables or TABLES))
    with progress_bar() as bar:
        task = bar.add_task('', total=sum(len(TABLES[number].rows) for number in tables))

        def show(name: str) -> None:
            bar.update(task, description=name, advance=1)

        counts = count_tables(tables, ROOT / 'configs', snip, show)
    images = args.num if args.images else None
    text = document(counts, command(args, parser), images, args.seeds)
    out = args.out or DOCUMENT
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding='utf-8')
    print(summary(counts))
    print(f'wrote {out}')


if __name__ == '__main__':
    main()
