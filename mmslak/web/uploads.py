"""Images that a browser sends: checks before they are decoded."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..predict.predictor import as_array
from ..validation.images import BadImageError, image_fault

#: Formats by Pillow's names. Others are not opened, because their decoders may start programs.
FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP')


def read_upload(path: str | Path) -> np.ndarray:
    """Read an image that somebody else chose.

    Args:
        path (str or Path): The file. Its name is used in messages, its suffix is not trusted.

    Returns:
        np.ndarray: Shape (H, W, 3), BGR, upright by its EXIF orientation.

    Raises:
        BadImageError: If it is not an image of :data:`FORMATS`, is damaged, or has more pixels
            than the limit, in one sentence.
    """
    path = Path(path)
    if not path.stat().st_size:
        raise BadImageError(f'{path.name} is empty: choose an image.')
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = image.width * image.height
    except UnidentifiedImageError as error:
        names = f'{", ".join(FORMATS[:-1])} or {FORMATS[-1]}'
        raise BadImageError(
            f'{path.name} is not an image: choose a file of the format {names}.'
        ) from error
    except Image.DecompressionBombError:
        # Pillow stops at twice the limit.
        pixels = 2 * limit
    except Exception as error:  # Pillow's decoders raise errors of many types.
        raise _damaged(path, str(error)) from error
    if limit is not None and pixels > limit:
        raise BadImageError(
            f'{path.name} has more than {limit:,} pixels, the limit of this page: choose a smaller '
            'image.'
        )
    if fault := image_fault(path, decode=True):
        raise _damaged(path, fault)
    return as_array(path)


def _damaged(path: Path, fault: str) -> BadImageError:
    return BadImageError(f'{path.name} is damaged ({fault}): choose another image.')
