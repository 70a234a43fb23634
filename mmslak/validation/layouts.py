"""Checks the directories, annotation files and class lists of the datasets in a config."""

import contextlib
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
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


class DatasetLayoutError(FileNotFoundError):
    """A dataset does not exist or does not have the layout of its type."""


def check_datasets(cfg, splits: tuple[str, ...]) -> list[str]:
    """Check the directories, annotation files and class lists of the datasets in a config.

    Args:
        cfg (Config): A config of any toolbox.
        splits (tuple[str]): The splits that are used: ``train``, ``val``, ``test``.

    Returns:
        list[str]: Notes on what is allowed but may be a mistake, such as unused classes.

    Raises:
        DatasetLayoutError: If a file or directory does not exist, naming it, the expected layout
            and the command that makes sample data.
        ValueError: If a class list does not match the annotations or the heads of the model.
    """
    notes = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader:
            for dataset in _leaves(loader.get('dataset') or {}):
                _check_dataset(dataset, f'{split}_dataloader.dataset')
                notes += check_classes(cfg, dataset, f'{split}_dataloader.dataset')
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


def check_classes(cfg, dataset: dict, key: str) -> list[str]:
    """Compare the classes of a detection dataset with its annotations and the model's heads.

    MMDetection numbers the classes in the order of the annotation file and ignores unknown ones,
    so that training with a wrong list would give no error.

    Args:
        cfg (Config): The whole config.
        dataset (dict): The dataset. Types other than CocoDataset, XMLDataset and VOCDataset are
            not checked.
        key (str): Its key in the config, for messages.

    Returns:
        list[str]: A note if the annotations contain classes that are not in the class list.

    Raises:
        ValueError: If classes are missing in the annotations, naming all differences, or if the
            heads have another number of classes.
    """
    kind = _type_name(dataset)
    if kind not in ('CocoDataset', 'XMLDataset', 'VOCDataset') or not dataset.get('ann_file'):
        return []
    where = f'{key}.metainfo.classes'
    classes = (dataset.get('metainfo') or {}).get('classes') or _default_classes(kind)
    if isinstance(classes, str):
        raise ValueError(
            f"{where} must be a tuple of names, got the string {classes!r}; one class is ('name',)"
        )
    if not classes:
        raise ValueError(f'{where} must list the classes: {kind} has no default')
    classes = list(classes)
    file = Path(dataset.get('data_root') or '') / dataset['ann_file']
    if kind == 'CocoDataset':
        found = [category['name'] for category in read_categories(file)]
    else:
        found = _voc_names(dataset, file)
    unknown = [name for name in classes if name not in found]
    left_out = [name for name in found if name not in classes]
    # In the layout of VOC a class without objects is in no file, and a rare class may have none.
    if unknown and (kind == 'CocoDataset' or left_out):
        raise ValueError(
            f'{where} does not match {file}: {_names(unknown)} not in the file, '
            f'{_names(left_out)} not in metainfo.classes; '
            f'set metainfo=dict(classes={tuple(found)}) for every dataset, or correct the file'
        )
    ordered = [name for name in found if name in classes]
    if kind == 'CocoDataset' and ordered != classes:
        raise ValueError(
            f'{where} must be in the order of the categories of {file}, because MMDetection '
            f'numbers them in that order: {tuple(ordered)}'
        )
    for path, count in _class_counts(cfg.get('model') or {}, 'model'):
        if count != len(classes):
            raise ValueError(
                f'{path}.num_classes is {count}, but {where} has {len(classes)} '
                f'({_names(classes)}); set num_classes={len(classes)}'
            )
    if left_out:
        return [f'{key}: these classes in {file} are not used: {_names(left_out)}']
    return []


def _type_name(dataset: dict) -> str:
    kind = dataset.get('type', '')
    return kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]


def _names(names: list[str], most: int = 20) -> str:
    if not names:
        return 'nothing'
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def _default_classes(kind: str) -> tuple[str, ...]:
    from mmdet import datasets

    return getattr(datasets, kind).METAINFO.get('classes', ())


def read_categories(path: str | Path) -> list[dict]:
    """Read the categories of an annotation file in COCO format.

    Only this part of the file is decoded, because the file of COCO's training set has half a
    gigabyte.

    Args:
        path (str or Path): The JSON file.

    Returns:
        list[dict]: ``id`` and ``name`` of each category in the order of the file.

    Raises:
        ValueError: If the file is not a JSON file or has no categories.
    """
    text, found = Path(path).read_text(), None
    with contextlib.suppress(ValueError):
        start = text.index('[', text.rindex('"categories"'))
        found, _ = json.JSONDecoder().raw_decode(text, start)
    if not _are_categories(found):
        try:
            whole = json.loads(text)
        except ValueError as error:
            raise ValueError(f'{path} is not a JSON file: {error}') from None
        found = whole.get('categories') if isinstance(whole, dict) else None
    if not _are_categories(found):
        raise ValueError(
            f"{path} is not in COCO format: it has no list 'categories' of id and name"
        )
    return found


def _are_categories(found) -> bool:
    return isinstance(found, list) and all(
        isinstance(item, dict) and {'id', 'name'} <= set(item) for item in found
    )


def _voc_names(dataset: dict, image_set: Path) -> list[str]:
    """Read the classes of all objects of an image set in the layout of VOC, in order of occurrence.

    Raises:
        DatasetLayoutError: If an image has no annotation file.
        ValueError: If an annotation file is not an XML file.
    """
    root = Path(dataset.get('data_root') or '')
    root = root / (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    folder = root / dataset.get('ann_subdir', 'Annotations')
    names = {}
    for stem in image_set.read_text().split():
        path = folder / f'{stem}.xml'
        try:
            for item in ElementTree.parse(path).iter('object'):
                names.setdefault(item.findtext('name'))
        except FileNotFoundError:
            raise DatasetLayoutError(
                f'{image_set} lists {stem}, but the annotation file {path} does not exist'
            ) from None
        except ElementTree.ParseError as error:
            raise ValueError(f'{path} is not an XML file: {error}') from None
    return list(names)


def _class_counts(model: dict, path: str) -> Iterator[tuple[str, int]]:
    """Yield the key and ``num_classes`` of every head."""
    if isinstance(model, dict):
        if 'num_classes' in model:
            yield path, model['num_classes']
        for name in ('roi_head', 'bbox_head', 'mask_head'):
            if name in model:
                yield from _class_counts(model[name], f'{path}.{name}')
    elif isinstance(model, (list, tuple)):
        for i, item in enumerate(model):
            yield from _class_counts(item, f'{path}.{i}')
