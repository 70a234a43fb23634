"""Appearance of the sample data's objects, and how one object is placed and painted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import shapes, textures
from .random_numbers import RandomNumbers
from .textures import mix


@dataclass(frozen=True)
class Appearance:
    """What a kind of object looks like.

    Args:
        shape (Callable): A function of :mod:`.shapes`.
        texture (Callable): A function of :mod:`.textures`.
        colours (tuple): Pairs of (R, G, B) colours, of which each object has one.
        upright (bool): Rotate by a few degrees only.
    """

    shape: Callable
    texture: Callable
    colours: tuple
    upright: bool = False


_RED, _WHITE, _BLUE = (206, 56, 48), (240, 236, 226), (52, 92, 176)
_ORANGE, _YELLOW, _BROWN = (228, 128, 48), (240, 208, 92), (140, 92, 50)
_PINK, _GREEN, _TAN, _VIOLET = (228, 128, 164), (66, 138, 66), (206, 160, 102), (122, 74, 152)

#: Appearance of each class. Every colour occurs in several classes: shape and texture decide.
APPEARANCES = {
    'ball': Appearance(shapes.disc, textures.stripes, ((_RED, _WHITE), (_BLUE, _YELLOW))),
    'buoy': Appearance(shapes.capsule, textures.bands, ((_ORANGE, _WHITE), (_RED, _WHITE))),
    'clover': Appearance(shapes.four_leaves, textures.blobs, ((_GREEN, _YELLOW), (_VIOLET, _PINK))),
    'crate': Appearance(shapes.square, textures.checks, ((_BROWN, _TAN), (_VIOLET, _TAN))),
    'donut': Appearance(shapes.ring, textures.sprinkles, ((_PINK, _WHITE), (_BROWN, _YELLOW))),
    'melon': Appearance(shapes.half_disc, textures.rind, ((_RED, _GREEN), (_YELLOW, _GREEN))),
    'starfish': Appearance(shapes.star, textures.dots, ((_ORANGE, _YELLOW), (_VIOLET, _ORANGE))),
    'tent': Appearance(
        shapes.triangle, textures.zigzag, ((_BLUE, _WHITE), (_GREEN, _ORANGE)), upright=True
    ),
}
#: Unlabelled objects.
ROCK = Appearance(
    shapes.boulder, textures.rough, (((112, 108, 104), (176, 170, 162)),), upright=True
)


@dataclass
class PlacedObject:
    """One object before it is painted.

    Args:
        window (tuple[slice, slice]): Rows and columns of the image that it covers.
        distance (ndarray): Distance to its outline in pixels, negative inside, of the shape of
            the window, like u and v.
        u (ndarray): First coordinate of shape and texture.
        v (ndarray): Second coordinate of shape and texture.
        radius (float): Radius in pixels.
        cut (bool): A part of it is outside the image.
    """

    window: tuple[slice, slice]
    distance: np.ndarray
    u: np.ndarray
    v: np.ndarray
    radius: float
    cut: bool

    @property
    def mask(self) -> np.ndarray:
        """Pixels inside the outline, bool, of the shape of the window."""
        return self.distance <= 0.0


def place(
    rng: RandomNumbers,
    appearance: Appearance,
    x: float,
    y: float,
    radius: float,
    image_shape: tuple[int, int],
) -> PlacedObject | None:
    """Rotate an object at random and place it around (x, y).

    Returns:
        PlacedObject or None: None if it is outside the image.
    """
    height, width = image_shape
    # (1 - t t, 2 t) / (1 + t t) is a unit vector, computed without a sine.
    t = rng.uniform(-0.12, 0.12) if appearance.upright else rng.uniform(-1.0, 1.0)
    opposite = rng.integer(0, 1)
    c, s = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
    if opposite and not appearance.upright:
        c, s = -c, -s
    reach = int(radius) + 3
    left, top = int(x) - reach, int(y) - reach
    x0, x1 = max(0, left), min(width, int(x) + reach + 1)
    y0, y1 = max(0, top), min(height, int(y) + reach + 1)
    if y0 >= y1 or x0 >= x1:
        return None
    dx = (np.arange(left, left + 2 * reach + 1) - x) / radius
    dy = ((np.arange(top, top + 2 * reach + 1) - y) / radius)[:, None]
    u, v = c * dx + s * dy, c * dy - s * dx
    distance = appearance.shape(u, v) * radius
    pixels = np.count_nonzero(distance <= 0.0)
    u, v, distance = (a[y0 - top : y1 - top, x0 - left : x1 - left] for a in (u, v, distance))
    cut = np.count_nonzero(distance <= 0.0) < pixels
    return PlacedObject((slice(y0, y1), slice(x0, x1)), distance, u, v, radius, cut)


def paint(
    rng: RandomNumbers,
    image: np.ndarray,
    appearance: Appearance,
    placed: PlacedObject,
    colours,
    unit: float,
) -> None:
    """Paint an object with its shadow, shading and outline into an image (H, W, 3)."""
    rows, columns = placed.window
    alpha = np.clip(0.5 - placed.distance, 0.0, 1.0)
    # The shadow falls down and to the right.
    drop = max(1, int(0.14 * placed.radius))
    height, width = image.shape[:2]
    y1, x1 = min(height, rows.stop + drop), min(width, columns.stop + drop)
    y0, x0 = rows.start + drop, columns.start + drop
    if y1 > y0 and x1 > x0:
        shade = np.clip(0.5 - placed.distance / (1.0 + 0.1 * placed.radius), 0.0, 1.0)
        image[y0:y1, x0:x1] *= (1.0 - 0.34 * shade[: y1 - y0, : x1 - x0])[..., None]
    weight = appearance.texture(rng, placed.u, placed.v)
    texture = mix(*colours, weight)
    y = np.arange(rows.start, rows.stop)[:, None] - 0.5 * (rows.start + rows.stop)
    x = np.arange(columns.start, columns.stop) - 0.5 * (columns.start + columns.stop)
    light = 1.0 - 0.16 * (x + 1.4 * y) / placed.radius
    # Darker towards the outline, which looks round and separates it from what is behind.
    inside = np.clip(-placed.distance / (0.3 * placed.radius), 0.0, 1.0)
    light = light * (0.72 + 0.28 * inside * (2.0 - inside))
    light = light * (1.0 - 0.45 * np.clip(1.0 + placed.distance / max(1.0, unit), 0.0, 1.0))
    texture *= light[..., None]
    window = image[placed.window]
    window += (texture - window) * alpha[..., None]
