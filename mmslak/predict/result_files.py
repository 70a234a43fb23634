"""Predictions as files: label maps, boxes and masks in COCO's or VOC's format, and tables."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ..analysis.drawing import instances_of

#: Formats of detections.
FORMATS = ('coco', 'voc')
#: Number of classes in a table of classifications.
_MOST = 5


class LabelMaps:
    """Writes ``labels/NAME.png`` for each image, with the number of the class of each pixel.

    Args:
        folder (Path): Directory of the results.
        meta (Mapping): ``classes``.
    """

    def __init__(self, folder: Path, meta: Mapping):
        self.folder, self.classes = folder / 'labels', meta['classes']

    def add(self, name: str, file_name: str, sample) -> None:
        """Write the result of an image."""
        kind = np.uint8 if len(self.classes) <= 256 else np.uint16
        path = self.folder / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.pred_sem_seg.data[0].cpu().numpy().astype(kind)).save(path)

    def close(self) -> str:
        """Return what was written, for the user."""
        return f'label maps: {self.folder}'


class CocoResults:
    """Writes ``predictions.json``: a dataset in COCO's format, whose annotations have scores.

    Args:
        folder (Path): Directory of the results.
        meta (Mapping): ``classes``. Category ids are their numbers, counted from 1.
    """

    def __init__(self, folder: Path, meta: Mapping):
        self.path = folder / 'predictions.json'
        self.images, self.annotations = [], []
        self.categories = [dict(id=i, name=name) for i, name in enumerate(meta['classes'], 1)]

    def add(self, name: str, file_name: str, sample) -> None:
        """Keep the result of an image."""
        height, width = sample.ori_shape[:2]
        image = len(self.images) + 1
        self.images.append(dict(id=image, file_name=file_name, height=height, width=width))
        found = instances_of(sample)
        for i, box in enumerate(found['bboxes'].tolist()):
            x1, y1, x2, y2 = box
            annotation = dict(
                id=len(self.annotations) + 1,
                image_id=image,
                category_id=int(found['labels'][i]) + 1,
                bbox=[round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                area=round((x2 - x1) * (y2 - y1), 2),
                iscrowd=0,
                score=round(float(found['scores'][i]), 5),
            )
            if 'masks' in found:
                annotation.update(_run_lengths(found['masks'][i]))
            self.annotations.append(annotation)

    def close(self) -> str:
        """Write the file, and return what was written, for the user."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = dict(images=self.images, categories=self.categories, annotations=self.annotations)
        self.path.write_text(json.dumps(content) + '\n')
        return f'boxes in COCO format: {self.path}'


def _run_lengths(mask: np.ndarray) -> dict:
    """Return a mask in COCO's run-length code, and its area."""
    # Only detection needs it.
    from pycocotools import mask as coco

    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    area = int(coco.area(code))
    return dict(segmentation=dict(size=code['size'], counts=code['counts'].decode()), area=area)


class VocResults:
    """Writes ``annotations/NAME.xml`` for each image, in the format of Pascal VOC with scores.

    Args:
        folder (Path): Directory of the results.
        meta (Mapping): ``classes``.
        min_score (float): Objects with a lower score are left out.
    """

    def __init__(self, folder: Path, meta: Mapping, min_score: float = 0.0):
        self.folder, self.classes = folder / 'annotations', meta['classes']
        self.min_score = min_score

    def add(self, name: str, file_name: str, sample) -> None:
        """Write the result of an image."""
        height, width = sample.ori_shape[:2]
        root = ElementTree.Element('annotation')
        ElementTree.SubElement(root, 'filename').text = file_name
        size = ElementTree.SubElement(root, 'size')
        for key, value in dict(width=width, height=height, depth=3).items():
            ElementTree.SubElement(size, key).text = str(value)
        found = instances_of(sample)
        for box, label, score in zip(
            found['bboxes'], found['labels'], found['scores'], strict=True
        ):
            if score < self.min_score:
                continue
            item = ElementTree.SubElement(root, 'object')
            ElementTree.SubElement(item, 'name').text = self.classes[int(label)]
            ElementTree.SubElement(item, 'score').text = f'{float(score):.5f}'
            corners = ElementTree.SubElement(item, 'bndbox')
            # VOC counts pixels from 1.
            for key, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True):
                ElementTree.SubElement(corners, key).text = str(round(float(value)) + 1)
        path = self.folder / f'{name}.xml'
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree.indent(root)
        ElementTree.ElementTree(root).write(path, encoding='utf-8')

    def close(self) -> str:
        """Return what was written, for the user."""
        return f'boxes in VOC format: {self.folder}'


class ClassTable:
    """Writes ``predictions.csv`` with the five best classes of each image and their scores.

    Args:
        folder (Path): Directory of the results.
        meta (Mapping): ``classes``.
    """

    def __init__(self, folder: Path, meta: Mapping):
        self.path, self.classes = folder / 'predictions.csv', meta['classes']
        self.rows = []

    def add(self, name: str, file_name: str, sample) -> None:
        """Keep the result of an image."""
        scores = sample.pred_score.cpu().numpy()
        row = [file_name]
        for i in np.argsort(-scores, kind='stable')[:_MOST]:
            row += [self.classes[i], f'{scores[i]:.5f}']
        self.rows.append(row)

    def close(self) -> str:
        """Write the file, and return what was written, for the user."""
        count = min(_MOST, len(self.classes))
        heads = [f'{what}_{i}' for i in range(1, count + 1) for what in ('class', 'score')]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, 'w', newline='') as file:
            csv.writer(file).writerows([['image', *heads], *self.rows])
        return f'classes and scores: {self.path}'


def results_writer(task: str, folder: Path, meta: Mapping, kind: str, min_score: float):
    """Return the writer for a task; ``kind`` is one of :data:`FORMATS`, for detections."""
    if task == 'segmentation':
        return LabelMaps(folder, meta)
    if task == 'classification':
        return ClassTable(folder, meta)
    return VocResults(folder, meta, min_score) if kind == 'voc' else CocoResults(folder, meta)
