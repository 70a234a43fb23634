"""A picture sheet of the samples of a config's dataset, with their labels."""

import argparse
from pathlib import Path

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from ..analysis.drawing import draw_class, draw_detection, overlay, palette_of
from ..analysis.sheet import picture_sheet
from ..console import guarded
from ..validation.layouts import check_datasets
from .config import innermost_dataset, load_config
from .config_check import check_config

SPLITS = ('train', 'val', 'test')


@guarded
def main() -> None:
    """Check the data, and write the sheet."""
    parser = argparse.ArgumentParser(
        description='Check the data of a config, and draw some samples with their labels, so that '
        'wrong labels, classes and colours are seen before a training.'
    )
    parser.add_argument('config', metavar='CONFIG', help='config file, or the name of a config')
    parser.add_argument('--split', choices=SPLITS, default='train', help='default: train')
    parser.add_argument('--num', type=int, default=8, metavar='N', help='samples (default: 8)')
    parser.add_argument(
        '--out', type=Path, metavar='F', help='PNG file to write (default: CONFIG_SPLIT.png)'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config, such as data_root=PATH',
    )  # fmt: skip
    args = parser.parse_args()
    if args.num < 1:
        raise ValueError(f'--num must be at least 1, got {args.num}')
    out = args.out or Path(f'{Path(args.config.rpartition("::")[2]).stem}_{args.split}.png')
    if out.suffix.lower() != '.png':
        raise ValueError(f'--out must end with .png, got {out}')
    cfg = load_config(args.config, args.cfg_options)
    check_config(cfg, 'train' if args.split == 'train' else 'test')
    notes = check_datasets(cfg, (args.split,))
    dataset = build_dataset(cfg, args.split)
    meta = dataset.metainfo
    draw_samples(dataset, args.num, out)
    print(f'{args.split}: {len(dataset)} images, {len(meta["classes"])} classes')
    for note in notes:
        print(f'note: {note}')
    print(f'Written to {out}')


def build_dataset(cfg: Config, split: str):
    """Build the dataset of a split, without wrappers that repeat or mix images.

    Raises:
        ValueError: If the config has no dataset for the split, or it has no class names.
    """
    settings = innermost_dataset(cfg, split)
    if not settings:
        raise ValueError(f'the config has no {split}_dataloader.dataset')
    if cfg.get('default_scope'):
        init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(settings)
    if not (dataset.metainfo or {}).get('classes'):
        raise ValueError(
            f'the class names are unknown: set metainfo=dict(classes=[...]) in '
            f'{split}_dataloader.dataset'
        )
    return dataset


def loaded_sample(dataset, index: int) -> dict:
    """Return an image of a dataset with its labels, by the transforms that load files alone."""
    load = Compose([t for t in dataset.pipeline.transforms if 'Load' in type(t).__name__])
    return load(dataset.get_data_info(index))


def draw_samples(dataset, count: int, path: Path) -> None:
    """Draw samples at equal distances next to their labels.

    Args:
        dataset: A dataset of a toolbox. Only the transforms that load its files are applied.
        count (int): Number of samples.
        path (Path): PNG file to write.
    """
    count = min(count, len(dataset))
    rows, shown = [], set()
    for i in range(count):
        sample = loaded_sample(dataset, i * len(dataset) // count)
        image = np.ascontiguousarray(sample['img'][..., ::-1])
        labelled, classes = draw_labels(image, sample, dataset.metainfo)
        shown |= classes
        rows.append([Image.fromarray(image), labelled])
    classes, colours = dataset.metainfo['classes'], palette_of(dataset.metainfo)
    legend = [(classes[i], colours[i]) for i in sorted(shown) if i < len(classes)]
    picture_sheet(rows, ('image', 'labels'), path, cell=288, legend=legend)


def draw_labels(image: np.ndarray, sample: dict, meta: dict) -> tuple[Image.Image, set[int]]:
    """Draw the labels of an image over it.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        sample (dict): From :func:`loaded_sample`.
        meta (dict): ``classes`` and, optionally, ``palette``.

    Returns:
        tuple[Image, set[int]]: The picture, and the classes in it.
    """
    if 'gt_seg_map' in sample:
        labels = sample['gt_seg_map']
        return overlay(image, labels, meta), set(np.unique(labels).tolist())
    if 'gt_bboxes' in sample:
        boxes = sample['gt_bboxes']
        instances = dict(
            bboxes=np.asarray(getattr(boxes, 'tensor', boxes)),
            labels=np.asarray(sample['gt_bboxes_labels']),
        )
        if 'gt_masks' in sample:
            instances['masks'] = sample['gt_masks'].to_ndarray()
        return draw_detection(image, instances, meta), set(instances['labels'].tolist())
    label = int(np.ravel(sample['gt_label'])[0])
    return draw_class(image, label, meta), {label}
