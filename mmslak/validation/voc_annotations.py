"""Reads and checks annotation files in the layout of VOC."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .data_errors import AnnotationError, DatasetLayoutError
from .images import BadImageError, image_fault, pixel_fault
from .lookup import REACH, bounded, image_size
from .paths import check_inside

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


class _RefuseDoctype(ElementTree.TreeBuilder):
    """Stops at a document type, before the entities in it are declared.

    Nested entities can fill the memory. Python's parser has a limit for them, but only from 8 MB
    on, and only with a recent expat.
    """

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise AnnotationError(
            'it has a DOCTYPE, which can declare entities; annotations need none, so remove it'
        )


def read_objects(dataset: dict, image_set: Path, key: str) -> list[str]:
    """Read and check the objects of an image set in the layout of VOC.

    Args:
        dataset (dict): Settings of the dataset.
        image_set (Path): The file that lists the images.
        key (str): Key of the dataset in the config, for messages.

    Returns:
        list[str]: The classes in order of occurrence.

    Raises:
        DatasetLayoutError: If an image has no annotation file.
        AnnotationError: If a name in the image set leaves the directory of the data, if an
            annotation file is not an XML file or has a DOCTYPE, or if a size or a box in it is
            wrong.
        BadImageError: If an annotation file has no size and its image cannot be read.
    """
    data_root = Path(dataset.get('data_root') or '')
    root = data_root / (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    annotations = root / dataset.get('ann_subdir', 'Annotations')
    images = root / dataset.get('img_subdir', 'JPEGImages')
    stems = image_set.read_text().split()
    paths = [annotations / f'{stem}.xml' for stem in stems]
    folders = [dataset.get('data_root'), str(annotations)]
    check_inside(map(str, paths), folders, f'{key}: {image_set}')
    names = {}
    for stem, path in zip(stems, paths, strict=True):
        try:
            tree = ElementTree.parse(path, ElementTree.XMLParser(target=_RefuseDoctype()))
        except FileNotFoundError:
            raise DatasetLayoutError(
                f'{image_set} lists {stem}, but the annotation file {path} does not exist'
            ) from None
        except AnnotationError as error:
            raise AnnotationError(f'{key}: {path} cannot be used: {error}') from None
        # Unknown encodings raise the other two.
        except (ElementTree.ParseError, LookupError, ValueError) as error:
            raise AnnotationError(f'{path} is not an XML file: {error}') from None
        size = _size(tree, path, images / f'{stem}.jpg', dataset, key)
        for item in tree.iter('object'):
            names.setdefault(item.findtext('name'))
            _check_box(item, size, path, key)
    return list(names)


def _size(
    tree: ElementTree.ElementTree, path: Path, image: Path, dataset: dict, key: str
) -> tuple[int, int]:
    """Return width and height of an image from its annotation file, or from the image itself."""
    if tree.find('size') is None:
        # MMDetection decodes the image while it reads the annotation.
        if fault := image_fault(image, decode=True):
            raise BadImageError(f'{key}: image {image}: {fault}; replace it')
        return image_size(image, dataset)[0]
    texts = [tree.findtext(f'size/{side}') for side in ('width', 'height')]
    try:
        size = int(texts[0]), int(texts[1])
    except (TypeError, ValueError):
        size = 0, 0
    if min(size) < 1:
        raise AnnotationError(
            f'{key}: width and height in {path} must be positive integers, got {texts}'
        )
    if fault := pixel_fault(size[0] * size[1]):
        raise AnnotationError(f'{key}: size in {path}: {fault}')
    return size


def _check_box(item: ElementTree.Element, size: tuple[int, int], path: Path, key: str) -> None:
    texts = [item.findtext(f'bndbox/{corner}') for corner in _CORNERS]
    try:
        x1, y1, x2, y2 = (int(float(text)) for text in texts)
    except (TypeError, ValueError, OverflowError):
        raise AnnotationError(
            f'{key}: {path} has an object whose bndbox has no numbers {", ".join(_CORNERS)}, got '
            f'{texts}'
        ) from None
    corners = f'{key}: {path} has an object with xmin {x1}, xmax {x2}, ymin {y1} and ymax {y2}'
    if x2 < x1 or y2 < y1:
        raise AnnotationError(f'{corners}; the largest coordinates must not be below the smallest')
    outside = x1 > size[0] or y1 > size[1] or x2 < 1 or y2 < 1
    if outside or not bounded((x1, y1, x2, y2), REACH * max(size)):
        where = 'outside of' if outside else f'more than {REACH} times as large as'
        raise AnnotationError(
            f'{corners}, {where} its image of {size[0]} x {size[1]} pixels; correct or remove it'
        )
