"""Writes scenes in the layout of COCO, with masks as polygons and run lengths."""

import json

import numpy as np

from .base_writer import FORMAT_VERSION, BaseWriter, write_text
from .classes import CONTEXT_THING_CLASSES, STUFF_CLASSES

#: Category ids of the object classes in their order. They have gaps, as in COCO itself, so that
#: code which reads them has to map ids to labels.
COCO_CATEGORY_IDS = (1, 2, 4, 7, 8, 13, 21, 34)


class CocoWriter(BaseWriter):
    """``{train,val}2017/*.jpg`` and ``annotations/instances_{train,val}2017.json``.

    Masks of objects are polygons. Masks of crowds are uncompressed run lengths, with ``iscrowd`` 1.
    """

    name = 'COCO'
    directory = 'coco'

    def __init__(self, root, context):
        super().__init__(root, context)
        self.images = {'train': [], 'val': []}
        self.annotations = {'train': [], 'val': []}

    def subdirectories(self):
        return ['train2017', 'val2017', 'annotations']

    def add(self, scene, jpeg):
        split, image_id = scene.split, scene.index + 1
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
            write_text(path, json.dumps(content))


def mask_to_rle(mask: np.ndarray) -> dict:
    """Encode a mask as uncompressed run lengths, column by column and zeros first, as in COCO.

    Args:
        mask (ndarray): bool (H, W).

    Returns:
        dict: ``{'counts': [zeros, ones, zeros, ...], 'size': [H, W]}``.
    """
    flat = np.concatenate(([False], mask.ravel(order='F')))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    ends = np.concatenate(([0], changes, [mask.size]))
    return {'counts': np.diff(ends).tolist(), 'size': list(mask.shape)}


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Encode a mask as polygons along the edges of pixels, which cover it exactly.

    Polygons have no holes. A mask with a hole is therefore cut in two through the hole, as
    annotators do.

    Args:
        mask (ndarray): bool (H, W).

    Returns:
        list[list[float]]: ``[x0, y0, x1, y1, ...]`` of each part, in pixels, at least eight
        numbers.
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


def _outlines(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Return closed paths along the edges of pixels, with the mask on the right of each step."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # For each side of a pixel: the neighbour there, the corner where the step starts, the step.
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
            # If two pixels touch at a corner only, a turn to the right keeps them apart.
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


def _signed_area(path: list[tuple[int, int]]) -> int:
    """Return twice the area of a path, negative for the outline of a hole."""
    following = path[1:] + path[:1]
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(path, following, strict=True))
