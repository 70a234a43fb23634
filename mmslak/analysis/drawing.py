"""Pictures of predictions: overlays, boxes, masks, legends, lists of classes and heat maps."""

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw, ImageFont

#: Share of the colour of a class in overlays.
OPACITY = 0.55
#: Smallest score of the boxes that are drawn.
MIN_SCORE = 0.3
#: Smaller pictures are enlarged to at least so many pixels on the shorter side, for the text.
_SMALLEST = 320
#: Height of the text as a share of the height of the picture, and its limits in pixels.
_TEXT, _TEXT_LIMITS = 1 / 28, (13, 34)


def palette_of(meta: Mapping) -> list[tuple[int, int, int]]:
    """Return a colour (R, G, B) for each class: those of the dataset, or well separated ones.

    Args:
        meta (Mapping): ``classes`` and, optionally, ``palette``.
    """
    count, palette = len(meta['classes']), meta.get('palette')
    if isinstance(palette, (list, tuple)) and len(palette) >= count:
        return [tuple(int(value) for value in colour[:3]) for colour in palette[:count]]
    # Hues at the golden angle are far apart for neighbouring classes.
    return [
        tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i * 0.618 % 1, 0.65, 0.95))
        for i in range(count)
    ]


def overlay(
    image: np.ndarray, labels: np.ndarray, meta: Mapping, opacity: float = OPACITY
) -> Image.Image:
    """Draw a label map over an image, with thin white lines between the classes.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        labels (np.ndarray): Classes of the pixels, shape (H, W). Other numbers are not drawn.
        meta (Mapping): ``classes`` and, optionally, ``palette``.
        opacity (float): Share of the colour of a class, from 0 to 1. With 0 only the image is
            drawn.
    """
    colours = np.array(palette_of(meta), np.uint8)
    known = labels < len(colours)
    mixed = image.copy()
    coloured = (1 - opacity) * image + opacity * colours[np.where(known, labels, 0)]
    mixed[known] = coloured[known].astype(np.uint8)
    picture, scale = _enlarged(mixed)
    if opacity > 0:
        _draw_borders(picture, labels, scale)
    return picture


def legend(labels: np.ndarray, meta: Mapping) -> list[tuple[str, str, tuple[int, int, int]]]:
    """Return the classes of a label map, the most frequent one first.

    Args:
        labels (np.ndarray): Classes of the pixels, shape (H, W). Other numbers are left out.
        meta (Mapping): ``classes`` and, optionally, ``palette``.

    Returns:
        list[tuple]: Name, share of the pixels as a text such as ``12.5 %``, and (R, G, B) colour.
    """
    classes, colours = meta['classes'], palette_of(meta)
    known = labels[labels < len(classes)]
    shares = np.bincount(known.ravel(), minlength=len(classes)) / max(1, labels.size)
    order = [i for i in np.argsort(-shares, kind='stable') if shares[i] > 0]
    return [(classes[i], _percent(shares[i]), colours[i]) for i in order]


def draw_segmentation(image: np.ndarray, labels: np.ndarray, meta: Mapping) -> Image.Image:
    """Draw a label map over an image, with a legend of the classes in it and their shares.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        labels (np.ndarray): Classes of the pixels, shape (H, W).
        meta (Mapping): ``classes`` and, optionally, ``palette``.

    Returns:
        Image: The picture with the legend on its right.
    """
    entries = [(f'{name}  {share}', colour, None) for name, share, colour in legend(labels, meta)]
    return _with_panel(overlay(image, labels, meta), entries)


def draw_detection(
    image: np.ndarray,
    instances: Mapping[str, np.ndarray],
    meta: Mapping,
    min_score: float = MIN_SCORE,
) -> Image.Image:
    """Draw boxes, masks, names and scores of objects over an image.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        instances (Mapping): ``bboxes`` of shape (N, 4) as x1, y1, x2, y2 in pixels, ``labels`` of
            shape (N,), and optionally ``scores`` of shape (N,) and ``masks`` of shape (N, H, W).
        meta (Mapping): ``classes`` and, optionally, ``palette``.
        min_score (float): Objects with a lower score are not drawn.

    Returns:
        Image: The picture.
    """
    colours = palette_of(meta)
    scores = instances.get('scores')
    if scores is None:
        order = range(len(instances['labels']))
    else:
        # The object with the highest score is drawn last, on top.
        order = [i for i in np.argsort(scores, kind='stable') if scores[i] >= min_score]
    mixed = image.astype(np.float32)
    masks = instances.get('masks')
    for i in order if masks is not None else ():
        inside = np.asarray(masks[i], bool)
        mixed[inside] = (1 - OPACITY) * mixed[inside] + OPACITY * np.array(
            colours[instances['labels'][i]], np.float32
        )
    picture, scale = _enlarged(mixed.astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), _font(picture.height)
    line = max(2, round(min(picture.size) / 220))
    for i in order:
        label = int(instances['labels'][i])
        box = [float(value) * scale for value in instances['bboxes'][i]]
        draw.rectangle(box, outline=colours[label], width=line)
    for i in order:
        label = int(instances['labels'][i])
        left, top = (float(value) * scale for value in instances['bboxes'][i][:2])
        text = meta['classes'][label] + ('' if scores is None else f' {scores[i]:.2f}')
        _draw_tag(draw, (left, top), text, colours[label], font, picture.size)
    return picture


def instances_of(sample) -> dict[str, np.ndarray]:
    """Return boxes, labels, scores and masks of a ``DetDataSample`` as arrays."""
    instances = sample.pred_instances
    return {
        key: np.asarray(instances[key].cpu() if hasattr(instances[key], 'cpu') else instances[key])
        for key in ('bboxes', 'labels', 'scores', 'masks')
        if key in instances
    }


def draw_class(image: np.ndarray, label: int, meta: Mapping) -> Image.Image:
    """Write the name of a class into the upper left corner of an image.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        label (int): Number of the class.
        meta (Mapping): ``classes`` and, optionally, ``palette``.
    """
    picture, _ = _enlarged(image)
    draw, font = ImageDraw.Draw(picture), _font(picture.height)
    colour, name = palette_of(meta)[label], meta['classes'][label]
    _draw_tag(draw, (0, 0), name, colour, font, picture.size)
    return picture


def draw_classification(
    image: np.ndarray, scores: np.ndarray, meta: Mapping, most: int = 5
) -> Image.Image:
    """Draw an image with the classes of the highest scores and bars on its right.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        scores (np.ndarray): Probability of each class.
        meta (Mapping): ``classes``.
        most (int): Number of classes to show.
    """
    entries = [
        (f'{meta["classes"][i]}  {_percent(scores[i])}', (45, 110, 190), float(scores[i]))
        for i in np.argsort(-scores, kind='stable')[:most]
    ]
    return _with_panel(_enlarged(image)[0], entries)


def draw_heat_map(
    image: np.ndarray, values: np.ndarray, point: tuple[float, float] | None = None
) -> Image.Image:
    """Draw a heat map over the grey image; pixels without heat show the image only.

    Args:
        image (np.ndarray): Shape (H, W, 3), RGB.
        values (np.ndarray): Heat from 0 to 1, shape (h, w). It is scaled to the size of the image.
        point (tuple[float, float], optional): Position (x, y) in the image, from 0 to 1, to mark
            with a cross.

    Returns:
        Image: The picture.
    """
    grey = Image.fromarray(image).convert('L')
    heat = Image.fromarray(values.astype(np.float32)).resize(grey.size, Image.Resampling.BILINEAR)
    heat = np.clip(np.asarray(heat), 0, 1)[..., None]
    # The darkest colours would not differ from a dark image.
    colours = colormaps['viridis'](0.25 + 0.75 * heat[..., 0])[..., :3] * 255
    opacity = np.minimum(2.2 * heat, 0.85)
    mixed = (1 - opacity) * (0.75 * np.asarray(grey, np.float32))[..., None] + opacity * colours
    picture, _ = _enlarged(mixed.astype(np.uint8))
    if point is not None:
        x, y = (share * side for share, side in zip(point, picture.size, strict=True))
        line = max(2, min(picture.size) // 180)
        gap, arm = 3 * line, 9 * line
        draw = ImageDraw.Draw(picture)
        # The heat at the position itself stays visible.
        for colour, width, more in (('white', line + 2, 1), ('red', line, 0)):
            for low, high in ((gap - more, arm + more), (-arm - more, -gap + more)):
                draw.line((x + low, y, x + high, y), fill=colour, width=width)
                draw.line((x, y + low, x, y + high), fill=colour, width=width)
    return picture


def _percent(share: float) -> str:
    return f'{100 * share:.1f} %' if share >= 0.001 else '< 0.1 %'


def _font(height: int) -> ImageFont.FreeTypeFont:
    low, high = _TEXT_LIMITS
    return ImageFont.load_default(size=round(min(max(height * _TEXT, low), high)))


def enlargement(image: np.ndarray) -> int:
    """Return by which number the sides of a small image are multiplied, so that text fits."""
    return max(1, -(-_SMALLEST // max(1, min(image.shape[:2]))))


def _enlarged(image: np.ndarray) -> tuple[Image.Image, int]:
    """Return a picture, enlarged by a whole number if it is too small for text, and the number."""
    picture, scale = Image.fromarray(image), enlargement(image)
    if scale > 1:
        size = (picture.width * scale, picture.height * scale)
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return picture, scale


def _draw_borders(picture: Image.Image, labels: np.ndarray, scale: int) -> None:
    """Draw thin white lines between classes."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    mask = Image.fromarray(edge.astype(np.uint8) * 150)
    if scale > 1:
        mask = mask.resize(picture.size, Image.Resampling.BILINEAR)
    picture.paste((255, 255, 255), mask=mask)


def _with_panel(
    picture: Image.Image, entries: Sequence[tuple[str, tuple, float | None]]
) -> Image.Image:
    """Return a picture with a list on its right.

    Args:
        picture (Image): The picture.
        entries (Sequence): Text, colour, and length of a bar between 0 and 1; None shows a square
            of the colour before the text instead.
    """
    font = _font(picture.height)
    line, gap = round(font.size * 1.5), round(font.size * 0.8)
    bars = any(length is not None for _, _, length in entries)
    step = line + (round(font.size * 0.9) if bars else 0)
    rows = max(1, (picture.height - gap) // step)
    columns = [entries[i : i + rows] for i in range(0, len(entries), rows)]
    indent = 0 if bars else round(font.size * 1.4)
    widths = [
        max(round(font.getlength(text)) for text, _, _ in column) + indent + gap
        for column in columns
    ]
    if bars:
        widths = [max(width, font.size * 12) for width in widths]
    sheet = Image.new('RGB', (picture.width + gap + sum(widths), picture.height), 'white')
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    left = picture.width + gap
    for column, width in zip(columns, widths, strict=True):
        for i, (text, colour, length) in enumerate(column):
            top = gap // 2 + i * step
            if length is None:
                side = font.size
                draw.rectangle((left, top + 2, left + side, top + 2 + side), fill=colour)
            else:
                low, full = top + line, width - gap
                draw.rectangle((left, low, left + full, low + font.size // 3), fill=(228,) * 3)
                end = left + max(1, round(full * length))
                draw.rectangle((left, low, end, low + font.size // 3), fill=colour)
            draw.text((left + indent, top + line // 2), text, fill='black', font=font, anchor='lm')
        left += width
    return sheet


def _draw_tag(draw, corner, text: str, colour: tuple, font, size: tuple[int, int]) -> None:
    """Draw a text on a background of the colour above a corner, inside the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(0, corner[0]), max(0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1]
    y = min(max(0, y), max(0, size[1] - height))
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    light = np.dot(colour, (0.299, 0.587, 0.114)) > 140
    draw.text((x + 3 - left, y + 3 - top), text, fill='black' if light else 'white', font=font)
