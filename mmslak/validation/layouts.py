"""Look at a data set's folders and classes before any work starts."""

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
  meta/{train,val}.txt           (optional: file and label in each line)"""
#: part of the data set's type -> the layout it is read from
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
    """A data set is missing or not laid out as its type expects."""


def check_datasets(cfg, splits: tuple[str, ...]) -> list[str]:
    """Check the folders, annotation files and class lists of a config's data sets.

    Args:
        cfg (Config): A config of any toolbox.
        splits (tuple[str]): Of ``train``, ``val``, ``test``, those that will be used.

    Returns:
        list[str]: What is allowed but worth knowing, such as classes that are not used.

    Raises:
        DatasetLayoutError: Naming what was looked for, the layout expected and the command
            that makes sample data.
        ValueError: If a class list does not fit the annotations or the model's heads.
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
                    f'{split}_evaluator.ann_file: there is no file {Path(path).absolute()}; it '
                    f'must be the annotation file of {split}_dataloader.dataset'
                )
    return notes


def _as_list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value] if value else []


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


def check_classes(cfg, dataset: dict, key: str) -> list[str]:
    """Compare the classes of a detection data set with its annotations and the model's heads.

    MMDetection takes labels from the order of the annotation file and leaves out what it does
    not know, so that a wrong list would train without a word.

    Args:
        cfg (Config): The whole config.
        dataset (dict): Of type CocoDataset, XMLDataset or VOCDataset; others pass.
        key (str): Where it stands in the config.

    Returns:
        list[str]: Categories of the annotations that the class list leaves out on purpose.

    Raises:
        ValueError: Naming the classes that the file lacks and those that the list lacks.
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
        raise ValueError(f'{where} must name the classes: {kind} has none of its own')
    classes = list(classes)
    file = Path(dataset.get('data_root') or '') / dataset['ann_file']
    if kind == 'CocoDataset':
        found = [category['name'] for category in read_categories(file)]
    else:
        found = _voc_names(dataset, file)
    unknown = [name for name in classes if name not in found]
    left_out = [name for name in found if name not in classes]
    # In VOC's layout a class without an object is in no file; one of 20 may well be rare.
    if unknown and (kind == 'CocoDataset' or left_out):
        raise ValueError(
            f'{where} does not match {file}: {_names(unknown)} not in the file, '
            f'{_names(left_out)} not in metainfo.classes; '
            f'set metainfo=dict(classes={tuple(found)}) for every data set, or put the file right'
        )
    ordered = [name for name in found if name in classes]
    if kind == 'CocoDataset' and ordered != classes:
        raise ValueError(
            f'{where} must be in the order of the categories of {file}, by which MMDetection '
            f'numbers them: {tuple(ordered)}'
        )
    for path, count in _class_counts(cfg.get('model') or {}, 'model'):
        if count != len(classes):
            raise ValueError(
                f'{path}.num_classes is {count}, but {where} has {len(classes)} '
                f'({_names(classes)}); set num_classes={len(classes)}'
            )
    if left_out:
        return [f'{key}: of the annotations in {file}, {_names(left_out)} are not used']
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
    """Read the categories of an annotation file in COCO's form.

    Args:
        path (str or Path): JSON file; half a gigabyte for COCO's own training set, which is why
            only the part that tells the categories is decoded.

    Returns:
        list[dict]: ``id`` and ``name`` of each, in the file's order.

    Raises:
        ValueError: If the file is no JSON or has no categories.
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
            f"{path} has no list 'categories' of id and name: it is not in COCO's form"
        )
    return found


def _are_categories(found) -> bool:
    return isinstance(found, list) and all(
        isinstance(item, dict) and {'id', 'name'} <= set(item) for item in found
    )


def _voc_names(dataset: dict, image_set: Path) -> list[str]:
    """Read the names of all objects of an image set in VOC's layout, in the order met.

    Raises:
        DatasetLayoutError: If an image has no annotation file.
        ValueError: If one is no XML.
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
                f'{image_set} lists {stem}, but there is no annotation file {path}'
            ) from None
        except ElementTree.ParseError as error:
            raise ValueError(f'{path} is not an XML file: {error}') from None
    return list(names)


def _class_counts(model: dict, path: str) -> Iterator[tuple[str, int]]:
    """Yield every head that has ``num_classes``, and that number."""
    if isinstance(model, dict):
        if 'num_classes' in model:
            yield path, model['num_classes']
        for name in ('roi_head', 'bbox_head', 'mask_head'):
            if name in model:
                yield from _class_counts(model[name], f'{path}.{name}')
    elif isinstance(model, (list, tuple)):
        for i, item in enumerate(model):
            yield from _class_counts(item, f'{path}.{i}')
