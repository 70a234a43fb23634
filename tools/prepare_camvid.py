"""Arrange CamVid (11 classes, 480 x 360) as the CamVid configs of this package read it.

    python tools/prepare_camvid.py SOURCE data/camvid

SOURCE is either the copy that SegNet's tutorial distributes (train, trainannot, val, valannot,
test, testannot) or has images/{train,val,test} and annotations/{train,val,test}. Images are written
as PNG, so that none loses quality, and label maps with 0 to 10 for the classes and 255 for
unlabelled pixels.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from rich.box import SIMPLE
from rich.table import Table

from mmslak.console import guarded, print_table, progress_bar

CLASSES = (
    'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian',
    'bicyclist',
)  # fmt: skip
#: Images of each split in SegNet's copy.
SPLITS = dict(train=367, val=101, test=233)
#: Value of unlabelled pixels in SegNet's label maps, and in MMSegmentation's.
UNLABELLED, IGNORED = 11, 255
#: Offsets c of the class weights in the configs, see :func:`class_weights`.
OFFSETS = (1.1, 1.02)
LAYOUTS = (('{split}', '{split}annot'), ('images/{split}', 'annotations/{split}'))
SUFFIXES = ('.jpg', '.jpeg', '.png')


def class_weights(shares: np.ndarray, offset: float) -> np.ndarray:
    """Compute the weights of the classes in the loss, 1 / ln(c + p) with a mean of 1 over pixels.

    Args:
        shares (np.ndarray): Share p of each class in the labelled pixels.
        offset (float): c, at least 1; ENet (arXiv 1606.02147) has 1.02. A larger one makes the
            weights more equal.
    """
    weights = 1 / np.log(offset + shares)
    return weights / (weights * shares).sum()


def find_pairs(source: Path, split: str) -> list[tuple[Path, Path]]:
    """Return the images of a split with their label maps, sorted by name.

    Raises:
        FileNotFoundError: If the directories or some label maps are missing.
    """
    for layout in LAYOUTS:
        images, labels = (source / part.format(split=split) for part in layout)
        if images.is_dir() and labels.is_dir():
            break
    else:
        expected = ' or '.join(
            ' and '.join(part.format(split=split) for part in layout) for layout in LAYOUTS
        )
        raise FileNotFoundError(f'{source} must contain the directories {expected}')
    paths = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise FileNotFoundError(f'{images} contains no image ({", ".join(SUFFIXES)})')
    pairs = [(path, labels / f'{path.stem}.png') for path in paths]
    for image, label in pairs:
        if not label.is_file():
            raise FileNotFoundError(f'{image} has no label map {label}')
    return pairs


def read_labels(image: Path, label: Path) -> np.ndarray:
    """Read a label map with unlabelled pixels as 255.

    Raises:
        ValueError: If its size differs from that of the image or a label is out of range.
    """
    with Image.open(image) as picture, Image.open(label) as label_map:
        if picture.size != label_map.size:
            raise ValueError(
                f'{label} is {label_map.width} x {label_map.height}, but its image is '
                f'{picture.width} x {picture.height}'
            )
        labels = np.array(label_map)
    if labels.ndim != 2:
        raise ValueError(f'{label} must have one channel with the number of the class, got RGB')
    unknown = np.setdiff1d(labels, [*range(UNLABELLED + 1), IGNORED])
    if unknown.size:
        raise ValueError(
            f'{label} contains the label {unknown[0]}; allowed are 0 to 10 for the classes and '
            f'{UNLABELLED} or {IGNORED} for unlabelled pixels'
        )
    labels[labels == UNLABELLED] = IGNORED
    return labels.astype(np.uint8)


def prepare(source: Path, target: Path, progress=lambda: None) -> np.ndarray:
    """Write all splits.

    Args:
        source (Path): In one of the two layouts.
        target (Path): Directory to write; it must not exist.
        progress (Callable): Called after each image.

    Returns:
        np.ndarray: Pixels of each class in the training images, of shape (11,).
    """
    splits = {split: find_pairs(source, split) for split in SPLITS}
    # The target appears only when it is complete.
    partial = target.with_name(f'{target.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    pixels = np.zeros(len(CLASSES), np.int64)
    for split, pairs in splits.items():
        images, annotations = partial / 'images' / split, partial / 'annotations' / split
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for image, label in pairs:
            labels = read_labels(image, label)
            with Image.open(image) as picture:
                picture.convert('RGB').save(images / f'{image.stem}.png')
            Image.fromarray(labels).save(annotations / f'{image.stem}.png')
            if split == 'train':
                pixels += np.bincount(labels.ravel(), minlength=256)[: len(CLASSES)]
            progress()
    partial.rename(target)
    return pixels


@guarded
def main() -> None:
    """Write the data set and print what it contains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, metavar='SOURCE', help='directory with CamVid')
    parser.add_argument('target', type=Path, metavar='TARGET', help='directory to write')
    args = parser.parse_args()
    if args.target.exists():
        raise ValueError(f'{args.target} already exists; give another TARGET or remove it')
    counts = {split: len(find_pairs(args.source, split)) for split in SPLITS}
    with progress_bar() as bar:
        task = bar.add_task('images', total=sum(counts.values()))
        pixels = prepare(args.source, args.target, lambda: bar.advance(task))
    table = Table('class', box=SIMPLE, title='Training images')
    table.add_column('pixels', justify='right')
    for offset in OFFSETS:
        table.add_column(f'weight, c = {offset}', justify='right')
    shares = pixels / pixels.sum()
    weights = [class_weights(shares, offset) for offset in OFFSETS]
    for name, share, *row in zip(CLASSES, shares, *weights, strict=True):
        table.add_row(name, f'{share:.2%}', *(f'{weight:.2f}' for weight in row))
    print_table(table)
    for split, count in counts.items():
        usual = '' if count == SPLITS[split] else f' (the usual split has {SPLITS[split]})'
        print(f'{split}: {count} images{usual}')
    print(f'Written to {args.target}')


if __name__ == '__main__':
    main()
