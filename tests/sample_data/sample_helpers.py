"""What the tests of the sample data share."""

import hashlib
from pathlib import Path

from mmslak.sample_data import STUFF_CLASSES

FIRST_THING = len(STUFF_CLASSES) + 1


def tree_hash(root):
    digest = hashlib.sha256()
    for path in sorted(Path(root).rglob('*')):
        digest.update(path.relative_to(root).as_posix().encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def naive_box(mask):
    """Return first column, first row, last column and last row of a mask, pixel by pixel."""
    points = [(x, y) for y, row in enumerate(mask.tolist()) for x, on in enumerate(row) if on]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def split_of(scene):
    return 'val' if scene.index % 5 == 1 else 'train'
