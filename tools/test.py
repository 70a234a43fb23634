"""Evaluate a checkpoint, with pictures and predictions where asked for.

    python tools/test.py configs/upernet_slak_t_ade20k.py CHECKPOINT --show-dir pictures
"""

import argparse

from mmslak.engine.launch import add_common_arguments, guarded, load, start


def parse_args(arguments=None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='file that training wrote')
    parser.add_argument('--show-dir', metavar='D', help='draw the predictions into folder D')
    parser.add_argument(
        '--out',
        metavar='F',
        help='write the results: F.json the scores, F.pkl all predictions, any other name a '
        'folder of predictions in the form of the data set (segmentation: label maps)',
    )
    parser.add_argument('--tta', action='store_true', help='several scales and flips')
    return parser.parse_args(arguments)


@guarded
def main() -> None:
    """Test, and say where everything went."""
    args = parse_args()
    cfg = load(args)
    start(cfg, args, task='test')


if __name__ == '__main__':
    main()
