"""Compares the settings of a segmentation dataset with its label maps."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from .data_errors import AnnotationError
from .images import BadImageError, check_listed_files, image_fault
from .lookup import dataset_class, image_size, in_threads, is_subclass, spread, steps

#: Modes of Pillow with one integer in each pixel.
_INDEX_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L')
#: Label that MMSegmentation ignores by default, and the largest that it can read.
_IGNORED = 255


def check_label_maps(cfg: Config, dataset: dict, key: str) -> list[str]:
    """Compare the classes of a segmentation dataset with its label maps and the model's heads.

    At most 100 label maps are read, spread evenly over the dataset.

    Args:
        cfg (Config): The whole config.
        dataset (dict): The dataset. Types other than subclasses of BaseSegDataset, and files on
            other machines, are not checked.
        key (str): Its key in the config, for messages.

    Returns:
        list[str]: No notes.

    Raises:
        BadImageError: If an image or a label map is missing or damaged, or has too many pixels.
        AnnotationError: If a list names a file in another directory, if a label map has several
            channels, another size than its image, or labels that the model does not have, or if
            ``reduce_zero_label`` is wrong.
        ValueError: If a head has another number of classes.
    """
    kind = dataset_class(cfg, dataset)
    if not is_subclass(kind, 'BaseSegDataset') or dataset.get('backend_args'):
        return []
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        # Without transforms the dataset only lists the files.
        built = registry.build(dict(dataset, pipeline=[]))
    classes = built.metainfo.get('classes')
    heads = list(_heads(cfg.get('model') or {}))
    for path, head in heads:
        if classes and head['num_classes'] != len(classes):
            raise ValueError(
                f'{path}.num_classes is {head["num_classes"]}, but {key} ({kind.__name__}) has '
                f'{len(classes)} classes; set num_classes={len(classes)}, or the classes of the '
                'dataset with metainfo=dict(classes=...)'
            )
    for step in steps(dataset, 'LoadAnnotations'):
        reduce = step.get('reduce_zero_label')
        if reduce is not None and reduce != built.reduce_zero_label:
            raise ValueError(
                f'{key}.reduce_zero_label is {built.reduce_zero_label}, but that of '
                f'LoadAnnotations in {key}.pipeline is {reduce}; set both to the same value'
            )
    infos = [built.get_data_info(i) for i in range(len(built))]
    if built.ann_file:
        check_listed_files(built, [(i['img_path'], i.get('seg_map_path')) for i in infos])
    infos = [info for info in infos if info.get('seg_map_path')]
    count = len(classes or ()) or (heads[0][1]['num_classes'] if heads else 0)
    if not infos or not count:
        return []
    ignored = {head.get('ignore_index', _IGNORED) for _, head in heads} or {_IGNORED}
    if cfg.get('skip_bad_images'):
        infos = [info for info in spread(infos) if not image_fault(info['img_path'])]
    _Labels(built, dataset, key, count, ignored).check(infos)
    return []


def _heads(model: dict) -> Iterator[tuple[str, dict]]:
    """Yield the key and the settings of every head that has ``num_classes``."""
    for name in ('decode_head', 'auxiliary_head'):
        heads = model.get(name) or []
        single = isinstance(heads, dict)
        for i, head in enumerate([heads] if single else heads):
            if isinstance(head.get('num_classes'), int):
                yield f'model.{name}' + ('' if single else f'.{i}'), head


class _Labels:
    """Checks label maps against the classes of a dataset.

    Args:
        built (BaseSegDataset): The dataset.
        dataset (dict): Its settings.
        key (str): Its key in the config.
        count (int): Number of classes.
        ignored (set[int]): Labels that the losses ignore, after ``reduce_zero_label``.
    """

    def __init__(self, built, dataset: dict, key: str, count: int, ignored: set[int]):
        self.dataset, self.key, self.count = dataset, key, count
        self.reduce = bool(built.reduce_zero_label)
        # A dataset with some of the classes of its type renumbers the others.
        known = set(built.label_map or range(count))
        shift = int(self.reduce)
        self.allowed = {label + shift for label in known}
        self.allowed |= {i if i == _IGNORED else i + shift for i in ignored}
        if self.reduce and _IGNORED in ignored:
            self.allowed.add(0)
        self.renumbers = built.label_map is not None

    def check(self, infos: list[dict]) -> None:
        sample = spread(infos)
        seen: dict[int, str] = {}
        for info, labels in zip(sample, in_threads(self._read, sample), strict=True):
            for label in labels:
                seen.setdefault(label, info['seg_map_path'])
        self.read = f'{len(sample)} of {len(infos)} label maps were read'
        if unknown := sorted(set(seen) - self.allowed):
            self._fail_unknown(unknown, seen)
        if self.reduce and not self.renumbers and self.key.startswith('train'):
            self._check_reduction(set(seen), infos)

    def _read(self, info: dict) -> list[int]:
        """Return the labels of one label map, after checking its format and its size."""
        image, path = info['img_path'], info['seg_map_path']
        for name, file in (('image', image), ('label map', path)):
            if fault := image_fault(file):
                raise BadImageError(f'{self.key}: {name} {file}: {fault}; replace it')
        try:
            expected, orientation = image_size(image, self.dataset)
            with Image.open(path) as picture:
                mode, bands, size = picture.mode, len(picture.getbands()), picture.size
                labels = np.asarray(picture)
        # Pillow's decoders raise errors of many types, which contain the name of the file.
        except Exception as error:
            raise BadImageError(
                f'{self.key}: the label map {path} or its image {image} cannot be read: {error}'
            ) from None
        if mode not in _INDEX_MODES:
            raise AnnotationError(
                f'{self.key}: label map {path} has the mode {mode} with {bands} channels; a label '
                'map has one channel with the number of the class in each pixel, so convert its '
                'colours to numbers'
            )
        if size != expected:
            cause = (
                f' after its orientation {orientation} in EXIF is applied; rotate the pixels and '
                'remove the EXIF data'
                if orientation != 1
                else '; give both the same size'
            )
            raise AnnotationError(
                f'{self.key}: label map {path} has {size[0]} x {size[1]} pixels, but its image '
                f'{Path(image).name} has {expected[0]} x {expected[1]}{cause}'
            )
        if labels.max(initial=0) > _IGNORED or labels.min(initial=0) < 0:
            raise AnnotationError(
                f'{self.key}: label map {path} has the label {labels.max()}, but MMSegmentation '
                'reads label maps with 8 bits; number the classes from 0 to 254'
            )
        return np.flatnonzero(np.bincount(labels.ravel(), minlength=1)).tolist()

    def _fail_unknown(self, unknown: list[int], seen: dict[int, str]) -> None:
        first = int(self.reduce)
        reduced = ' with reduce_zero_label=True' if self.reduce else ''
        hint = 'correct the label maps, or set the classes and num_classes'
        if not self.reduce and 0 not in seen and unknown == [self.count]:
            hint = (
                'no label map has label 0, so set reduce_zero_label=True in the dataset and in '
                'LoadAnnotations'
            )
        raise AnnotationError(
            f'{self.key}: label map {seen[unknown[0]]} has the label {unknown[0]}, but '
            f'{self.count} classes have the labels {first} to {self.count - 1 + first}{reduced}, '
            f'and 255 is ignored; {hint} ({self.read})'
        )

    def _check_reduction(self, seen: set[int], infos: list[dict]) -> None:
        """Refuse ``reduce_zero_label`` if the labels are 0 to count - 1 and not 1 to count."""
        if seen - {_IGNORED} != set(range(self.count)):
            return
        # A rare last class may be in few label maps, so all of them are read.
        if any(self.count in labels for labels in in_threads(self._read, infos)):
            return
        raise AnnotationError(
            f'{self.key}.reduce_zero_label=True ignores label 0 and expects the labels 1 to '
            f'{self.count} for {self.count} classes, but the label maps have 0 to '
            f'{self.count - 1}; set reduce_zero_label=False in the dataset and in LoadAnnotations'
        )
