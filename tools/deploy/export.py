"""Export a trained model to one safetensors file: float16 weights, masks and model config.

    python tools/deploy/export.py configs/upernet_slak_nano_camvid.py best.pth model.safetensors \\
        --meta licence=Apache-2.0 miou_of_test_images=61.3
    python tools/test.py configs/upernet_slak_nano_camvid.py model.safetensors

mmslak.pretrained.load_model(OUT) loads a segmentation model from it without a config.
"""

import argparse
import json

from mmengine.config import DictAction

from mmslak.checkpoints import export_checkpoint, read_checkpoint
from mmslak.cli.config import load_config
from mmslak.console import guarded


def parse_notes(pairs: list[str]) -> dict:
    """Parse KEY=VALUE, where VALUE is JSON or else a string.

    Raises:
        ValueError: If there is no key, no equals sign, or the same key twice.
    """
    notes = {}
    for pair in pairs:
        key, given, text = pair.partition('=')
        if not key or not given or key in notes:
            raise ValueError(f'--meta must have entries KEY=VALUE with different keys, got {pair}')
        try:
            notes[key] = json.loads(text)
        except ValueError:
            notes[key] = text
    return notes


@guarded
def main() -> None:
    """Export the checkpoint and print what was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', metavar='CONFIG', help='config of the trained model')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of the trained model')
    parser.add_argument('out', metavar='OUT', help='file to write, NAME.safetensors')
    parser.add_argument(
        '--meta',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='meta data to add, such as scores and the licence; numbers and other JSON values are '
        'stored as such',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    notes = parse_notes(args.meta)
    checkpoint = read_checkpoint(args.checkpoint)
    done = export_checkpoint(cfg, checkpoint, args.out, notes, args.checkpoint)
    print(f'wrote {args.out}: {done.size / 1e6:.2f} MB')
    print(
        f'{done.parameters:,} parameters, of which {done.active:,} are active '
        f'({done.active / done.parameters:.1%})'
    )


if __name__ == '__main__':
    main()
