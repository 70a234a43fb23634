"""A metric of MMEngine that writes detections in COCO's result format."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric

from ..registry import METRICS


@METRICS.register_module()
class DetectionResults(BaseMetric):
    """Write predicted boxes and masks in COCO's result format.

    The file contains a list of dicts with ``image_id``, ``category_id``, ``bbox``, ``score`` and,
    with masks, ``segmentation`` as compressed run lengths. ``bbox`` is x, y, width and height in
    pixels of the original image. This metric computes no scores.

    Args:
        out_file (str): JSON file to write; its directory is created.
        category_ids (Sequence[int], optional): Category ids, in the order of the classes.
            Default: 1, 2, 3 and so on.
    """

    def __init__(self, out_file: str, category_ids: Sequence[int] | None = None):
        super().__init__()
        self.out_file = out_file
        self.category_ids = category_ids

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Convert the predictions of a batch."""
        for sample in data_samples:
            found = sample['pred_instances']
            boxes = found['bboxes'].detach().cpu().clone()
            boxes[:, 2:] -= boxes[:, :2]
            labels = found['labels'].tolist()
            ids = self.category_ids or range(1, max(labels, default=0) + 2)
            entries = [
                dict(image_id=sample['img_id'], category_id=ids[label], bbox=box, score=score)
                for label, box, score in zip(
                    labels, boxes.tolist(), found['scores'].tolist(), strict=True
                )
            ]
            if 'masks' in found:
                for entry, code in zip(entries, _run_lengths(found['masks']), strict=True):
                    entry['segmentation'] = code
            self.results.append(entries)

    def compute_metrics(self, results: list) -> dict:
        """Write the file, and return no scores."""
        Path(self.out_file).parent.mkdir(parents=True, exist_ok=True)
        entries = [entry for image in results for entry in image]
        Path(self.out_file).write_text(json.dumps(entries))
        return {}


def _run_lengths(masks) -> list[dict]:
    """Encode masks of shape (N, H, W) as run lengths with text instead of bytes.

    Masks that are already encoded may be passed too.
    """
    # Optional dependency: only detection needs pycocotools.
    from pycocotools.mask import encode

    if isinstance(masks, torch.Tensor):
        masks = masks.detach().cpu().numpy().astype('uint8').transpose(1, 2, 0)
        masks = encode(masks.copy(order='F'))
    return [
        dict(size=[int(side) for side in mask['size']], counts=_text(mask['counts']))
        for mask in masks
    ]


def _text(counts: bytes | str) -> str:
    return counts.decode('ascii') if isinstance(counts, bytes) else counts
