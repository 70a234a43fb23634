"""Reads annotation files in COCO format, and checks the objects in them."""

import json
import math
from pathlib import Path

from .data_errors import AnnotationError
from .lookup import image_size, spread, steps

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
    except ValueError as error:
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
    """Check the objects in an annotation file in COCO format, and the sizes of 100 images.

    Args:
        content (dict): From :func:`read_annotations`.
        file (Path): The file, for messages.
        dataset (dict): Settings of the dataset.
        key (str): Its key in the config, for messages.

    Returns:
        list[str]: A note if boxes lie outside of their image, which MMDetection ignores.

    Raises:
        AnnotationError: If an entry of an object is missing or wrong, or if an image has another
            size than the file says.
    """
    images = {image.get('id'): image for image in content.get('images') or []}
    categories = {category['id'] for category in content['categories']}
    masks = any(step.get('with_mask') for step in steps(dataset, 'LoadAnnotations'))
    outside = 0
    for item in content.get('annotations') or []:
        if item.get('ignore'):
            continue
        where = f'{key}: annotation {item.get("id")} in {file}'
        missing = [name for name in _NEEDED if item.get(name) is None]
        if missing:
            hint = '; add width * height of the box' if missing == ['area'] else ''
            raise AnnotationError(f'{where} has no {" and no ".join(map(repr, missing))}{hint}')
        outside += _check_box(item['bbox'], images.get(item['image_id'], {}), where)
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
        if item['category_id'] not in categories:
            raise AnnotationError(
                f'{where} has category_id {item["category_id"]}, but the categories have the ids '
                + ', '.join(map(str, sorted(categories)))
            )
        if item['image_id'] not in images:
            raise AnnotationError(f'{where} has image_id {item["image_id"]}, which is no image')
    _check_sizes(list(images.values()), file, dataset, key)
    return (
        [f'{key}: {outside} boxes in {file} lie outside of their image and are not used']
        if outside
        else []
    )


def _check_box(box, image: dict, where: str) -> bool:
    """Check a box, and return whether it lies outside of its image."""
    numbers = isinstance(box, list) and len(box) == 4
    if not numbers or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box):
        raise AnnotationError(f'{where}: bbox must be [x, y, width, height], got {box}')
    x, y, width, height = box
    if width < 0 or height < 0:
        raise AnnotationError(
            f'{where}: bbox [x, y, width, height] must not have a negative width or height, got '
            f'{box}; for corners [x1, y1, x2, y2] store [x1, y1, x2 - x1, y2 - y1]'
        )
    return bool(
        x >= image.get('width', math.inf)
        or y >= image.get('height', math.inf)
        or x + width < 0
        or y + height < 0
    )


def _check_sizes(images: list[dict], file: Path, dataset: dict, key: str) -> None:
    """Compare the sizes of images with those in the annotation file."""
    prefix = dataset.get('data_prefix') or {}
    folder = Path(dataset.get('data_root') or '')
    folder = folder / (prefix if isinstance(prefix, str) else prefix.get('img', ''))
    for image in spread(images):
        named = (image.get('width'), image.get('height'))
        if not all(isinstance(side, int) and side > 0 for side in named):
            raise AnnotationError(
                f'{key}: {image.get("file_name")} in {file} must have a positive width and height, '
                f'got {named[0]} x {named[1]}'
            )
        try:
            size, orientation = image_size(folder / str(image.get('file_name')), dataset)
        except OSError:
            # Missing and damaged images are reported, or skipped, later.
            continue
        if size != named:
            cause = f' after its orientation {orientation} in EXIF is applied' * (orientation != 1)
            raise AnnotationError(
                f'{key}: {folder / image["file_name"]} has {size[0]} x {size[1]} pixels{cause}, '
                f'but {file} says {named[0]} x {named[1]}; the boxes belong to another size'
            )
