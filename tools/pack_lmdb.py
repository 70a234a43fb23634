"""Pack the images of a data set into one LMDB file, for file systems that choke on a million files.

python tools/pack_lmdb.py data/imagenet/train data/imagenet_train.lmdb

MMEngine's file backend reads them: an image is found by its path under the folder.
"""

import argparse
import os
from pathlib import Path

from mmslak.console import guarded

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif'}
#: Images of one transaction.
BATCH = 1000


@guarded
def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('folder', metavar='FOLDER', help='with the images, at any depth')
    parser.add_argument('dst', metavar='DST', help='LMDB to write')
    args = parser.parse_args()
    try:
        import lmdb
    except ImportError:
        raise ImportError(
            "this needs lmdb, which is not installed: pip install 'mmslak[pretrain]' brings it"
        ) from None
    folder = Path(args.folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'folder {folder} does not exist')
    if Path(args.dst).exists():
        raise ValueError(f'{args.dst} already exists; give another DST or remove it')
    files = sorted(
        path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not files:
        raise FileNotFoundError(f'folder {folder} holds no image ({", ".join(sorted(SUFFIXES))})')
    size = sum(os.path.getsize(path) for path in files)
    # The most it may grow to; nothing is reserved on the disk.
    with lmdb.open(args.dst, map_size=2 * size + 8192 * len(files) + 2**24) as database:
        for start in range(0, len(files), BATCH):
            with database.begin(write=True) as transaction:
                for path in files[start : start + BATCH]:
                    key = path.relative_to(folder).as_posix()
                    transaction.put(key.encode('ascii'), path.read_bytes())
    print(f'wrote {len(files):,} images, {size / 1e6:,.1f} MB, into {args.dst}')


if __name__ == '__main__':
    main()
