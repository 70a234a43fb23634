"""Reads and checks annotation files in the layout of VOC."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .data_errors import AnnotationError, DatasetLayoutError

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


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
        AnnotationError: If an annotation file is not an XML file, or a box in it is wrong.
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
                _check_box(item, path, key)
        except FileNotFoundError:
            raise DatasetLayoutError(
                f'{image_set} lists {stem}, but the annotation file {path} does not exist'
            ) from None
        except ElementTree.ParseError as error:
            raise AnnotationError(f'{path} is not an XML file: {error}') from None
    return list(names)


def _check_box(item: ElementTree.Element, path: Path, key: str) -> None:
    texts = [item.findtext(f'bndbox/{corner}') for corner in _CORNERS]
    try:
        x1, y1, x2, y2 = (int(float(text)) for text in texts)
    except (TypeError, ValueError, OverflowError):
        raise AnnotationError(
            f'{key}: {path} has an object whose bndbox has no numbers {", ".join(_CORNERS)}, got '
            f'{texts}'
        ) from None
    if x2 < x1 or y2 < y1:
        raise AnnotationError(
            f'{key}: {path} has an object with xmin {x1}, xmax {x2}, ymin {y1} and ymax {y2}; the '
            'largest coordinates must not be below the smallest'
        )
