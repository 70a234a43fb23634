"""Look at a data set's folders before any work starts."""

from pathlib import Path

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
  meta/{train,val}.txt           (optional: file and label in each line)"""
#: part of the data set's type -> the layout it is read from
LAYOUTS = {'ADE20K': _ADE20K, 'BaseSeg': _ADE20K, 'Coco': _COCO, 'VOC': _VOC, 'ImageNet': _IMAGENET}
SAMPLE_COMMAND = 'python tools/make_sample_data.py data/sample'


class DatasetLayoutError(FileNotFoundError):
    """A data set is missing or not laid out as its type expects."""


def check_datasets(cfg, splits: tuple[str, ...]) -> None:
    """Check that the folders and annotation files of a config's data sets are there.

    Args:
        cfg (Config): A config of any toolbox.
        splits (tuple[str]): Of ``train``, ``val``, ``test``, those that will be used.

    Raises:
        DatasetLayoutError: Naming what was looked for, the layout expected and the command
            that makes sample data.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            for dataset in _leaves(loader.get('dataset') or {}):
                _check_dataset(dataset, f'{split}_dataloader.dataset')


def _leaves(dataset: dict):
    """Yield the data sets inside wrappers such as ConcatDataset and RepeatDataset."""
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
        _fail(kind, key, root, root, layout, 'folder')
    prefixes = dataset.get('data_prefix') or {}
    prefixes = dict(img_path=prefixes) if isinstance(prefixes, str) else prefixes
    for prefix in [*prefixes.values(), dataset.get('split') or '']:
        folder = root / prefix
        if not folder.is_dir():
            _fail(kind, key, root, folder, layout, 'folder')
        if not any(folder.iterdir()):
            _fail(kind, key, root, folder, layout, 'file in')
    annotations = dataset.get('ann_file')
    if annotations and not (root / annotations).exists():
        _fail(kind, key, root, root / annotations, layout, 'file')
    if 'seg_map_path' in prefixes and 'img_path' in prefixes and not annotations:
        _check_pairs(dataset, kind, key, root, prefixes, layout)


def _check_pairs(dataset, kind, key, root, prefixes, layout) -> None:
    """Every image of a segmentation data set needs a label map of its name."""
    image_suffix = dataset.get('img_suffix', '.jpg')
    label_suffix = dataset.get('seg_map_suffix', '.png')
    folder = root / prefixes['img_path']
    images = sorted(folder.rglob(f'*{image_suffix}'))
    if not images:
        _fail(kind, key, root, folder / f'*{image_suffix}', layout, 'file')
    labels = {
        p.relative_to(root / prefixes['seg_map_path']).with_suffix('')
        for p in (root / prefixes['seg_map_path']).rglob(f'*{label_suffix}')
    }
    for image in images:
        name = image.relative_to(folder).with_suffix('')
        if name not in labels:
            label = root / prefixes['seg_map_path'] / f'{name}{label_suffix}'
            _fail(kind, key, root, label, layout, f'label map of {image.name}:')


def _fail(kind: str, key: str, root: Path, wanted: Path, layout: str, what: str) -> None:
    raise DatasetLayoutError(
        f'{key} ({kind}): there is no {what} {wanted.absolute()}\n'
        f'Expected under {root.absolute()} (data_root in the config):\n{layout}\n'
        f'Set it with --cfg-options data_root=PATH, or make sample data and use a config in '
        f'configs/sample:\n  {SAMPLE_COMMAND}'
    )
