"""Reads annotation files in COCO format, and checks the objects in them."""

import json
import math
import os
from collections.abc import Container
from pathlib import Path

from .data_errors import AnnotationError
from .images import image_fault, pixel_fault
from .lookup import REACH, bounded, image_size, spread, steps
from .masks import check_mask
from .paths import check_inside

#: Entries that MMDetection reads of every object.
_NEEDED = ('image_id', 'category_id', 'bbox', 'area')


def read_annotations(path: str | Path) -> dict:
    """Read an annotation file in COCO format.

    Args:
        path (str or Path): The JSON file.

    Returns:
        dict: Its content. Each of the ``categories`` has ``id`` and ``name``.

    Raises:
        ValueError: If the file is not a JSON file or has no categories.
    """
    try:
        content = json.loads(Path(path).read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} is not a JSON file: {error}') from None
    categories = content.get('categories') if isinstance(content, dict) else None
    if not isinstance(categories, list) or not all(
        isinstance(item, dict) and {'id', 'name'} <= set(item) for item in categories
    ):
        raise ValueError(
            f"{path} is not in COCO format: it has no list 'categories' of id and name"
        )
    return content


def check_objects(content: dict, file: Path, dataset: dict, key: str) -> list[str]:
    """Check the images and objects in a COCO annotation file, and the size of 100 image files.

    Args:
        content (dict): From :func:`read_annotations`.
        file (Path): The file, for messages.
        dataset (dict): Settings of the dataset.
        key (str): Its key in the config, for messages.

    Returns:
        list[str]: A note if boxes lie outside of their image, which MMDetection ignores.

    Raises:
        AnnotationError: If an entry of an image or an object is missing or wrong, if an image is
            in another directory than those of the config, or if it has another size than the file
            says.
    """
    images = _images(content, file, dataset, key)
    categories = {category['id'] for category in content['categories']}
    masks = any(step.get('with_mask') for step in steps(dataset, 'LoadAnnotations'))
    outside = 0
    for item in _entries(content, 'annotations', file, key):
        where = f'{key}: annotation {item.get("id")} in {file}'
        ignored = item.get('ignore')
        missing = [name for name in _NEEDED if item.get(name) is None and not ignored]
        if missing:
            hint = '; add width * height of the box' if missing == ['area'] else ''
            raise AnnotationError(f'{where} has no {" and no ".join(map(repr, missing))}{hint}')
        if not _is_id(item.get('image_id'), images):
            raise AnnotationError(f'{where} has image_id {item.get("image_id")}, which is no image')
        image = images[item['image_id']]
        if masks and item.get('segmentation'):
            # The score of masks also reads those of objects that are ignored.
            check_mask(item['segmentation'], image['width'], image['height'], where)
        if ignored:
            continue
        outside += _check_box(item['bbox'], image, where)
        if not bounded([item['area']], math.inf):
            raise AnnotationError(f'{where}: area must be a number, got {item["area"]!r}')
        # MMDetection drops objects of less than a pixel.
        if (
            masks
            and not item.get('segmentation')
            and item['area'] > 0
            and min(item['bbox'][2:]) >= 1
        ):
            raise AnnotationError(
                f"{where} has no 'segmentation'; a model with masks needs it for every object, so "
                'use a model for boxes, or add the masks'
            )
        if not _is_id(item['category_id'], categories):
            raise AnnotationError(
                f'{where} has category_id {item["category_id"]}, but the categories have the ids '
                + ', '.join(map(str, sorted(categories)))
            )
    _check_sizes(list(images.values()), file, dataset, key)
    return (
        [f'{key}: {outside} boxes in {file} lie outside of their image and are not used']
        if outside
        else []
    )


def _images(content: dict, file: Path, dataset: dict, key: str) -> dict[int, dict]:
    """Return the images by id, after checking their names and sizes."""
    images = _entries(content, 'images', file, key)
    for image in images:
        name, width, height = (image.get(entry) for entry in ('file_name', 'width', 'height'))
        if not isinstance(name, str) or not isinstance(image.get('id'), (int, str)):
            raise AnnotationError(
                f'{key}: image {image.get("id")} in {file} must have id and file_name, got {name!r}'
            )
        if not all(isinstance(side, int) and side > 0 for side in (width, height)):
            raise AnnotationError(
                f'{key}: {name} in {file} must have a positive width and height, got {width} x '
                f'{height}'
            )
        if fault := pixel_fault(width * height):
            raise AnnotationError(f'{key}: {name} in {file}: {fault}')
    folder = str(_folder(dataset))
    paths = (os.path.join(folder, image['file_name']) for image in images)
    check_inside(paths, [dataset.get('data_root'), folder], f'{key}: {file}')
    return {image.get('id'): image for image in images}


def _entries(content: dict, name: str, file: Path, key: str) -> list[dict]:
    """Return a list of the file, after checking that its entries are dicts."""
    entries = content.get(name) or []
    if not isinstance(entries, list) or not all(isinstance(item, dict) for item in entries):
        raise AnnotationError(f'{key}: {name} in {file} must be a list of dicts')
    return entries


def _is_id(value, known: Container) -> bool:
    return isinstance(value, (int, str)) and value in known


def _folder(dataset: dict) -> Path:
    """Return the directory of the images."""
    prefix = dataset.get('data_prefix') or {}
    prefix = prefix if isinstance(prefix, str) else prefix.get('img', '')
    return Path(dataset.get('data_root') or '') / prefix


def _check_box(box, image: dict, where: str) -> bool:
    """Check a box, and return whether it lies outside of its image."""
    if not isinstance(box, list) or len(box) != 4 or not bounded(box, math.inf):
        raise AnnotationError(f'{where}: bbox must be [x, y, width, height], got {box}')
    x, y, width, height = box
    if width < 0 or height < 0:
        raise AnnotationError(
            f'{where}: bbox [x, y, width, height] must not have a negative width or height, got '
            f'{box}; for corners [x1, y1, x2, y2] store [x1, y1, x2 - x1, y2 - y1]'
        )
    if not bounded(box, REACH * max(image['width'], image['height'])):
        raise AnnotationError(
            f'{where}: bbox {box} is more than {REACH} times as large as its image of '
            f'{image["width"]} x {image["height"]} pixels; correct it'
        )
    return bool(x >= image['width'] or y >= image['height'] or x + width < 0 or y + height < 0)


def _check_sizes(images: list[dict], file: Path, dataset: dict, key: str) -> None:
    """Compare the sizes of images with those in the annotation file."""
    folder = _folder(dataset)
    for image in spread(images):
        path, named = folder / image['file_name'], (image['width'], image['height'])
        if not path.is_file() or image_fault(path):
            # Missing and damaged images are reported, or skipped, later.
            continue
        size, orientation = image_size(path, dataset)
        if size != named:
            cause = f' after its orientation {orientation} in EXIF is applied' * (orientation != 1)
            raise AnnotationError(
                f'{key}: {path} has {size[0]} x {size[1]} pixels{cause}, but {file} says '
                f'{named[0]} x {named[1]}; the boxes belong to another size'
            )
