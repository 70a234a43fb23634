"""Pictures of image, truth and prediction, for ``tools/test.py --show-dir``."""

import os
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image

from ..analysis.drawing import (
    MIN_SCORE,
    draw_class,
    draw_detection,
    instances_of,
    overlay,
    palette_of,
)
from ..analysis.sheet import picture_sheet
from .browse import build_dataset, draw_labels, loaded_sample

#: Limits of the longer side of a picture, in pixels.
_SMALLEST, _LARGEST = 320, 800


class PictureHook(Hook):
    """Draws every image of a test next to its labels and the prediction.

    Args:
        cfg (Config): Config of the test, whose dataset has the labels.
        folder (str or Path): Directory of the PNG files. They have the names of the images and,
            if these are in several directories, their subdirectories.

    Raises:
        ValueError: If the dataset has no class names.
    """

    def __init__(self, cfg: Config, folder: str | Path):
        self.folder = Path(folder)
        self.dataset = build_dataset(cfg, 'test')
        self._indices = {
            str(self.dataset.get_data_info(i)['img_path']): i for i in range(len(self.dataset))
        }
        self._root = os.path.commonpath([os.path.dirname(path) for path in self._indices])

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Draw the images of a batch."""
        for sample in outputs:
            self._draw(sample)

    def _draw(self, sample) -> None:
        truth = loaded_sample(self.dataset, self._indices[sample.img_path])
        meta = self.dataset.metainfo
        image = np.ascontiguousarray(truth['img'][..., ::-1])
        labelled, wanted = draw_labels(image, truth, meta)
        predicted, found = draw_prediction(image, sample, meta)
        classes, colours = meta['classes'], palette_of(meta)
        legend = [(classes[i], colours[i]) for i in sorted(wanted | found) if i < len(classes)]
        picture_sheet(
            [[Image.fromarray(image), labelled, predicted]],
            ('image', 'truth', 'prediction'),
            self.folder / Path(os.path.relpath(sample.img_path, self._root)).with_suffix('.png'),
            cell=min(max(*image.shape[:2], _SMALLEST), _LARGEST),
            legend=legend,
        )


def draw_prediction(image: np.ndarray, sample, meta: dict) -> tuple[Image.Image, set[int]]:
    """Draw the prediction of a model over an image.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        sample: Data sample of a toolbox, with ``pred_sem_seg``, ``pred_instances`` or
            ``pred_score``.
        meta (dict): ``classes`` and, optionally, ``palette``.

    Returns:
        tuple[Image, set[int]]: The picture, and the classes in it.
    """
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        return overlay(image, labels, meta), set(np.unique(labels).tolist())
    if 'pred_instances' in sample:
        instances = instances_of(sample)
        certain = instances['scores'] >= MIN_SCORE
        shown = set(instances['labels'][certain].tolist())
        return draw_detection(image, instances, meta, MIN_SCORE), shown
    label = int(sample.pred_score.argmax())
    return draw_class(image, label, meta), {label}
