"""Finds images that are missing or cannot be decoded."""

import itertools
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from PIL import Image

from ..console import progress_bar
from .paths import check_inside

#: Default of max_image_pixels. Decoded, such an image takes 300 MB.
MAX_IMAGE_PIXELS = 100_000_000
#: First bytes of a complete file -> bytes at or near its end.
_ENDS = {b'\xff\xd8\xff': b'\xff\xd9', b'\x89PNG\r\n\x1a\n': b'IEND'}
#: Number of bytes at the end of a file that are searched for them.
_TAIL = 64
#: Number of bad images that a message names.
_NAMED = 10
_THREADS = 8


class BadImageError(ValueError):
    """Images of a dataset are missing or damaged, or have too many pixels."""


def set_pixel_limit(cfg: Config) -> None:
    """Set the largest number of pixels that an image may have, for Pillow and for all checks.

    Args:
        cfg (Config): The key ``max_image_pixels`` is read. Default: 100 million.

    Raises:
        ValueError: If it is not a positive integer.
    """
    limit = cfg.get('max_image_pixels', MAX_IMAGE_PIXELS)
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f'max_image_pixels must be a positive integer, got {limit!r}')
    Image.MAX_IMAGE_PIXELS = limit
    # Such an image is an error here, so Pillow's warning would only come before it.
    warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def pixel_fault(pixels: int) -> str | None:
    """Return a message if an image has more pixels than the limit, otherwise None."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or pixels <= limit:
        return None
    return (
        f'{pixels} pixels are more than the limit of {limit} '
        f'(--cfg-options max_image_pixels={pixels} raises it)'
    )


def _header_fault(file: str | BinaryIO) -> str | None:
    """Return a message if the header of an image names too many pixels, otherwise None.

    A small file can name a size whose pixels fill the memory. OpenCV has no function that reads
    only the header, so Pillow reads it, also for images that OpenCV decodes.
    """
    try:
        with Image.open(file) as image:
            return pixel_fault(image.width * image.height)
    except Image.DecompressionBombError as error:
        # Pillow itself stops at twice the limit. Only its message contains the number of pixels.
        return pixel_fault(int(re.findall(r'\d+', str(error))[0]))
    except Exception:  # Pillow's decoders raise errors of many types; decoding reports them.
        return None


def image_fault(path: str | Path, decode: bool = False) -> str | None:
    """Return what is wrong with an image file, or None.

    The number of pixels in its header is compared with the limit in any case.

    Args:
        path (str or Path): The file.
        decode (bool): Decode the image in any case. Otherwise it is decoded only if its first and
            last bytes are not those of a complete JPEG or PNG file.
    """
    try:
        with open(path, 'rb') as file:
            if fault := _header_fault(file):
                return fault
            file.seek(0)
            head = file.read(8)
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            tail = file.read()
        complete = any(head.startswith(start) and end in tail for start, end in _ENDS.items())
        if complete and not decode:
            return None
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        return 'missing'
    except Exception as error:  # Pillow's decoders raise errors of many types.
        if not Path(path).stat().st_size:
            return 'empty file'
        return str(error).replace(repr(str(path)), 'it')
    return None


def check_images(dataset, skip: bool, log: logging.Logger) -> None:
    """Check the image files of a dataset, and optionally skip bad ones.

    Without ``skip``, the images that an annotation file lists are checked quickly: they must
    exist, be complete and lie in a directory of the config. With ``skip``, every image is decoded.

    Args:
        dataset (Dataset): A dataset of any toolbox, or a wrapper around several.
        skip (bool): Remove bad images from the dataset and log them, instead of raising an error.
        log (logging.Logger): Logger for the warning about skipped images.

    Raises:
        BadImageError: If images are bad, naming the first ones, or if no image is left.
        AnnotationError: If an annotation file or a list names a file in another directory.
    """
    for leaf in _leaves(dataset):
        if not hasattr(leaf, 'get_data_info') or _has_file_backend(leaf):
            continue
        if not skip and not getattr(leaf, 'ann_file', ''):
            continue
        files = [_files(leaf.get_data_info(i)) for i in range(len(leaf))]
        if getattr(leaf, 'ann_file', ''):
            check_listed_files(leaf, files)
        paths = [image for image, _ in files]
        if not paths:
            raise BadImageError(no_image_left(dict(type=type(leaf), ann_file=leaf.ann_file)))
        # Files on other machines are not checked.
        local = [isinstance(path, str) and '://' not in path for path in paths]
        checked = [path for path, is_local in zip(paths, local, strict=True) if is_local]
        faults = {path: fault for path, fault in _faults(checked, decode=skip) if fault}
        if not faults:
            continue
        named = [f'  {path}: {fault}' for path, fault in list(faults.items())[:_NAMED]]
        if len(faults) > _NAMED:
            named.append(f'  and {len(faults) - _NAMED} more')
        if not skip:
            raise BadImageError(
                f'{len(faults)} of {len(paths)} images are missing or damaged:\n'
                + '\n'.join(named)
                + '\nReplace them, or skip them with --skip-bad-images'
            )
        left = [i for i, path in enumerate(paths) if path not in faults]
        if not left:
            raise BadImageError(
                f'all {len(paths)} images are missing or damaged:\n' + '\n'.join(named)
            )
        leaf.get_subset_(left)
        log.warning(
            f'--skip-bad-images: skipped {len(faults)} of {len(paths)} images of '
            f'{getattr(leaf, "ann_file", "") or type(leaf).__name__}:\n' + '\n'.join(named)
        )
    if skip:
        _update_lengths(dataset)


def _files(info: dict) -> tuple[str | None, str | None]:
    """Return the image and the label map of an entry of a dataset."""
    return info.get('img_path'), info.get('seg_map_path')


def check_listed_files(dataset, files: Iterable[tuple]) -> None:
    """Check that the images and label maps of a dataset lie in the directories of its config.

    Args:
        dataset (BaseDataset): A dataset of any toolbox.
        files (Iterable[tuple]): Paths of the image and the label map of every entry.

    Raises:
        AnnotationError: If one does not, naming the file.
    """
    prefixes = getattr(dataset, 'data_prefix', None)
    prefixes = prefixes.values() if isinstance(prefixes, dict) else [prefixes]
    folders = [getattr(dataset, 'data_root', None), *prefixes]
    check_inside(itertools.chain.from_iterable(files), folders, str(dataset.ann_file))


class _NamingCompose(Compose):
    """A pipeline that names the file if an image or a label map cannot be read.

    An image with too many pixels is not decoded.
    """

    max_pixels: int | None = None

    def __call__(self, data: dict) -> dict | None:
        # A worker process that is spawned has Pillow's own limit.
        Image.MAX_IMAGE_PIXELS = self.max_pixels
        paths = {key: data.get(f'{key}_path') for key in ('img', 'seg_map')}
        paths = {key: path for key, path in paths.items() if isinstance(path, str)}
        for key, path in paths.items():
            if fault := _header_fault(path):
                raise _named(key, path, fault)
        try:
            return super().__call__(data)
        except Exception as error:
            for key, path in paths.items():
                if fault := image_fault(path, decode=True):
                    raise _named(key, path, fault) from error
            raise


def _named(key: str, path: str, fault: str) -> BadImageError:
    """Return the error for an image (``img``) or a label map (``seg_map``)."""
    if key == 'seg_map':
        return BadImageError(f'label map {path}: {fault}; replace it')
    return BadImageError(
        f'image {path}: {fault}; replace it, or skip such images: --skip-bad-images'
    )


def name_bad_images(dataset) -> None:
    """Make the pipelines of a dataset name the file if an image cannot be read or is too large.

    Args:
        dataset (Dataset): A dataset of any toolbox, or a wrapper around several.
    """
    for leaf in _leaves(dataset):
        pipeline = getattr(leaf, 'pipeline', None)
        if type(pipeline) is Compose and not _has_file_backend(leaf):
            # The object stays the same, because hooks of the toolboxes change its transforms.
            pipeline.__class__ = _NamingCompose
            pipeline.max_pixels = Image.MAX_IMAGE_PIXELS


def _has_file_backend(dataset) -> bool:
    """Return whether images are read from an LMDB or a server instead of files."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    return any(getattr(part, 'backend_args', None) for part in [dataset, *steps])


def no_image_left(dataset: dict) -> str:
    """Return the message that a dataset with this ``type`` and ``ann_file`` is empty."""
    kind = dataset.get('type', 'dataset')
    kind = kind.__name__ if isinstance(kind, type) else kind
    return (
        f'{kind} {dataset.get("ann_file", "")} contains no image: either it lists none, or its '
        'filter_cfg removes all of them (filter_empty_gt removes images without objects, min_size '
        'small images)'
    )


def _faults(paths: list[str], decode: bool) -> Iterator[tuple[str, str | None]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda path: image_fault(path, decode), paths)
        if not (decode and is_main_process()):
            yield from zip(paths, found, strict=True)
            return
        with progress_bar() as bar:
            found = bar.track(found, total=len(paths), description='Checking images')
            yield from zip(paths, found, strict=True)


def _leaves(dataset) -> Iterator:
    """Yield the datasets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
    else:
        for item in inner:
            yield from _leaves(item)


def _update_lengths(dataset) -> None:
    """Update the lengths of wrappers after images were removed from the datasets inside."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner != [None]:
        for item in inner:
            _update_lengths(item)
        dataset._fully_initialized = False
        dataset.full_init()
