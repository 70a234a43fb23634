"""Checks the directories of the datasets in a config, and then what is in the files."""

from pathlib import Path

from .classification import check_folders
from .data_errors import DatasetLayoutError
from .detection import check_annotations
from .images import set_pixel_limit
from .segmentation import check_label_maps

_ADE20K = """\
  images/training/*.jpg          annotations/training/*.png
  images/validation/*.jpg        annotations/validation/*.png"""
_COCO = """\
  train2017/*.jpg                annotations/instances_train2017.json
  val2017/*.jpg                  annotations/instances_val2017.json"""
_VOC = """\
  VOC2007/JPEGImages/*.jpg       VOC2007/Annotations/*.xml
  VOC2007/ImageSets/Main/{trainval,test}.txt"""
_IMAGENET = """\
  train/<class>/*.JPEG           val/<class>/*.JPEG
  meta/{train,val}.txt           (optional: a file and its label in each line)"""
#: Part of the name of a dataset's type -> the layout that it reads.
LAYOUTS = {
    'ADE20K': _ADE20K,
    'BaseSeg': _ADE20K,
    'Coco': _COCO,
    'VOC': _VOC,
    'XML': _VOC,
    'ImageNet': _IMAGENET,
}
SAMPLE_COMMAND = 'python tools/make_sample_data.py data/sample'


def check_datasets(cfg, splits: tuple[str, ...]) -> list[str]:
    """Check the directories, annotations and class lists of the datasets in a config.

    Args:
        cfg (Config): A config of any toolbox.
        splits (tuple[str]): The splits that are used: ``train``, ``val``, ``test``.

    Returns:
        list[str]: Notes on what is allowed but may be a mistake, such as unused classes.

    Raises:
        DatasetLayoutError: If a file or directory does not exist, naming it, the expected layout
            and the command that makes sample data.
        ValueError: If a class list does not match the annotations or the heads of the model, or
            if an annotation or a label map is wrong.
    """
    set_pixel_limit(cfg)
    notes = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            for dataset in _leaves(loader.get('dataset') or {}):
                key = f'{split}_dataloader.dataset'
                _check_dataset(dataset, key)
                for check in (check_annotations, check_label_maps, check_folders):
                    notes += check(cfg, dataset, key)
        for metric in _as_list(cfg.get(f'{split}_evaluator')):
            path = metric.get('ann_file')
            if path and '://' not in path and not Path(path).is_file():
                raise DatasetLayoutError(
                    f'{split}_evaluator.ann_file: the file {Path(path).absolute()} does not exist; '
                    f'set it to the annotation file of {split}_dataloader.dataset'
                )
    return notes


def _as_list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


def _leaves(dataset: dict):
    """Yield the datasets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = dataset.get('datasets') or ([dataset['dataset']] if 'dataset' in dataset else [])
    if not inner:
        yield dataset
    for item in inner:
        yield from _leaves(item)


def _check_dataset(dataset: dict, key: str) -> None:
    kind = str(dataset.get('type', ''))
    layout = next((text for name, text in LAYOUTS.items() if name in kind), None)
    if layout is None:
        return
    root = Path(dataset.get('data_root') or '')
    if not root.is_dir():
        _fail(kind, key, root, f'directory {root.absolute()}', layout)
    prefixes = dataset.get('data_prefix') or {}
    prefixes = dict(img_path=prefixes) if isinstance(prefixes, str) else prefixes
    for prefix in [*prefixes.values(), dataset.get('split') or '']:
        folder = root / prefix
        if not folder.is_dir():
            _fail(kind, key, root, f'directory {folder.absolute()}', layout)
        if not any(folder.iterdir()):
            _fail(kind, key, root, f'file in {folder.absolute()}', layout)
    annotations = dataset.get('ann_file')
    if annotations and not (root / annotations).exists():
        _fail(kind, key, root, f'file {(root / annotations).absolute()}', layout)
    if 'seg_map_path' in prefixes and 'img_path' in prefixes and not annotations:
        _check_pairs(dataset, kind, key, root, prefixes, layout)


def _check_pairs(dataset, kind, key, root, prefixes, layout) -> None:
    """Check that every image of a segmentation dataset has a label map with its name."""
    image_suffix = dataset.get('img_suffix', '.jpg')
    label_suffix = dataset.get('seg_map_suffix', '.png')
    folder = root / prefixes['img_path']
    images = sorted(folder.rglob(f'*{image_suffix}'))
    if not images:
        _fail(kind, key, root, f'file {(folder / f"*{image_suffix}").absolute()}', layout)
    labels = {
        p.relative_to(root / prefixes['seg_map_path']).with_suffix('')
        for p in (root / prefixes['seg_map_path']).rglob(f'*{label_suffix}')
    }
    for image in images:
        name = image.relative_to(folder).with_suffix('')
        if name not in labels:
            label = root / prefixes['seg_map_path'] / f'{name}{label_suffix}'
            _fail(kind, key, root, f'label map of {image.name}, {label.absolute()},', layout)


def _fail(kind: str, key: str, root: Path, missing: str, layout: str) -> None:
    raise DatasetLayoutError(
        f'{key} ({kind}): there is no {missing}\n'
        f'Expected layout of {root.absolute()} (data_root in the config):\n{layout}\n'
        f'Set another directory with --cfg-options data_root=PATH, or make sample data and use a '
        f'config in configs/sample:\n  {SAMPLE_COMMAND}'
    )
