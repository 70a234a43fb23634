"""Sizes at which images are shown."""

import numpy as np
from PIL import Image

#: Larger images are shrunk for the page and for gradients, as in the paper's measurements.
MOST_PIXELS = 1024 * 1024


def shrunk(image: np.ndarray, most: int) -> np.ndarray:
    """Return an image of at most so many pixels, shrunk with the same aspect ratio if needed.

    Args:
        image (np.ndarray): Shape (H, W, 3).
        most (int): Largest number of pixels.
    """
    height, width = image.shape[:2]
    scale = (most / (height * width)) ** 0.5
    if scale >= 1:
        return image
    size = max(1, int(width * scale)), max(1, int(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def resized_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a label map in another size, with the label of the nearest pixel.

    Args:
        labels (np.ndarray): Shape (H, W).
        shape (tuple[int, int]): New height and width.
    """
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(shape, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]
