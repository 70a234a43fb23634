"""Compares the class list of a detection dataset with its annotations and the model's heads."""

from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from .coco_annotations import check_objects, read_annotations
from .lookup import type_name
from .voc_annotations import read_objects


def check_annotations(cfg: Config, dataset: dict, key: str) -> list[str]:
    """Compare the classes of a detection dataset with its annotations and the model's heads.

    MMDetection numbers the classes in the order of the annotation file and ignores unknown ones,
    so that training with a wrong list would give no error. The annotations themselves are checked
    too: ids, boxes and masks of all objects, and the size of 100 images.

    Args:
        cfg (Config): The whole config.
        dataset (dict): The dataset. Types other than CocoDataset, XMLDataset and VOCDataset are
            not checked.
        key (str): Its key in the config, for messages.

    Returns:
        list[str]: Notes on classes that are not in the class list, and on boxes that are not used.

    Raises:
        AnnotationError: If an annotation is wrong, naming the first one.
        ValueError: If classes are missing in the annotations, naming all differences, or if the
            heads have another number of classes.
    """
    kind = type_name(dataset)
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
        content = read_annotations(file)
        found = [category['name'] for category in content['categories']]
    else:
        found = read_objects(dataset, file, key)
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
    notes = check_objects(content, file, dataset, key) if kind == 'CocoDataset' else []
    if left_out:
        notes.append(f'{key}: these classes in {file} are not used: {_names(left_out)}')
    return notes


def _names(names: list[str], most: int = 20) -> str:
    if not names:
        return 'nothing'
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more


def _default_classes(kind: str) -> tuple[str, ...]:
    from mmdet import datasets

    return getattr(datasets, kind).METAINFO.get('classes', ())


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
