"""Writes rendered scenes in the layouts of ADE20K, COCO, PASCAL VOC 2007 and ImageNet.

All four hold the same scenes, each under its index plus one: scene 6 is ``ADE_val_00000007``,
``000000000007``, ``000007`` and ``sample_val_00000007_<class>``. One scene in five is for
validation; in VOC, these are the test set.
"""

import io
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .scenes import (
    CONTEXT_THING_CLASSES,
    STUFF_CLASSES,
    Instance,
    Scene,
    check_size,
    classes_of,
    palette_of,
    render_scene,
    thing_classes_of,
)

FORMAT_VERSION = 1
"""Raised whenever the same parameters begin to give other files."""

MANIFEST = 'sample.json'
"""File in the root folder that says how the data was made; its presence means it is complete."""

# Not consecutive: reading code has to map ids to labels, as for COCO itself.
COCO_CATEGORY_IDS = (1, 2, 4, 7, 8, 13, 21, 34)
"""Category ids of the object classes, in their order."""

LAYOUTS = {
    'ADE20K': 'ADEChallengeData2016',
    'COCO': 'coco',
    'VOC2007': 'VOCdevkit/VOC2007',
    'ImageNet': 'imagenet',
}
"""Folder of each layout below the root."""


@dataclass
class SampleData:
    """What `write_sample_data` made or found.

    Args:
        root: the folder.
        counts: images of each layout, ``{'ADE20K': {'train': 160, 'val': 40}, ...}``.
        classes: number of classes of each layout.
        seconds: time taken; 0 where nothing was done.
        written: False where the folder held the same data already.
    """

    root: Path
    counts: dict[str, dict[str, int]]
    classes: dict[str, int]
    seconds: float
    written: bool


# --- annotations ----------------------------------------------------------------------------------


def mask_to_rle(mask: np.ndarray) -> dict:
    """Uncompressed run lengths of a mask, bool (H, W), as in COCO: down the columns, zeros first.

    Returns:
        ``{'counts': [zeros, ones, zeros, ...], 'size': [H, W]}``.
    """
    flat = np.concatenate(([False], mask.ravel(order='F')))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate(([0], changes, [mask.size]))
    return {'counts': np.diff(ends).tolist(), 'size': list(mask.shape)}


def _outlines(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Closed paths along the pixels' edges, with the mask to the right hand of each step."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Neighbour that is missing, where the step begins as seen from the pixel, where it goes.
    sides = (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    )
    for neighbour, (x0, y0), step in sides:
        rows, columns = np.nonzero(inner & ~neighbour)
        for x, y in zip((columns + x0).tolist(), (rows + y0).tolist(), strict=True):
            steps.setdefault((x, y), []).append(step)
    paths = []
    while steps:
        start = next(iter(steps))
        point, last, path = start, None, []
        while True:
            choices = steps[point]
            # Where two pixels touch by a corner only, turn right: they stay apart.
            right = last and (-last[1], last[0])
            step = choices.pop(choices.index(right) if right in choices else 0)
            if not choices:
                del steps[point]
            if step != last:
                path.append(point)
            point, last = (point[0] + step[0], point[1] + step[1]), step
            if point == start and not (start in steps and (-last[1], last[0]) in steps[start]):
                break
        paths.append(path)
    return paths


def _signed_area(path) -> int:
    """Twice the area of a path, negative for the outline of a hole."""
    following = path[1:] + path[:1]
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(path, following, strict=True))


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Polygons along the pixels' edges that cover a mask, bool (H, W), exactly.

    A polygon has no holes, so that a mask with a hole is cut in two through it, as annotators do.

    Returns:
        One ``[x0, y0, x1, y1, ...]`` per part, in pixels, of at least eight numbers.
    """
    paths = _outlines(mask)
    for path in paths:
        if _signed_area(path) < 0:
            columns = [x for x, _ in path]
            middle = (min(columns) + max(columns) + 1) // 2
            left, right = mask.copy(), mask.copy()
            left[:, middle:], right[:, :middle] = False, False
            return mask_to_polygons(left) + mask_to_polygons(right)
    return [[float(value) for point in path for value in point] for path in paths]


def largest_object(scene: Scene) -> Instance | None:
    """The object with the most visible pixels that is neither a crowd nor difficult, if any."""
    clear = [instance for instance in scene.instances if not (instance.crowd or instance.difficult)]
    return max(clear, key=lambda instance: instance.area, default=None)


def _voc_xml(scene: Scene, name: str) -> str:
    height, width = scene.semantic.shape
    lines = [
        '<annotation>',
        '\t<folder>VOC2007</folder>',
        f'\t<filename>{name}.jpg</filename>',
        '\t<source>',
        '\t\t<database>mmslak sample data</database>',
        '\t\t<annotation>mmslak sample data</annotation>',
        '\t\t<image>rendered</image>',
        '\t</source>',
        '\t<size>',
        f'\t\t<width>{width}</width>',
        f'\t\t<height>{height}</height>',
        '\t\t<depth>3</depth>',
        '\t</size>',
        '\t<segmented>0</segmented>',
    ]
    for instance in scene.instances:
        x0, y0, x1, y1 = instance.bbox
        lines += [
            '\t<object>',
            f'\t\t<name>{scene.classes[instance.class_id - 1]}</name>',
            '\t\t<pose>Unspecified</pose>',
            f'\t\t<truncated>{int(instance.truncated)}</truncated>',
            f'\t\t<difficult>{int(instance.difficult)}</difficult>',
            '\t\t<bndbox>',
            # VOC counts pixels from one and includes the last.
            f'\t\t\t<xmin>{x0 + 1}</xmin>',
            f'\t\t\t<ymin>{y0 + 1}</ymin>',
            f'\t\t\t<xmax>{x1}</xmax>',
            f'\t\t\t<ymax>{y1}</ymax>',
            '\t\t</bndbox>',
            '\t</object>',
        ]
    return '\n'.join([*lines, '</annotation>', ''])


# --- writers: one class per layout, `add` for each scene, `finish` at the end ---------------------


def _jpeg(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, 'JPEG', quality=95, subsampling=0)
    return stream.getvalue()


def _write_text(path: Path, text: str) -> None:
    # Bytes, so that lines end the same on every system.
    path.write_bytes(text.encode())


class _Layout:
    """What the four writers share: their folder and their counts.

    Args:
        root: folder of the whole sample data.
        context: whether the scenes have context.
    """

    name = ''

    def __init__(self, root: Path, context: bool):
        self.folder = root / LAYOUTS[self.name]
        self.context = context
        self.counts = {'train': 0, 'val': 0}
        for path in self.folders():
            (self.folder / path).mkdir(parents=True)

    def folders(self) -> list[str]:
        """Folders to make, below the layout's own."""
        raise NotImplementedError

    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return thing_classes_of(self.context)

    def add(self, scene: Scene, jpeg: bytes) -> None:
        """Write one scene, whose encoded image is given."""
        raise NotImplementedError

    def finish(self) -> None:
        """Write what needs all scenes."""


class Ade20kWriter(_Layout):
    """``images/{training,validation}/*.jpg`` and palette PNGs of labels, 0 as unlabelled."""

    name = 'ADE20K'

    def folders(self):
        return [f'{kind}/{split}' for kind in ('images', 'annotations') for split in self._splits]

    _splits = ('training', 'validation')

    def class_names(self):
        return classes_of(self.context)

    def add(self, scene, jpeg):
        split = self._splits[scene.is_val]
        name = f'ADE_{"val" if scene.is_val else "train"}_{scene.index + 1:08d}'
        (self.folder / 'images' / split / f'{name}.jpg').write_bytes(jpeg)
        labels = Image.fromarray(scene.semantic).convert('P')
        labels.putpalette([0, 0, 0, *(value for rgb in palette_of(self.context) for value in rgb)])
        labels.save(self.folder / 'annotations' / split / f'{name}.png')
        self.counts['val' if scene.is_val else 'train'] += 1

    def finish(self):
        _write_text(self.folder / 'classes.txt', '\n'.join([*self.class_names(), '']))


class CocoWriter(_Layout):
    """``{train,val}2017/*.jpg`` and ``annotations/instances_{train,val}2017.json``.

    Objects are polygons, crowds are uncompressed run lengths with ``iscrowd`` 1.
    """

    name = 'COCO'

    def __init__(self, root, context):
        super().__init__(root, context)
        self.images = {'train': [], 'val': []}
        self.annotations = {'train': [], 'val': []}

    def folders(self):
        return ['train2017', 'val2017', 'annotations']

    def add(self, scene, jpeg):
        split, image_id = 'val' if scene.is_val else 'train', scene.index + 1
        height, width = scene.semantic.shape
        file_name = f'{image_id:012d}.jpg'
        (self.folder / f'{split}2017' / file_name).write_bytes(jpeg)
        self.images[split].append(
            {
                'license': 1,
                'file_name': file_name,
                'coco_url': '',
                'height': height,
                'width': width,
                'date_captured': '2017-01-01 00:00:00',
                'flickr_url': '',
                'id': image_id,
            }
        )
        for number, instance in enumerate(scene.instances):
            x0, y0, x1, y1 = instance.bbox
            encode = mask_to_rle if instance.crowd else mask_to_polygons
            self.annotations[split].append(
                {
                    'segmentation': encode(instance.visible),
                    'area': float(instance.area),
                    'iscrowd': int(instance.crowd),
                    'image_id': image_id,
                    'bbox': [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                    'category_id': COCO_CATEGORY_IDS[instance.class_id - 1 - len(STUFF_CLASSES)],
                    # Unique over both splits, and independent of the number of scenes.
                    'id': image_id * 100 + number,
                }
            )
        self.counts[split] += 1

    def finish(self):
        categories = [
            {
                'supercategory': name.split('_')[0] if name in CONTEXT_THING_CLASSES else 'object',
                'id': category_id,
                'name': name,
            }
            for category_id, name in zip(COCO_CATEGORY_IDS, self.class_names(), strict=True)
        ]
        for split, images in self.images.items():
            content = {
                'info': {
                    'description': 'mmslak sample data',
                    'url': '',
                    'version': str(FORMAT_VERSION),
                    'year': 2017,
                    'contributor': 'mmslak',
                    'date_created': '2017/01/01',
                },
                'licenses': [{'url': '', 'id': 1, 'name': 'Rendered; free to use'}],
                'images': images,
                'annotations': self.annotations[split],
                'categories': categories,
            }
            path = self.folder / 'annotations' / f'instances_{split}2017.json'
            _write_text(path, json.dumps(content))


class VocWriter(_Layout):
    """``JPEGImages``, ``Annotations`` and ``ImageSets/Main`` of VOC2007.

    The validation scenes are ``test``; of the others, ``trainval``, each fifth is ``val`` (there
    is none among fewer than five scenes).
    """

    name = 'VOC2007'

    def __init__(self, root, context):
        super().__init__(root, context)
        self.sets = {'train': [], 'val': [], 'trainval': [], 'test': []}
        self.present = {}

    def folders(self):
        return ['JPEGImages', 'Annotations', 'ImageSets/Main']

    def add(self, scene, jpeg):
        name = f'{scene.index + 1:06d}'
        (self.folder / 'JPEGImages' / f'{name}.jpg').write_bytes(jpeg)
        _write_text(self.folder / 'Annotations' / f'{name}.xml', _voc_xml(scene, name))
        if scene.is_val:
            self.sets['test'].append(name)
        else:
            self.sets['trainval'].append(name)
            self.sets['val' if scene.index % 5 == 4 else 'train'].append(name)
        found = self.present[name] = {}
        for instance in scene.instances:
            class_name = scene.classes[instance.class_id - 1]
            flag = 0 if instance.difficult else 1
            found[class_name] = max(found.get(class_name, 0), flag)
        self.counts['val' if scene.is_val else 'train'] += 1

    def finish(self):
        folder = self.folder / 'ImageSets/Main'
        for split, names in self.sets.items():
            _write_text(folder / f'{split}.txt', ''.join(f'{name}\n' for name in names))
            for class_name in self.class_names():
                # 1: in the image; 0: there, but difficult; -1: not there.
                lines = [f'{n} {self.present[n].get(class_name, -1):2d}\n' for n in names]
                _write_text(folder / f'{class_name}_{split}.txt', ''.join(lines))


class ImageNetWriter(_Layout):
    """``{train,val}/<class>/*.JPEG`` and ``meta/{train,val}.txt`` of paths and labels.

    The class is that of the scene's largest object that is neither a crowd nor difficult; a scene
    without one is left out. The image is the scene cropped to the object's box and a quarter of
    its longer side around it; with context it is the whole scene, as the cue is far away.
    """

    name = 'ImageNet'

    def __init__(self, root, context):
        super().__init__(root, context)
        self.lines = {'train': [], 'val': []}

    def folders(self):
        # Every class has its folder, even without images: labels are the sorted folders' order.
        names = self.class_names()
        return ['meta', *(f'{split}/{name}' for split in ('train', 'val') for name in names)]

    def add(self, scene, jpeg):
        instance = largest_object(scene)
        if instance is None:
            return
        split, class_name = 'val' if scene.is_val else 'train', scene.classes[instance.class_id - 1]
        if not self.context:
            x0, y0, x1, y1 = instance.bbox
            margin = max(x1 - x0, y1 - y0) // 4 + 2
            rows = slice(max(0, y0 - margin), y1 + margin)
            jpeg = _jpeg(scene.image[rows, max(0, x0 - margin) : x1 + margin])
        path = f'{class_name}/sample_{split}_{scene.index + 1:08d}_{class_name}.JPEG'
        (self.folder / split / path).write_bytes(jpeg)
        self.lines[split].append(f'{path} {self.class_names().index(class_name)}\n')
        self.counts[split] += 1

    def finish(self):
        for split, lines in self.lines.items():
            _write_text(self.folder / 'meta' / f'{split}.txt', ''.join(sorted(lines)))


WRITERS = (Ade20kWriter, CocoWriter, VocWriter, ImageNetWriter)


# --- the whole set --------------------------------------------------------------------------------


def _count_files(root: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(root))


def _read_manifest(root: Path) -> dict | None:
    try:
        manifest = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    keys = {'made_by', 'parameters', 'counts', 'classes', 'files'}
    return manifest if isinstance(manifest, dict) and keys <= set(manifest) else None


def _existing(root: Path, parameters: dict, overwrite: bool) -> SampleData | None:
    """The same data in ``root`` if it is there; raises where something else must not go."""
    if not root.exists():
        return None
    if not root.is_dir():
        raise FileExistsError(f'{root} is a file; give a folder that is new, empty or ours.')
    if next(root.iterdir(), None) is None:
        return None
    manifest = _read_manifest(root)
    if manifest is None:
        raise FileExistsError(
            f'{root} is not empty and was not made by this tool; give a new or an empty folder.'
        )
    differing = [
        f'{key} {manifest["parameters"].get(key)} there, {value} asked for'
        for key, value in parameters.items()
        if manifest['parameters'].get(key) != value
    ]
    if not differing and _count_files(root) != manifest['files']:
        differing = [f'{manifest["files"]} files expected, {_count_files(root)} there']
    if not differing:
        return SampleData(root, manifest['counts'], manifest['classes'], 0.0, False)
    if not overwrite:
        raise FileExistsError(
            f'{root} holds other sample data ({"; ".join(differing)}); '
            'give another folder, or --overwrite (overwrite=True).'
        )
    return None


def write_sample_data(
    root: str | Path,
    images: int = 400,
    size: int = 128,
    seed: int = 0,
    context: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SampleData:
    """Render scenes and write them in all four layouts, or do nothing where they are already.

    The data is written beside ``root`` and takes its name at the end: if this is interrupted,
    ``root`` is as it was. Images and annotations follow from the parameters alone; the bytes of
    the JPEG and PNG files also from Pillow's encoders.

    Args:
        root: folder to make.
        images: number of scenes, at least 2, as one in five (from the second on) is for validation.
        size: longer side of a scene in pixels, at least 48.
        seed: seed of all scenes, not negative.
        context: whether the objects' classes depend on a cue far away, see `render_scene`.
        overwrite: replace sample data of other parameters. Nothing else is ever replaced.
        progress: called with (scenes done, scenes in all) after each scene.

    Returns:
        The folder, the counts and the time taken.

    Raises:
        ValueError: images, size or seed is too small.
        FileExistsError: ``root`` is a file, a folder that holds something else, or holds sample
            data of other parameters and ``overwrite`` is not given.
    """
    if images < 2:
        raise ValueError(
            f'images must be at least 2 (one to train, one to validate), got {images}.'
        )
    check_size(size)
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}.')
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
        writers = [writer(partial, context) for writer in WRITERS]
        for index in range(images):
            scene = render_scene(seed, index, size, context)
            jpeg = _jpeg(scene.image)
            for writer in writers:
                writer.add(scene, jpeg)
            if progress is not None:
                progress(index + 1, images)
        for writer in writers:
            writer.finish()
        result = SampleData(
            root,
            {writer.name: writer.counts for writer in writers},
            {writer.name: len(writer.class_names()) for writer in writers},
            0.0,
            True,
        )
        manifest = {
            'made_by': 'mmslak',
            'parameters': parameters,
            'counts': result.counts,
            'classes': result.classes,
            'files': _count_files(partial) + 1,
        }
        _write_text(partial / MANIFEST, json.dumps(manifest, indent=2) + '\n')
        _replace(root, partial)
    except BaseException:
        # Also on Ctrl-C: nothing half-written stays behind.
        shutil.rmtree(partial, ignore_errors=True)
        raise
    result.seconds = time.perf_counter() - begin
    return result


def _replace(root: Path, partial: Path) -> None:
    """Give ``partial`` the name ``root``, removing the sample data or empty folder of that name."""
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
