"""Train any config of this package or of a toolbox that uses it.

    python tools/train.py configs/upernet_slak_t_ade20k.py --work-dir work_dirs/slak_t
"""

import argparse

from mmslak.engine.launch import add_common_arguments, guarded, load, start


def parse_args(arguments=None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on from PATH, or from the last checkpoint in the work folder',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    return parser.parse_args(arguments)


@guarded
def main() -> None:
    """Train, and say where everything went."""
    args = parse_args()
    cfg = load(args)
    start(cfg, args, task='train')


if __name__ == '__main__':
    main()
