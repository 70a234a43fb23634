"""Writes a dataset of rendered scenes in the layouts of ADE20K, COCO, PASCAL VOC 2007 and ImageNet.

All layouts contain the same scenes, named after their index plus one: scene 6 is
``ADE_val_00000007``, ``000000000007``, ``000007`` and ``sample_val_00000007_<class>``. One scene in
five is for validation, which is the test set of VOC.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .ade20k import Ade20kWriter
from .base_writer import FORMAT_VERSION, encode_jpeg, write_text
from .coco import CocoWriter
from .imagenet import ImageNetWriter
from .scenes import check_size, render_scene
from .voc import VocWriter

#: File in the root directory with the parameters of the data; it is written last.
MANIFEST = 'sample.json'

WRITERS = (Ade20kWriter, CocoWriter, VocWriter, ImageNetWriter)
#: Directory of each layout, below the root.
LAYOUTS = {writer.name: writer.directory for writer in WRITERS}


@dataclass
class SampleData:
    """What :func:`write_sample_data` wrote or found.

    Args:
        root (Path): The directory.
        counts (dict): Number of images by layout and split, such as
            ``{'ADE20K': {'train': 160, 'val': 40}, ...}``.
        classes (dict): Number of classes by layout.
        seconds (float): Duration, 0 if the data was there already.
        written (bool): False if the directory contained the same data already.
    """

    root: Path
    counts: dict[str, dict[str, int]]
    classes: dict[str, int]
    seconds: float
    written: bool


def write_sample_data(
    root: str | Path,
    images: int = 400,
    size: int = 128,
    seed: int = 0,
    context: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SampleData:
    """Render scenes and write them in all four layouts, unless they are there already.

    The data is written next to ``root`` and renamed at the end, so that an interruption leaves
    ``root`` as it was. Images and annotations depend on the parameters only; the bytes of JPEG and
    PNG files also depend on Pillow's encoders.

    Args:
        root (str or Path): Directory to create.
        images (int): Number of scenes, at least 2, because the second one and then one in five are
            for validation.
        size (int): Longer side of a scene in pixels, at least 48.
        seed (int): Seed of all scenes, not negative.
        context (bool): The classes of objects depend on a cue far away, see
            :func:`.scenes.render_scene`.
        overwrite (bool): Replace sample data of other parameters. Nothing else is ever replaced.
        progress (Callable, optional): Called after each scene with the number of scenes done and
            the number of all.

    Returns:
        SampleData: Directory, counts and duration.

    Raises:
        ValueError: If images, size or seed is too small.
        FileExistsError: If ``root`` is a file or contains something else, or if it contains sample
            data of other parameters and ``overwrite`` is not set.
    """
    if images < 2:
        raise ValueError(
            f'images must be at least 2 (one for training, one for validation), got {images}'
        )
    check_size(size)
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}')
    root = Path(root).resolve()
    parameters = {
        'images': images,
        'size': size,
        'seed': seed,
        'context': context,
        'version': FORMAT_VERSION,
    }
    existing = _existing(root, parameters, overwrite)
    if existing is not None:
        return existing

    begin = time.perf_counter()
    partial = root.with_name(f'.{root.name}.partial-{os.getpid()}')
    partial.mkdir(parents=True)
    try:
        counts, classes = _write_layouts(partial, images, size, seed, context, progress)
        manifest = {
            'made_by': 'mmslak',
            'parameters': parameters,
            'counts': counts,
            'classes': classes,
            'files': _count_files(partial) + 1,
        }
        write_text(partial / MANIFEST, json.dumps(manifest, indent=2) + '\n')
        _replace(root, partial)
    except BaseException:
        # After Ctrl-C too, no partial data is left behind.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return SampleData(root, counts, classes, time.perf_counter() - begin, True)


def _write_layouts(root, images, size, seed, context, progress) -> tuple[dict, dict]:
    """Write all scenes, and return the counts and the numbers of classes by layout."""
    writers = [writer(root, context) for writer in WRITERS]
    for index in range(images):
        scene = render_scene(seed, index, size, context)
        jpeg = encode_jpeg(scene.image)
        for writer in writers:
            writer.add(scene, jpeg)
        if progress is not None:
            progress(index + 1, images)
    for writer in writers:
        writer.finish()
    return (
        {writer.name: writer.counts for writer in writers},
        {writer.name: len(writer.class_names()) for writer in writers},
    )


def _existing(root: Path, parameters: dict, overwrite: bool) -> SampleData | None:
    """Return the data in ``root`` if it has these parameters, or None if it may be written.

    Raises:
        FileExistsError: If ``root`` contains something that must not be replaced.
    """
    if not root.exists():
        return None
    if not root.is_dir():
        raise FileExistsError(f'{root} is a file; choose a directory that is new or empty')
    if next(root.iterdir(), None) is None:
        return None
    manifest = _read_manifest(root)
    if manifest is None:
        raise FileExistsError(
            f'{root} is not empty and is not sample data; choose a directory that is new or empty'
        )
    differing = [
        f'{key} is {manifest["parameters"].get(key)} instead of {value}'
        for key, value in parameters.items()
        if manifest['parameters'].get(key) != value
    ]
    if not differing and _count_files(root) != manifest['files']:
        differing = [f'{_count_files(root)} files instead of {manifest["files"]}']
    if not differing:
        return SampleData(root, manifest['counts'], manifest['classes'], 0.0, False)
    if not overwrite:
        raise FileExistsError(
            f'{root} contains other sample data ({"; ".join(differing)}); choose another '
            'directory, or replace it with --overwrite (overwrite=True)'
        )
    return None


def _read_manifest(root: Path) -> dict | None:
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    keys = {'made_by', 'parameters', 'counts', 'classes', 'files'}
    return manifest if isinstance(manifest, dict) and keys <= set(manifest) else None


def _count_files(root: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(root))


def _replace(root: Path, partial: Path) -> None:
    """Rename ``partial`` to ``root``, and remove the sample data or empty directory there."""
    if not root.exists():
        partial.rename(root)
        return
    old = partial.with_name(f'{partial.name}.old')
    root.rename(old)
    try:
        partial.rename(root)
    except BaseException:
        old.rename(root)
        raise
    shutil.rmtree(old)
