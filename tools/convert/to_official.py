"""Convert a checkpoint of this package to the authors' format.

python tools/convert/to_official.py work_dirs/slak_t_in1k/epoch_300.pth SLaK_tiny.pth
"""

import argparse
from pathlib import Path

from mmengine.runner import save_checkpoint

from mmslak.checkpoints import read_checkpoint, to_official
from mmslak.console import guarded


@guarded
def main() -> None:
    """Convert the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', metavar='SRC', help='checkpoint of this package')
    parser.add_argument('dst', metavar='DST', help='file to write')
    args = parser.parse_args()
    if Path(args.dst).exists():
        raise ValueError(f'DST {args.dst} already exists; give another one or remove it')
    checkpoint = to_official(read_checkpoint(args.src), args.src)
    save_checkpoint(checkpoint, args.dst)
    kind = 'classifier' if 'model' in checkpoint else 'segmentor or detector'
    weights = checkpoint.get('model') or checkpoint['state_dict']
    print(f'wrote {args.dst}: a {kind}, {len(weights)} entries')


if __name__ == '__main__':
    main()
