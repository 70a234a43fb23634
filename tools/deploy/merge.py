"""Merge the branches of SLaK's blocks in a trained model, for faster inference.

Hidden units whose weights are masked are removed, too.

    python tools/deploy/merge.py configs/upernet_slak_t_ade20k.py iter_160000.pth merged.pth
    python tools/test.py configs/upernet_slak_t_ade20k.py merged.pth \\
        --cfg-options model.backbone.deploy=True
"""

import argparse
from pathlib import Path

import torch
from mmengine.config import DictAction
from mmengine.runner import save_checkpoint

from mmslak.checkpoints import merge_checkpoint, read_checkpoint, weights_of
from mmslak.cli.config import load_config
from mmslak.console import guarded


@guarded
def main() -> None:
    """Merge the branches and write the checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', metavar='CONFIG', help='config of the trained model')
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint of the trained model')
    parser.add_argument('out', metavar='OUT', help='file to write')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    args = parser.parse_args()
    if Path(args.out).exists():
        raise ValueError(f'OUT {args.out} already exists; give another one or remove it')
    cfg = load_config(args.config, args.cfg_options)
    torch.manual_seed(0)
    checkpoint = read_checkpoint(args.checkpoint)
    merged, difference = merge_checkpoint(cfg, checkpoint, args.checkpoint)
    save_checkpoint(merged, args.out)
    before, after = (
        sum(value.numel() for value in state.values())
        for state in (weights_of(checkpoint), merged['state_dict'])
    )
    print(f'wrote {args.out}: {after:,} numbers instead of {before:,}')
    print(
        f'largest difference between the outputs, relative to the largest output: {difference:.1e}'
    )
    print(
        f'to use it: python tools/test.py {args.config} {args.out} '
        '--cfg-options model.backbone.deploy=True'
    )


if __name__ == '__main__':
    main()
