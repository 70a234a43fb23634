"""Renders the sample data's scenes: textured, overlapping objects in front of a landscape.

A class is a silhouette together with a texture; colours are shared between classes, so that one
pixel does not tell the class. With ``context`` two classes share every pixel of their appearance,
and a small sun or moon far away in the image tells which of the two all objects are.

The same arguments give the same arrays on any machine. For that, the pixels come from the raw
output of PCG64 (whose stream NumPy keeps stable, unlike that of its distributions) and from
``+ - * /``, ``sqrt`` and ``floor`` alone, which IEEE 754 rounds correctly everywhere; there is no
``sin`` or ``exp``, no matrix product and no sum of floats, whose last bits depend on the machine.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

MIN_SIZE = 48
"""Smallest side in pixels; below it textures are narrower than a pixel."""

STUFF_CLASSES = ('sky', 'grass', 'water', 'sand')
"""Background classes, with the labels 1 to 4."""

# Alphabetical, so that the order of the labels is also the order of sorted folders.
THING_CLASSES = ('ball', 'buoy', 'clover', 'crate', 'donut', 'melon', 'starfish', 'tent')
"""Object classes, with the labels 5 to 12."""

CONTEXT_APPEARANCES = ('ball', 'buoy', 'donut', 'starfish')
"""The appearances that are used with ``context``; each is shared by a pair of classes."""

CONTEXT_CUES = ('day', 'night')
"""What the cue says: a sun for ``'day'``, a moon for ``'night'``."""

CONTEXT_THING_CLASSES = tuple(
    f'{cue}_{name}' for cue in CONTEXT_CUES for name in CONTEXT_APPEARANCES
)
"""Object classes with ``context``, with the labels 5 to 12."""

CLASSES = STUFF_CLASSES + THING_CLASSES
CONTEXT_CLASSES = STUFF_CLASSES + CONTEXT_THING_CLASSES

_STUFF_PALETTE = ((135, 190, 240), (80, 155, 60), (35, 100, 170), (225, 200, 140))
PALETTE = _STUFF_PALETTE + (
    (220, 50, 47),
    (255, 140, 0),
    (0, 200, 120),
    (130, 80, 35),
    (240, 110, 190),
    (160, 20, 90),
    (255, 230, 40),
    (110, 70, 210),
)
"""One (red, green, blue) per class of ``CLASSES``, for drawing label maps."""
CONTEXT_PALETTE = _STUFF_PALETTE + (
    (255, 90, 80),
    (255, 165, 40),
    (255, 150, 215),
    (255, 235, 90),
    (125, 20, 20),
    (130, 75, 0),
    (140, 30, 110),
    (130, 115, 0),
)
"""One (red, green, blue) per class of ``CONTEXT_CLASSES``; the pairs are light and dark."""

_SKY, _GRASS, _WATER, _SAND = 1, 2, 3, 4
_FIRST_THING = len(STUFF_CLASSES) + 1
# Scenes are dealt in blocks of 40: each of the 8 object classes is the main one 5 times, once of
# them in a validation scene.
_BLOCK = 5 * len(THING_CLASSES)
# Validation scenes are those whose index leaves this remainder when divided by five.
_VAL_REMAINDER = 1
_MIN_VISIBLE_FRACTION = 0.15
_MIN_VISIBLE_PIXELS = 16
_DIFFICULT_FRACTION = 0.4


@dataclass
class Instance:
    """One object of a scene, or one crowd of small ones.

    Args:
        class_id: label in the semantic map, 5 to 12.
        visible: what is to be seen of it, bool (H, W).
        full: what would be seen of it with nothing in front, bool (H, W).
        bbox: box around ``visible``, pixels (x0, y0, x1, y1), from 0, x1 and y1 exclusive.
        crowd: whether it is a group of many small objects.
        truncated: whether the box is not that of the whole object, because the image ends or
            because of something in front.
        difficult: whether it is a crowd, tiny, or less than 40 % visible.
    """

    class_id: int
    visible: np.ndarray
    full: np.ndarray
    bbox: tuple[int, int, int, int]
    crowd: bool
    truncated: bool
    difficult: bool

    @property
    def area(self) -> int:
        """Visible area in pixels."""
        return int(np.count_nonzero(self.visible))


@dataclass
class Cue:
    """The marker that decides the classes of a scene with context.

    Args:
        name: ``'day'`` (a sun) or ``'night'`` (a moon).
        position: centre in pixels, (x, y).
        mask: its pixels, bool (H, W); the same for both names.
    """

    name: str
    position: tuple[int, int]
    mask: np.ndarray


@dataclass
class Scene:
    """One rendered scene.

    Args:
        image: uint8 (H, W, 3), red, green, blue.
        semantic: uint8 (H, W), 0 where unlabelled, otherwise 1 + the index of the class.
        instances: its objects from back to front; none in a few scenes.
        classes: names of the labels from 1 on.
        index: number of the scene.
        cue: the marker, with ``context`` only.
    """

    image: np.ndarray
    semantic: np.ndarray
    instances: list[Instance]
    classes: tuple[str, ...]
    index: int
    cue: Cue | None = None

    @property
    def is_val(self) -> bool:
        """Whether the scene is for validation: one in five, whatever their number."""
        return self.index % 5 == _VAL_REMAINDER


def classes_of(context: bool = False) -> tuple[str, ...]:
    """Names of the labels from 1 on, backgrounds first, of scenes with or without context."""
    return CONTEXT_CLASSES if context else CLASSES


def thing_classes_of(context: bool = False) -> tuple[str, ...]:
    """Names of the object classes, in alphabetical order, of scenes with or without context."""
    return CONTEXT_THING_CLASSES if context else THING_CLASSES


def palette_of(context: bool = False) -> tuple[tuple[int, int, int], ...]:
    """Colours of ``classes_of(context)``."""
    return CONTEXT_PALETTE if context else PALETTE


class _Draws:
    """Random numbers from a key of non-negative integers, the same with every NumPy."""

    def __init__(self, *key: int):
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * ((int(self._bits.random_raw()) >> 11) * 2.0**-53)

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def chance(self, probability: float) -> bool:
        return self.uniform() < probability

    def choice(self, options):
        return options[self.integer(0, len(options) - 1)]

    def shuffled(self, options) -> list:
        options = list(options)
        for i in range(len(options) - 1, 0, -1):
            j = self.integer(0, i)
            options[i], options[j] = options[j], options[i]
        return options

    def field(self, *shape: int) -> np.ndarray:
        """Float64 array of the given shape in [0, 1)."""
        count = 1
        for side in shape:
            count *= side
        return ((self._bits.random_raw(count) >> np.uint64(11)) * 2.0**-53).reshape(shape)


# --- building blocks of textures ------------------------------------------------------------------


def _smooth(x):
    return x * x * (3.0 - 2.0 * x)


def _wave(x):
    """Triangle wave of period 1 between 0 and 1: 0 at whole numbers."""
    return np.abs(x - np.floor(x + 0.5)) * 2.0


def _step(x, softness):
    """From 0 to 1 as x goes from -softness to softness."""
    return np.clip(x / (2.0 * softness) + 0.5, 0.0, 1.0)


def _noise(draws: _Draws, height: int, width: int, cell_y: float, cell_x: float) -> np.ndarray:
    """Smooth noise in [0, 1), (height, width), whose blobs are cell_y by cell_x pixels."""
    grid = draws.field(int(height / cell_y) + 3, int(width / cell_x) + 3)
    y = np.arange(height) / cell_y + draws.uniform()
    x = np.arange(width) / cell_x + draws.uniform()
    iy, ix = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    fy, fx = _smooth(y - iy)[:, None], _smooth(x - ix)
    rows = grid[iy] * (1.0 - fy) + grid[iy + 1] * fy
    return rows[:, ix] * (1.0 - fx) + rows[:, ix + 1] * fx


def _mix(first, second, weight):
    """Colours (..., 3) between two colours, by weights (...)."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    return first + (second - first) * weight[..., None]


def _jitter(draws: _Draws, colour, amount: float) -> tuple[float, ...]:
    return tuple(channel + draws.uniform(-amount, amount) for channel in colour)


# --- backgrounds ----------------------------------------------------------------------------------


def _sky(draws, height, width, unit):
    clouds = 0.65 * _noise(draws, height, width, 14 * unit, 34 * unit)
    clouds += 0.35 * _noise(draws, height, width, 6 * unit, 13 * unit)
    down = np.broadcast_to(np.arange(height)[:, None] / height, (height, width))
    top, low = _jitter(draws, (85, 140, 210), 16), _jitter(draws, (185, 212, 235), 14)
    colours = _mix(top, low, np.clip(1.6 * down, 0.0, 1.0))
    return colours + (np.array([248.0, 248.0, 250.0]) - colours) * (
        0.85 * _step(clouds - 0.58, 0.12)[..., None]
    )


def _grass(draws, height, width, unit):
    blades = _noise(draws, height, width, 7 * unit, 1.7 * unit)
    patches = _noise(draws, height, width, 22 * unit, 30 * unit)
    dark, light = _jitter(draws, (52, 98, 42), 12), _jitter(draws, (136, 176, 78), 14)
    return _mix(dark, light, 0.7 * blades + 0.35 * patches)


def _water(draws, height, width, unit):
    drift = _noise(draws, height, width, 12 * unit, 26 * unit)
    down = np.arange(height)[:, None] / (6.5 * unit)
    ripples = _smooth(_wave(down + 1.6 * drift + draws.uniform()))
    glints = _noise(draws, height, width, 2 * unit, 9 * unit)
    dark, light = _jitter(draws, (28, 82, 128), 12), _jitter(draws, (105, 168, 192), 14)
    colours = _mix(dark, light, 0.55 * ripples + 0.4 * glints)
    return colours + 45.0 * (_step(ripples + glints - 1.5, 0.1))[..., None]


def _sand(draws, height, width, unit):
    dunes = _noise(draws, height, width, 9 * unit, 40 * unit)
    grain = _noise(draws, height, width, 1.3 * unit, 1.3 * unit)
    dark, light = _jitter(draws, (182, 148, 98), 12), _jitter(draws, (240, 218, 166), 10)
    return _mix(dark, light, 0.55 * dunes + 0.45 * grain)


_BACKGROUNDS = {_SKY: _sky, _GRASS: _grass, _WATER: _water, _SAND: _sand}


def _background(draws, height, width, unit):
    """Two or three regions one below the other: colours (H, W, 3) and labels (H, W)."""
    labels = [_SKY] + draws.shuffled((_GRASS, _WATER, _SAND))[: draws.integer(1, 2)]
    if draws.chance(0.15):
        labels = draws.shuffled((_GRASS, _WATER, _SAND))[:2]
    if len(labels) == 2:
        borders = [draws.uniform(0.3, 0.62)]
    else:
        borders = [draws.uniform(0.2, 0.4), draws.uniform(0.55, 0.78)]
    colours = _BACKGROUNDS[labels[0]](draws, height, width, unit)
    semantic = np.full((height, width), labels[0], np.uint8)
    rows = np.arange(height)[:, None]
    for label, border in zip(labels[1:], borders, strict=True):
        slope = draws.uniform(-0.18, 0.18)
        swing = draws.uniform(0.02, 0.12) * height
        wavy = _noise(draws, 1, width, 1.0, draws.uniform(0.12, 0.35) * width)[0] - 0.5
        line = border * height + slope * (np.arange(width) - width / 2) + swing * wavy
        below = rows - line
        texture = _BACKGROUNDS[label](draws, height, width, unit)
        # Far edges look a little darker and hazier than what is near.
        texture *= (0.86 + 0.14 * np.clip(below / (24 * unit), 0.0, 1.0))[..., None]
        colours += (texture - colours) * np.clip(below + 0.5, 0.0, 1.0)[..., None]
        semantic[below >= 0] = label
        # People who label do not agree on the last pixel of such a border: it has no label.
        semantic[np.abs(below) <= max(1.0, unit)] = 0
    return colours, semantic


# --- silhouettes: about the distance to the outline, negative inside; within the unit circle ------


def _disc(u, v):
    return np.sqrt(u * u + v * v) - 1.0


def _square(u, v):
    return np.maximum(np.abs(u), np.abs(v)) - 0.7


def _triangle(u, v):
    return np.maximum(v - 0.5, 0.5 * sqrt(3.0) * np.abs(u) - 0.5 * v - 0.5)


# Cosine and sine of 72 degrees, by square roots.
_COS72, _SIN72 = (sqrt(5.0) - 1.0) / 4.0, sqrt(10.0 + 2.0 * sqrt(5.0)) / 4.0


def _star(u, v):
    distance = None
    c, s = 0.0, -1.0
    for _ in range(5):
        along, across = c * u + s * v, np.abs(c * v - s * u)
        arm = np.maximum(0.44 * (along - 1.0) + 0.9 * across, -along)
        distance = arm if distance is None else np.minimum(distance, arm)
        c, s = c * _COS72 - s * _SIN72, c * _SIN72 + s * _COS72
    return distance


def _ring(u, v):
    return np.abs(np.sqrt(u * u + v * v) - 0.68) - 0.32


def _half_disc(u, v):
    v = v + 0.45
    return np.maximum(np.sqrt(u * u + v * v) - 0.9, -v)


def _capsule(u, v):
    along = np.maximum(np.abs(u) - 0.62, 0.0)
    return np.sqrt(along * along + v * v) - 0.38


def _four_leaves(u, v):
    u, v = np.abs(u), np.abs(v)
    near, far = np.maximum(u, v) - 0.55, np.minimum(u, v)
    return np.minimum(np.sqrt(near * near + far * far) - 0.44, np.maximum(u, v) - 0.3)


def _boulder(u, v):
    first = np.sqrt((u + 0.3) * (u + 0.3) + v * v) - 0.62
    second = np.sqrt((u - 0.35) * (u - 0.35) + (v - 0.2) * (v - 0.2)) - 0.5
    return np.minimum(first, second)


# --- textures of objects: (draws, u, v) -> weight of the second colour, in [0, 1] -----------------


def _stripes(draws, u, v):
    return _step(_wave(2.2 * u + draws.uniform()) - 0.5, 0.12)


def _bands(draws, u, v):
    return _step(_wave(1.25 * u + draws.uniform(0.1, 0.4)) - 0.5, 0.06)


def _blobs(draws, u, v):
    # Two crossed waves, bent: blotches that need no lattice of their own.
    shift, other = draws.uniform(), draws.uniform()
    first = _wave(1.7 * u + 0.6 * _wave(1.3 * v + other) + shift)
    second = _wave(1.9 * v + 0.7 * _wave(1.1 * u + shift) + other)
    return _step(_smooth(first) * _smooth(second) - 0.3, 0.2)


def _checks(draws, u, v):
    first = _wave(1.45 * u + draws.uniform()) - 0.5
    second = _wave(1.45 * v + draws.uniform()) - 0.5
    return _step(first * second, 0.02)


def _sprinkles(draws, u, v):
    a, b = 3.4 * u + 0.4 * v + draws.uniform(), 3.4 * v - 0.4 * u + draws.uniform()
    row = np.floor(b)
    a = a + 0.37 * row
    # Every other cell holds a lying sprinkle, the rest a standing one.
    odd = (np.floor(a) + row) * 0.5
    lying = odd == np.floor(odd)
    a, b = np.abs(a - np.floor(a) - 0.5), np.abs(b - np.floor(b) - 0.5)
    a, b = np.where(lying, a, b), np.where(lying, b, a)
    return _step(0.32 - np.maximum(a, 2.2 * b), 0.08)


def _rind(draws, u, v):
    v = v + 0.45
    radius = np.sqrt(u * u + v * v)
    a, b = 4.2 * u + draws.uniform(), 4.2 * v + draws.uniform()
    a, b = a - np.floor(a) - 0.5, b - np.floor(b) - 0.5
    seeds = _step(0.2 - np.sqrt(a * a + 0.5 * b * b), 0.06) * (radius < 0.62)
    return np.maximum(_step(radius - 0.74, 0.04), seeds)


def _dots(draws, u, v):
    a, b = 2.6 * u + draws.uniform(), 2.6 * v + draws.uniform()
    a, b = a - np.floor(a) - 0.5, b - np.floor(b) - 0.5
    return _step(0.28 - np.sqrt(a * a + b * b), 0.07)


def _zigzag(draws, u, v):
    return _step(
        _wave(1.8 * v + 0.45 * _wave(1.7 * u + draws.uniform()) + draws.uniform()) - 0.5, 0.1
    )


def _rough(draws, u, v):
    return 0.6 * _wave(1.3 * u + 0.8 * v) * _wave(1.7 * v - 0.6 * u) + 0.2


@dataclass(frozen=True)
class _Appearance:
    """How a kind of object looks: outline, texture, pairs of colours, and how far it tilts."""

    outline: object
    texture: object
    colours: tuple
    upright: bool = False


_RED, _WHITE, _BLUE = (206, 56, 48), (240, 236, 226), (52, 92, 176)
_ORANGE, _YELLOW, _BROWN = (228, 128, 48), (240, 208, 92), (140, 92, 50)
_PINK, _GREEN, _TAN, _VIOLET = (228, 128, 164), (66, 138, 66), (206, 160, 102), (122, 74, 152)

# Every colour occurs in more than one class: colour helps, outline and texture decide.
_APPEARANCES = {
    'ball': _Appearance(_disc, _stripes, ((_RED, _WHITE), (_BLUE, _YELLOW))),
    'buoy': _Appearance(_capsule, _bands, ((_ORANGE, _WHITE), (_RED, _WHITE))),
    'clover': _Appearance(_four_leaves, _blobs, ((_GREEN, _YELLOW), (_VIOLET, _PINK))),
    'crate': _Appearance(_square, _checks, ((_BROWN, _TAN), (_VIOLET, _TAN))),
    'donut': _Appearance(_ring, _sprinkles, ((_PINK, _WHITE), (_BROWN, _YELLOW))),
    'melon': _Appearance(_half_disc, _rind, ((_RED, _GREEN), (_YELLOW, _GREEN))),
    'starfish': _Appearance(_star, _dots, ((_ORANGE, _YELLOW), (_VIOLET, _ORANGE))),
    'tent': _Appearance(_triangle, _zigzag, ((_BLUE, _WHITE), (_GREEN, _ORANGE)), upright=True),
}
_ROCK = _Appearance(_boulder, _rough, (((112, 108, 104), (176, 170, 162)),), upright=True)


@dataclass
class _Part:
    """One object before it is painted: its window of the image and what goes there."""

    window: tuple[slice, slice]
    distance: np.ndarray
    u: np.ndarray
    v: np.ndarray
    radius: float
    cut: bool

    @property
    def mask(self) -> np.ndarray:
        return self.distance <= 0.0


def _place(draws, appearance, x, y, radius, shape) -> _Part | None:
    """Turn the object at random and lay it out around (x, y); None where no pixel is inside."""
    height, width = shape
    # (1 - t t, 2 t) / (1 + t t) is a unit vector, without a sine.
    t = draws.uniform(-0.12, 0.12) if appearance.upright else draws.uniform(-1.0, 1.0)
    turn = draws.integer(0, 1)
    c, s = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
    if turn and not appearance.upright:
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
    distance = appearance.outline(u, v) * radius
    pixels = np.count_nonzero(distance <= 0.0)
    u, v, distance = (a[y0 - top : y1 - top, x0 - left : x1 - left] for a in (u, v, distance))
    cut = np.count_nonzero(distance <= 0.0) < pixels
    return _Part((slice(y0, y1), slice(x0, x1)), distance, u, v, radius, cut)


def _paint(draws, image, appearance, part, colours, unit):
    """Draw the object into the image (H, W, 3), with its shadow, shading and outline."""
    rows, columns = part.window
    alpha = np.clip(0.5 - part.distance, 0.0, 1.0)
    # The shadow falls down and to the right.
    drop = max(1, int(0.14 * part.radius))
    height, width = image.shape[:2]
    y1, x1 = min(height, rows.stop + drop), min(width, columns.stop + drop)
    y0, x0 = rows.start + drop, columns.start + drop
    if y1 > y0 and x1 > x0:
        shade = np.clip(0.5 - part.distance / (1.0 + 0.1 * part.radius), 0.0, 1.0)
        image[y0:y1, x0:x1] *= (1.0 - 0.34 * shade[: y1 - y0, : x1 - x0])[..., None]
    weight = appearance.texture(draws, part.u, part.v)
    texture = _mix(*colours, weight)
    y = np.arange(rows.start, rows.stop)[:, None] - 0.5 * (rows.start + rows.stop)
    x = np.arange(columns.start, columns.stop) - 0.5 * (columns.start + columns.stop)
    light = 1.0 - 0.16 * (x + 1.4 * y) / part.radius
    # Darker towards the outline: round, and told apart from what is behind.
    inside = np.clip(-part.distance / (0.3 * part.radius), 0.0, 1.0)
    light = light * (0.72 + 0.28 * inside * (2.0 - inside))
    light = light * (1.0 - 0.45 * np.clip(1.0 + part.distance / max(1.0, unit), 0.0, 1.0))
    texture *= light[..., None]
    window = image[part.window]
    window += (texture - window) * alpha[..., None]


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class _Canvas:
    """An image being painted from back to front, and the bookkeeping of what stays visible."""

    def __init__(self, draws, height, width, unit):
        self.draws, self.unit, self.shape = draws, unit, (height, width)
        self.image, self.semantic = _background(draws, height, width, unit)
        self.things = []  # [slot, full, visible, crowd, cut], back to front
        self.spots = []  # (x, y, radius) of every object
        self.cue_distance = None  # distance of each pixel to the cue's centre, squared
        self.cue_reach = 0.0

    def spot(self, radius, near=False):
        """A place for an object of this radius, far from the cue; None where there is none."""
        height, width = self.shape
        draws = self.draws
        if near and self.spots:
            x, y, other = draws.choice(self.spots)
            # Close enough to overlap.
            reach = 0.75 * (radius + other)
            x, y = x + draws.uniform(-reach, reach), y + draws.uniform(-reach, reach)
        else:
            x, y = draws.uniform(0.1, 0.9) * width, draws.uniform(0.1, 0.9) * height
        x, y = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
        if self.cue_distance is None:
            return x, y
        reach = self.cue_reach + radius
        if self.cue_distance[y, x] >= reach * reach:
            return x, y
        free = np.flatnonzero(self.cue_distance >= reach * reach)
        if len(free) == 0:
            return None
        y, x = divmod(int(draws.choice(free)), width)
        return x, y

    def hides_too_much(self, mask) -> bool:
        """Whether an object with this mask would leave less than the minimum of another."""
        for _, full, visible, _, _ in self.things:
            left = np.count_nonzero(visible & ~mask)
            least = max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_FRACTION * np.count_nonzero(full))
            if left < least and left < np.count_nonzero(visible):
                return True
        return False

    def add(self, slot, appearance, radius, tries=8):
        """Paint one object where it fits; ``slot`` is its class, None for an unlabelled one."""
        for _ in range(tries):
            place = self.spot(radius, near=self.draws.chance(0.55))
            part = place and _place(self.draws, appearance, *place, radius, self.shape)
            if not part:
                continue
            mask = np.zeros(self.shape, bool)
            mask[part.window] = part.mask
            if np.count_nonzero(mask) < 2 * _MIN_VISIBLE_PIXELS or self.hides_too_much(mask):
                continue
            self._commit(slot, mask, False, part.cut)
            self.spots.append((*place, radius))
            _paint(self.draws, self.image, appearance, part, self._colours(appearance), self.unit)
            return

    def add_crowd(self, slot, appearance, radius, tries=8):
        """Paint a group of small objects of one class, which become one instance."""
        draws = self.draws
        for _ in range(tries):
            place = self.spot(radius)
            if not place:
                continue
            mask, parts, cut = np.zeros(self.shape, bool), [], False
            small = max(2.6, 0.2 * radius)
            for _ in range(draws.integer(10, 16)):
                t, r = draws.uniform(-1.0, 1.0), draws.uniform(0.1, 1.0) * (radius - small)
                c, s = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
                side = draws.choice((-1.0, 1.0))
                x, y = place[0] + side * c * r, place[1] + side * s * r
                part = _place(draws, appearance, x, y, small, self.shape)
                if part:
                    parts.append(part)
                    mask[part.window] |= part.mask
                    cut |= part.cut
            if np.count_nonzero(mask) < 4 * _MIN_VISIBLE_PIXELS or self.hides_too_much(mask):
                continue
            self._commit(slot, mask, True, cut)
            for part in parts:
                colours = self._colours(appearance)
                _paint(draws, self.image, appearance, part, colours, self.unit)
            return

    def _colours(self, appearance):
        brightness = self.draws.uniform(0.82, 1.12)
        pair = self.draws.choice(appearance.colours)
        return [
            tuple(brightness * channel for channel in _jitter(self.draws, colour, 20))
            for colour in pair
        ]

    def _commit(self, slot, mask, crowd, cut):
        for thing in self.things:
            thing[2] &= ~mask
        self.semantic[mask] = 0 if slot is None else _FIRST_THING + slot
        if slot is not None:
            self.things.append([slot, mask, mask.copy(), crowd, cut])


def _plan(draws) -> list[tuple[str, float]]:
    """What to paint, from back to front: kinds, and radii as parts of the shorter side."""
    plan = []
    for _ in range(draws.integer(2, 6)):
        radius = draws.uniform(0.11, 0.19)
        plan.append(('thing', 0.07 if draws.chance(0.12) else radius))
    plan.append(('main', draws.uniform(0.23, 0.3)))
    if draws.chance(0.15):
        plan.append(('crowd', draws.uniform(0.17, 0.22)))
    if draws.chance(0.25):
        plan.append(('rock', draws.uniform(0.09, 0.17)))
    plan = draws.shuffled(plan)
    return [] if draws.chance(0.05) else plan


def _instances(canvas, shift: int) -> list[Instance]:
    """The canvas's objects, their classes moved by ``shift``."""
    side = min(canvas.shape)
    tiny = side * side // 256
    instances = []
    for slot, full, visible, crowd, cut in canvas.things:
        area, box = np.count_nonzero(visible), _box(visible)
        hidden = area < _DIFFICULT_FRACTION * np.count_nonzero(full)
        instances.append(
            Instance(
                class_id=_FIRST_THING + slot + shift,
                visible=visible,
                full=full,
                bbox=box,
                crowd=crowd,
                truncated=bool(cut or box != _box(full)),
                difficult=bool(crowd or area < tiny or hidden),
            )
        )
    return instances


def _main_slot(seed: int, index: int) -> int:
    """Class 0 to 7 of the scene's largest object: balanced in each 40 scenes, in either split."""
    block, within = divmod(index, _BLOCK)
    order = _Draws(seed, block, 1).shuffled(range(len(THING_CLASSES)))
    return order[(within // 5 + 2 * (within % 5)) % len(THING_CLASSES)]


def _paint_cue(canvas, image, cue, radius):
    """Draw a sun or a moon over the cue's pixels; both cover exactly the same ones."""
    height, width = canvas.shape
    x = np.arange(width) - cue.position[0]
    y = np.arange(height)[:, None] - cue.position[1]
    near = canvas.cue_distance < (0.45 * radius) * (0.45 * radius)
    if cue.name == CONTEXT_CUES[0]:
        image[cue.mask] = (250, 205, 50)
        image[near & cue.mask] = (255, 246, 190)
    else:
        image[cue.mask] = (34, 32, 84)
        shifted = (x - 0.4 * radius) * (x - 0.4 * radius) + (y + 0.2 * radius) * (y + 0.2 * radius)
        crescent = canvas.cue_distance < (0.8 * radius) * (0.8 * radius)
        image[crescent & (shifted > (0.62 * radius) * (0.62 * radius))] = (226, 232, 250)


def check_size(size: int) -> None:
    """Raise ``ValueError`` unless ``size`` is a side in pixels that scenes can be drawn at."""
    if size < MIN_SIZE:
        raise ValueError(f'size must be at least {MIN_SIZE} pixels, got {size}.')


def render_scene(
    seed: int, index: int, size: int = 128, context: bool = False, swap_cue: bool = False
) -> Scene:
    """Render one scene; the same arguments give the same scene everywhere.

    Half of the scenes are size x size pixels, the others size x 3/4 size, lying or standing. A
    scene has two or three backgrounds, divided by unlabelled seams, and up to seven objects;
    some have a crowd of small objects, some a rock (which is no class, hence unlabelled), and one
    in twenty has no object at all.

    With ``context``, each look belongs to two classes, and all objects are of the one or the other
    as the cue says: a sun or a moon near one corner, unlabelled, at least half the shorter side
    away from every pixel of every object.

    Args:
        seed: seed of the whole set, not negative.
        index: number of the scene in the set, not negative; scenes do not depend on each other.
        size: longer side in pixels, at least 48.
        context: whether the objects' classes depend on the cue.
        swap_cue: with ``context``, draw the other cue: only its pixels and the labels change.

    Returns:
        The scene: image, semantic labels and instances.

    Raises:
        ValueError: seed or index is negative, size too small, or swap_cue given without context.
    """
    check_size(size)
    if seed < 0 or index < 0:
        raise ValueError(f'seed and index must not be negative, got {seed} and {index}.')
    if swap_cue and not context:
        raise ValueError('swap_cue needs context=True: other scenes have no cue.')
    draws = _Draws(seed, index, 0)
    short = size * 3 // 4
    height, width = draws.choice(((size, size), (size, size), (short, size), (size, short)))
    side, unit = min(height, width), size / 128.0
    canvas = _Canvas(draws, height, width, unit)
    appearances = CONTEXT_APPEARANCES if context else THING_CLASSES
    main = _main_slot(seed, index)
    night = main >= len(CONTEXT_APPEARANCES)

    cue, cue_radius = None, max(4, side // 12)
    if context:
        x, y = (cue_radius + draws.integer(1, max(1, side // 20)) for _ in range(2))
        x = x if draws.chance(0.5) else width - 1 - x
        y = y if draws.chance(0.5) else height - 1 - y
        columns, rows = np.arange(width) - x, np.arange(height)[:, None] - y
        canvas.cue_distance = columns * columns + rows * rows
        # Outlines and the cue's rim end within two pixels of their radius.
        canvas.cue_reach = 0.5 * side + cue_radius + 2.0
        name = CONTEXT_CUES[night != swap_cue]
        cue = Cue(name, (x, y), canvas.cue_distance <= cue_radius * cue_radius)

    for kind, radius in _plan(draws):
        radius = max(5.0, radius * side)
        slot = draws.integer(0, len(appearances) - 1)
        if kind == 'rock':
            canvas.add(None, _ROCK, radius)
        elif kind == 'crowd':
            canvas.add_crowd(slot, _APPEARANCES[appearances[slot]], radius)
        else:
            if kind == 'main':
                slot = main % len(appearances)
            tries = 24 if kind == 'main' else 8
            canvas.add(slot, _APPEARANCES[appearances[slot]], radius, tries)

    pixels = canvas.image * draws.uniform(0.84, 1.08)
    pixels += 14.0 * (draws.field(height, width, 1) - 0.5) + 6.0 * (
        draws.field(height, width, 3) - 0.5
    )
    image = np.floor(np.clip(pixels, 0.0, 255.0) + 0.5).astype(np.uint8)

    shift = 0
    if cue is not None:
        _paint_cue(canvas, image, cue, cue_radius)
        canvas.semantic[cue.mask] = 0
        shift = len(CONTEXT_APPEARANCES) * CONTEXT_CUES.index(cue.name)
        canvas.semantic[canvas.semantic >= _FIRST_THING] += shift
    instances = _instances(canvas, shift)
    return Scene(image, canvas.semantic, instances, classes_of(context), index, cue)
