"""The class of a dataset, a sample of its files, and properties of images and numbers."""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

#: Number of files that are opened. They are spread evenly over the dataset.
SAMPLE = 100
_THREADS = 8
#: Largest coordinate of a box or a mask, in multiples of the longer side of its image. Annotations
#: of hidden parts reach beyond the image, but not that far.
REACH = 10
#: Tag of the orientation in EXIF, and the orientations that exchange width and height.
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)


def dataset_class(cfg: Config, dataset: dict) -> type | None:
    """Return the registered class of a dataset, or None."""
    kind = dataset.get('type')
    if not isinstance(kind, str):
        return kind if isinstance(kind, type) else None
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope') or 'mmengine') as registry:
        try:
            return registry.get(kind)
        except RuntimeError:
            return None


def is_subclass(kind: type | None, name: str) -> bool:
    """Return whether a class or one of its bases has this name. No toolbox is imported."""
    return any(base.__name__ == name for base in getattr(kind, '__mro__', ()))


def steps(dataset: dict, name: str) -> list[dict]:
    """Return the settings of all transforms in the pipeline of a dataset with this name."""
    found = [step for step in dataset.get('pipeline') or [] if isinstance(step, dict)]
    return [step for step in found if type_name(step) == name]


def type_name(settings: dict) -> str:
    """Return the name of the class in settings with ``type``, without its scope."""
    kind = settings.get('type', '')
    return kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]


def spread(items: Sequence, most: int = SAMPLE) -> list:
    """Return at most ``most`` items, spread evenly over a sequence."""
    if len(items) <= most:
        return list(items)
    return [items[i * len(items) // most] for i in range(most)]


def bounded(numbers: Sequence, most: float) -> bool:
    """Return whether all entries are finite numbers with an absolute value of at most ``most``."""
    try:
        # A sum with NaN is NaN, in contrast to a minimum.
        return math.isfinite(sum(numbers)) and -most <= min(numbers) and max(numbers) <= most
    except (TypeError, ValueError, OverflowError):
        return False


def in_threads(function: Callable, items: Iterable) -> list:
    """Return the results of a function for all items, computed in several threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def image_size(path: str | Path, dataset: dict) -> tuple[tuple[int, int], int]:
    """Return the size of an image as MMCV reads it, and its orientation in EXIF.

    Args:
        path (str or Path): The file. Only its header is read.
        dataset (dict): Settings of the dataset; its pipeline can ignore the orientation.

    Returns:
        tuple: Width and height in pixels, and the orientation that was applied, 1 for none.
    """
    with Image.open(path) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        size = image.size
    kept = any(
        'ignore_orientation' in step.get('color_type', '')
        or step.get('color_type') == 'unchanged'
        or step.get('imdecode_backend', 'cv2') != 'cv2'
        for step in steps(dataset, 'LoadImageFromFile')
    )
    if kept:
        return size, 1
    return (size[::-1] if orientation in _SIDEWAYS else size), orientation
