"""The effective receptive field of one pixel of a prediction."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ..analysis.drawing import draw_heat_map
from ..analysis.erf import (
    GAMMA,
    PredictedScore,
    area_ratio,
    contribution_scores,
    rescaled_log,
)
from ..predict import Predictor
from .display_size import MOST_PIXELS, shrunk

#: Side of the squares over which the contributions are averaged for the picture. Those of single
#: pixels differ much from their neighbours, because the stem has a stride.
_BLOCK = 8
#: Shares of the contributions of which the area is shown.
_SHARES = (0.5, 0.99)


class PixelField(NamedTuple):
    """The effective receptive field of one pixel.

    Args:
        scores (np.ndarray): Contribution of each pixel of the network's input, shape (h, w).
        pixel (tuple[int, int]): Position (x, y) in it.
    """

    scores: np.ndarray
    pixel: tuple[int, int]


def pixel_field(predictor: Predictor, image: np.ndarray, point: tuple[float, float]) -> PixelField:
    """Compute which pixels contribute to the predicted class of one pixel.

    Args:
        predictor (Predictor): Of a segmentor. Its parameters should not require gradients.
        image (np.ndarray): Shape (H, W, 3), BGR.
        point (tuple[float, float]): Position (x, y) in the image, from 0 to 1.

    Returns:
        PixelField: The contributions, at the size of the network's input.
    """
    tensor, (height, width) = predictor.network_input(shrunk(image, MOST_PIXELS))
    x, y = (
        min(int(share * size), size - 1) for share, size in zip(point, (width, height), strict=True)
    )
    with torch.enable_grad():
        scores, _ = contribution_scores(PredictedScore(predictor.model), tensor, (x, y))
    return PixelField(scores[:height, :width], (x, y))


def draw_field(image: np.ndarray, field: PixelField) -> Image.Image:
    """Draw a field over its image of shape (H, W, 3) in RGB."""
    size = [max(1, side // _BLOCK) for side in reversed(field.scores.shape)]
    means = Image.fromarray(field.scores.astype(np.float32)).resize(size, Image.Resampling.BOX)
    values = rescaled_log(np.asarray(means)) ** GAMMA
    point = tuple(
        (at + 0.5) / side
        for at, side in zip(field.pixel, reversed(field.scores.shape), strict=True)
    )
    return draw_heat_map(image, values, point)


def area_text(field: PixelField) -> str:
    """Return how large the squares with half and with nearly all contributions are."""
    if not field.scores.any():
        return 'No pixel contributes to this output.'
    ratios = [area_ratio(field.scores, share, field.pixel) for share in _SHARES]
    parts = [
        f'{share:.0%} of the contributions lie in a square of {ratio:.1%} of the image'
        for share, ratio in zip(_SHARES, ratios, strict=True)
    ]
    return ', '.join(parts) + '.'
