"""How good a model is on each image and each class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ..analysis.drawing import MIN_SCORE, instances_of
from ..cli.browse import build_dataset, draw_labels, loaded_sample
from ..cli.pictures import draw_prediction
from ..predict import Predictor

#: Least intersection over union of a box that is found.
MIN_OVERLAP = 0.5
#: Number of the best and of the worst images that are kept.
SHOWN = 4


@dataclass
class Quality:
    """Scores of images and classes.

    Args:
        classes (list[str]): Names. In detection the last row and column of the matrix are objects
            that were missed, and boxes without an object.
        confusion (np.ndarray): Number of pixels, images or objects by true and predicted class.
        measure (str): What the score of an image is.
        count (int): Number of images.
        images (list[tuple]): Score, file name, and pictures of image, truth and prediction, of the
            worst and of the best images, from the lowest score.
    """

    classes: list[str]
    confusion: np.ndarray
    measure: str
    count: int = 0
    images: list[tuple[float, str, list[Image.Image]]] = field(default_factory=list)

    def add(self, confusion: np.ndarray, score: float, name: str, pictures: list) -> None:
        """Count an image, and keep it if it is one of the best or worst."""
        self.confusion += confusion
        self.count += 1
        # An image without labels has no score.
        if np.isfinite(score):
            self.images.append((score, name, pictures))
            self.images.sort(key=lambda item: item[0])
            if len(self.images) > 2 * SHOWN:
                del self.images[SHOWN]

    def per_class(self) -> list[tuple[str, dict[str, float]]]:
        """Return recall, precision and IoU of each class that occurs, in percent."""
        rows = []
        for i, name in enumerate(self.classes):
            hit = self.confusion[i, i]
            truth, found = self.confusion[i].sum(), self.confusion[:, i].sum()
            if truth or found:
                parts = dict(recall=truth, precision=found, IoU=truth + found - hit)
                rows.append(
                    (name, {key: 100 * hit / n if n else float('nan') for key, n in parts.items()})
                )
        return rows


def measure(
    predictor: Predictor, count: int, on_image: Callable[[], None] = lambda: None
) -> Quality:
    """Predict for validation images at equal distances, and compare with their labels.

    Args:
        predictor (Predictor): The model, with the config of its training.
        count (int): Number of images.
        on_image (Callable): Called after each image.
    """
    dataset = build_dataset(predictor.model.cfg, 'val')
    count, meta = min(count, len(dataset)), predictor.meta
    classes = list(meta['classes'])
    compare = dict(segmentation=_segmentation, detection=_detection, classification=_class)
    names = dict(
        segmentation='mean IoU of the classes in the image',
        detection=f'F1 of boxes with an IoU of at least {MIN_OVERLAP}',
        classification='probability of the true class',
    )
    size = len(classes) + (predictor.task == 'detection')
    quality = Quality(classes, np.zeros((size, size), np.int64), names[predictor.task])
    for i in range(count):
        truth = loaded_sample(dataset, i * len(dataset) // count)
        image = np.ascontiguousarray(truth['img'][..., ::-1])
        sample = predictor(truth['img'])
        confusion, score = compare[predictor.task](truth, sample, meta)
        pictures = [draw_labels(image, truth, meta)[0], draw_prediction(image, sample, meta)[0]]
        name = str(truth['img_path']).rpartition('/')[2]
        quality.add(confusion, score, name, [Image.fromarray(image), *pictures])
        on_image()
    return quality


def counted(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Return the confusion matrix of labels; those that are no class are left out."""
    truth, found = truth.ravel().astype(np.int64), found.ravel().astype(np.int64)
    known = (truth < classes) & (found < classes)
    pairs = truth[known] * classes + found[known]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _segmentation(truth, sample, meta: Mapping):
    labels = truth['gt_seg_map']
    found = sample.pred_sem_seg.data[0].cpu().numpy()
    confusion = counted(labels, found, len(meta['classes']))
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    present = confusion.sum(1) > 0
    score = np.mean(confusion.diagonal()[present] / union[present]) if present.any() else np.nan
    return confusion, score


def _class(truth, sample, meta: Mapping):
    label = int(np.ravel(truth['gt_label'])[0])
    scores = sample.pred_score.cpu().numpy()
    best = int(scores.argmax())
    confusion = counted(np.array([label]), np.array([best]), len(meta['classes']))
    return confusion, float(scores[label])


def _detection(truth, sample, meta: Mapping):
    boxes = truth['gt_bboxes']
    wanted = dict(
        bboxes=np.asarray(getattr(boxes, 'tensor', boxes)).reshape(-1, 4),
        labels=np.asarray(truth['gt_bboxes_labels']),
    )
    found = instances_of(sample)
    kept = found['scores'] >= MIN_SCORE
    found = {key: value[kept] for key, value in found.items()}
    pairs = matched(wanted['bboxes'], found['bboxes'], found['scores'])
    count = len(meta['classes'])
    confusion = np.zeros((count + 1, count + 1), np.int64)
    right = 0
    for i, label in enumerate(wanted['labels']):
        other = found['labels'][pairs[i]] if i in pairs else count
        confusion[label, other] += 1
        right += int(label == other)
    for j in set(range(len(found['labels']))) - set(pairs.values()):
        confusion[count, found['labels'][j]] += 1
    total = len(wanted['labels']) + len(found['labels'])
    score = 2 * right / total if total else np.nan
    return confusion, score


def matched(wanted: np.ndarray, found: np.ndarray, scores: np.ndarray) -> dict[int, int]:
    """Assign boxes to objects, the box with the highest score first.

    Args:
        wanted (np.ndarray): Boxes of N objects, shape (N, 4) as x1, y1, x2, y2.
        found (np.ndarray): Boxes that were found, shape (M, 4).
        scores (np.ndarray): Their scores, shape (M,).

    Returns:
        dict[int, int]: Index of the box of each object that was found, with an intersection over
        union of at least :data:`MIN_OVERLAP`.
    """
    pairs: dict[int, int] = {}
    for j in np.argsort(-scores, kind='stable'):
        overlaps = _overlaps(wanted, found[j])
        overlaps[list(pairs)] = 0
        if len(overlaps) and overlaps.max() >= MIN_OVERLAP:
            pairs[int(overlaps.argmax())] = int(j)
    return pairs


def _overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes with one box."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = sides.clip(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, 1e-9)
