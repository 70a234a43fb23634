"""Make sample data in the layouts of ADE20K, COCO, VOC2007 and ImageNet, without a download.

Example:
    python tools/make_sample_data.py data/sample --images 400 --size 128
"""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from mmslak.console import progress_bar
from mmslak.sample_data import LAYOUTS, write_sample_data


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Render scenes and write them in the layouts of ADE20K, COCO, VOC2007 and '
        'ImageNet. The same arguments give the same scenes on every machine.'
    )
    parser.add_argument('root', metavar='DIR', help='directory to create, such as data/sample')
    parser.add_argument(
        '--images', type=int, default=400, metavar='N', help='number of scenes (default: 400)'
    )
    parser.add_argument(
        '--size',
        type=int,
        default=128,
        metavar='S',
        help='longer side of a scene in pixels, at least 48 (default: 128)',
    )
    parser.add_argument('--seed', type=int, default=0, metavar='K', help='seed (default: 0)')
    parser.add_argument(
        '--context',
        action='store_true',
        help='make the classes of objects depend on a sun or a moon far away in the image',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace sample data of other parameters'
    )
    return parser.parse_args(argv)


def main(argv=None) -> int:
    """Write the data, and print its directories and the number of images."""
    args = parse_args(argv)
    bar = progress_bar()
    task = bar.add_task('Scenes', total=None)

    def progress(done, total):
        # Not before the first scene, so that errors and existing data are reported without a bar.
        if not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        data = write_sample_data(
            args.root,
            images=args.images,
            size=args.size,
            seed=args.seed,
            context=args.context,
            overwrite=args.overwrite,
            progress=progress,
        )
    except (ValueError, OSError) as error:
        bar.stop()
        print(f'make_sample_data.py: error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        bar.stop()
        print('make_sample_data.py: interrupted, nothing was written', file=sys.stderr)
        return 130
    bar.stop()
    console = Console()
    if data.written:
        console.print(f'Done in {data.seconds:.1f} s.')
    else:
        console.print('The directory already contains this sample data; nothing to do.')
    table = Table('layout', 'directory', 'train', 'val', 'classes')
    for layout, counts in data.counts.items():
        folder = str(data.root / LAYOUTS[layout])
        numbers = (counts['train'], counts['val'], data.classes[layout])
        table.add_row(layout, folder, *map(str, numbers))
    console.print(table)
    return 0


if __name__ == '__main__':
    sys.exit(main())
