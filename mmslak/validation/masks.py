"""Checks masks in COCO's formats: polygons and run-length encoding (RLE)."""

from .data_errors import AnnotationError
from .lookup import REACH, bounded


def check_mask(mask, width: int, height: int, where: str) -> None:
    """Check that a mask can be decoded within its image.

    pycocotools decodes masks in C: it reserves memory for the length of the outline of a polygon,
    and for the size that an RLE names. An RLE with fewer pixels leaves part of the mask undefined.

    Args:
        mask (list or dict): Polygons ``[[x1, y1, x2, y2, ...], ...]`` in pixels, or an RLE with
            ``size`` (height, width) and ``counts``, a list or a compressed string.
        width (int): Width of the image in pixels.
        height (int): Height of the image in pixels.
        where (str): The annotation, for messages.

    Raises:
        AnnotationError: If a polygon is not a list of numbers or reaches far beyond the image, or
            if the RLE has another size than the image, or counts that are not those of its pixels.
    """
    if isinstance(mask, list):
        if not all(isinstance(part, list) and _fits(part, width, height) for part in mask):
            raise AnnotationError(
                f'{where}: segmentation must be lists of numbers [x1, y1, x2, y2, ...], none of '
                f'them more than {REACH} times as large as the image of {width} x {height} pixels'
            )
        return
    size, counts = (mask.get('size'), mask.get('counts')) if isinstance(mask, dict) else (0, 0)
    if size != [height, width]:
        raise AnnotationError(
            f'{where}: size of the RLE must be [{height}, {width}], height and width of its image, '
            f'got {size}'
        )
    runs = _decoded(counts) if isinstance(counts, str) else counts
    valid = isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs)
    if not valid or sum(runs) != height * width:
        total = f'their sum is {sum(runs)}' if valid else 'they are not'
        raise AnnotationError(
            f'{where}: counts of the RLE must be numbers of pixels with the sum {height * width} '
            f'(the size {height} x {width}), but {total}'
        )


def _fits(part: list, width: int, height: int) -> bool:
    return not part or bounded(part, REACH * max(width, height))


def _decoded(text: str) -> list[int] | None:
    """Return the runs in COCO's compressed string, or None if it is not one.

    A run is stored in characters of 6 bits, the lowest bits first: 5 bits of the number and one
    that says whether more follow. From the fourth run on, the difference to the run before the
    last one is stored.
    """
    runs, value, shift = [], 0, 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if shift == 0 else None
