"""Find images that are missing or cannot be decoded, before training meets them."""

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmengine.dist import is_main_process
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: First bytes of a file -> the bytes that stand at or near its end.
_ENDS = {b'\xff\xd8\xff': b'\xff\xd9', b'\x89PNG\r\n\x1a\n': b'IEND'}
_TAIL = 64
_NAMED = 10
_THREADS = 8


class BadImageError(ValueError):
    """Images of a data set are missing or damaged."""


def image_fault(path: str | Path, decode: bool = False) -> str | None:
    """Tell what is wrong with an image file, or None where nothing is.

    Args:
        path (str or Path): The file.
        decode (bool): Decode every image. Otherwise only those whose first and last bytes are
            not those of a complete JPEG or PNG file.
    """
    try:
        if not decode:
            with open(path, 'rb') as file:
                head = file.read(8)
                file.seek(max(0, file.seek(0, 2) - _TAIL))
                tail = file.read()
            if any(head.startswith(start) and end in tail for start, end in _ENDS.items()):
                return None
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        return 'missing'
    except Exception as error:  # Pillow's decoders raise whatever they meet.
        if not Path(path).stat().st_size:
            return 'empty file'
        return str(error).replace(repr(str(path)), 'it')
    return None


def check_images(dataset, skip: bool, log: logging.Logger) -> None:
    """Look at the image files of a data set, and leave out bad ones where that is wanted.

    Without ``skip`` only what an annotation file lists is looked at, and quickly: is the file
    there, and complete? With it every image is decoded.

    Args:
        dataset: A data set of any toolbox, or a wrapper around several.
        skip (bool): Leave bad images out and say how many, instead of raising.
        log (logging.Logger): Where that is said.

    Raises:
        BadImageError: Naming the first bad files, or that no image is left.
    """
    for leaf in _leaves(dataset):
        if not hasattr(leaf, 'get_data_info') or _reads_elsewhere(leaf):
            continue
        if not skip and not getattr(leaf, 'ann_file', ''):
            continue
        paths = [leaf.get_data_info(i).get('img_path') for i in range(len(leaf))]
        if not paths:
            raise BadImageError(no_image_left(dict(type=type(leaf), ann_file=leaf.ann_file)))
        # Whoever reads from elsewhere than this machine's disks has to look there.
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
                + '\nPut them right, or leave them out with --skip-bad-images'
            )
        left = [i for i, path in enumerate(paths) if path not in faults]
        if not left:
            raise BadImageError(f'all {len(paths)} images are bad:\n' + '\n'.join(named))
        leaf.get_subset_(left)
        log.warning(
            f'--skip-bad-images: {len(faults)} of {len(paths)} images left out of '
            f'{getattr(leaf, "ann_file", "") or type(leaf).__name__}:\n' + '\n'.join(named)
        )
    if skip:
        _count_again(dataset)


def _reads_elsewhere(dataset) -> bool:
    """Tell whether images come out of something else than files, such as an LMDB or a server."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', [])
    return any(getattr(part, 'backend_args', None) for part in [dataset, *steps])


def no_image_left(dataset: dict) -> str:
    """Say of a data set, by its ``type`` and ``ann_file``, that it is empty and why that may be."""
    kind = dataset.get('type', 'data set')
    kind = kind.__name__ if isinstance(kind, type) else kind
    return (
        f'no image is left of {kind} {dataset.get("ann_file", "")}: either it lists none, or its '
        'filter_cfg leaves out all of them (filter_empty_gt: those without objects; min_size)'
    )


def _faults(paths: list[str], decode: bool) -> Iterator[tuple[str, str | None]]:
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda path: image_fault(path, decode), paths)
        if decode and is_main_process():
            found = _with_progress(found, len(paths))
        yield from zip(paths, found, strict=True)


def _with_progress(items: Iterable, total: int) -> Iterator:
    columns = (
        TextColumn('Checking images'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, transient=True) as bar:
        yield from bar.track(items, total=total)


def _leaves(dataset) -> Iterator:
    """Yield the data sets inside wrappers such as ConcatDataset and RepeatDataset."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner == [None]:
        yield dataset
    else:
        for item in inner:
            yield from _leaves(item)


def _count_again(dataset) -> None:
    """Let wrappers take note of the new lengths of what they wrap."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner != [None]:
        for item in inner:
            _count_again(item)
        dataset._fully_initialized = False
        dataset.full_init()
