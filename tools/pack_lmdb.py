"""Pack the images of a dataset into one LMDB file, for file systems that are slow with many files.

    python tools/pack_lmdb.py data/imagenet/train data/imagenet_train.lmdb

MMEngine's LMDB backend reads the images by their paths relative to FOLDER.
"""

import argparse
import os
from pathlib import Path

from mmslak.console import guarded

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif'}
#: Number of images per transaction.
BATCH = 1000


@guarded
def main() -> None:
    """Pack the images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'folder', metavar='FOLDER', help='directory of images, searched with its subdirectories'
    )
    parser.add_argument('dst', metavar='DST', help='LMDB to write')
    args = parser.parse_args()
    try:
        import lmdb
    except ImportError:
        raise ImportError(
            "this needs lmdb, which is not installed: pip install 'mmslak[pretrain]' installs it"
        ) from None
    folder = Path(args.folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'directory {folder} does not exist')
    if Path(args.dst).exists():
        raise ValueError(f'DST {args.dst} already exists; give another one or remove it')
    files = sorted(
        path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not files:
        raise FileNotFoundError(
            f'directory {folder} contains no image ({", ".join(sorted(SUFFIXES))})'
        )
    size = sum(os.path.getsize(path) for path in files)
    # map_size is an upper limit; no disk space is reserved.
    with lmdb.open(args.dst, map_size=2 * size + 8192 * len(files) + 2**24) as database:
        for start in range(0, len(files), BATCH):
            with database.begin(write=True) as transaction:
                for path in files[start : start + BATCH]:
                    key = path.relative_to(folder).as_posix()
                    transaction.put(key.encode('ascii'), path.read_bytes())
    print(f'wrote {len(files):,} images, {size / 1e6:,.1f} MB, to {args.dst}')


if __name__ == '__main__':
    main()
