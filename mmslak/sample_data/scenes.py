"""The renderer of the sample data: textured, overlapping objects in front of a landscape.

A class is a shape together with a texture. Classes share colours, so that the colour of a pixel
does not determine its class. In scenes with context, two classes share their whole appearance, and
a small sun or moon far away in the image decides between them for all objects.

The same arguments give the same arrays on every machine. Random numbers come from
:class:`.random_numbers.RandomNumbers`, and pixels are computed with ``+ - * /``, ``sqrt`` and
``floor`` only, which IEEE 754 rounds identically everywhere. There is no ``sin``, no ``exp``, no
matrix product and no sum of floats, because their last bits depend on the machine.
"""

from dataclasses import dataclass

import numpy as np

from .canvas import FIRST_THING, Canvas
from .classes import CONTEXT_APPEARANCES, CONTEXT_CUES, THING_CLASSES, classes_of
from .objects import APPEARANCES, ROCK
from .random_numbers import RandomNumbers

#: Smallest length of the longer side in pixels; below it, textures are narrower than a pixel.
MIN_SIZE = 48

# In each block of 40 scenes each of the 8 object classes is the main one 5 times, one of them in a
# validation scene.
_BLOCK = 5 * len(THING_CLASSES)
# Validation scenes have this remainder when their index is divided by five.
_VAL_REMAINDER = 1
_DIFFICULT_FRACTION = 0.4


@dataclass
class Instance:
    """One object of a scene, or one crowd of small objects.

    Args:
        class_id (int): Label in the label map, 5 to 12.
        visible (ndarray): Visible pixels, bool (H, W).
        full (ndarray): Pixels that would be visible with nothing in front, bool (H, W).
        bbox (tuple): Box around ``visible`` in pixels, (x0, y0, x1, y1), from 0, with x1 and y1
            exclusive.
        crowd (bool): A group of many small objects.
        truncated (bool): The box does not contain the whole object, because of the border of the
            image or an object in front.
        difficult (bool): A crowd, tiny, or less than 40 % visible.
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
        """Number of visible pixels."""
        return int(np.count_nonzero(self.visible))


@dataclass
class Cue:
    """The sun or moon that decides the classes of a scene with context.

    Args:
        name (str): ``'day'`` (a sun) or ``'night'`` (a moon).
        position (tuple[int, int]): Centre (x, y) in pixels.
        mask (ndarray): Its pixels, bool (H, W), the same for sun and moon.
    """

    name: str
    position: tuple[int, int]
    mask: np.ndarray


@dataclass
class Scene:
    """One rendered scene.

    Args:
        image (ndarray): RGB image, uint8 (H, W, 3).
        semantic (ndarray): Label map, uint8 (H, W): 0 for unlabelled pixels, otherwise 1 + the
            index of the class.
        instances (list[Instance]): Objects from back to front; a few scenes have none.
        classes (tuple[str]): Names of the labels from 1 on.
        index (int): Index of the scene.
        cue (Cue, optional): The cue of a scene with context.
    """

    image: np.ndarray
    semantic: np.ndarray
    instances: list[Instance]
    classes: tuple[str, ...]
    index: int
    cue: Cue | None = None

    @property
    def split(self) -> str:
        """``'val'`` for one scene in five, otherwise ``'train'``."""
        return 'val' if self.index % 5 == _VAL_REMAINDER else 'train'


def render_scene(
    seed: int, index: int, size: int = 128, context: bool = False, swap_cue: bool = False
) -> Scene:
    """Render one scene. The same arguments give the same scene on every machine.

    Half of the scenes have size x size pixels, the others size x 3/4 size in landscape or portrait
    format. A scene has two or three backgrounds with unlabelled borders between them, and up to
    seven objects. Some scenes have a crowd of small objects, some an unlabelled rock, and one in
    twenty has no object.

    In scenes with context each appearance belongs to two classes. All objects of a scene are of
    the first or of the second, according to the cue: a sun or a moon near one corner, unlabelled,
    and at least half of the shorter side away from every pixel of every object.

    Args:
        seed (int): Seed of the whole dataset, not negative.
        index (int): Index of the scene in the dataset, not negative. Scenes are independent.
        size (int): Longer side in pixels, at least 48.
        context (bool): The classes of objects depend on the cue.
        swap_cue (bool): Paint the other cue, which changes only its pixels and the labels. Needs
            ``context``.

    Returns:
        Scene: Image, label map and instances.

    Raises:
        ValueError: If seed or index is negative, size is too small, or swap_cue is set without
            context.
    """
    check_size(size)
    if seed < 0 or index < 0:
        raise ValueError(f'seed and index must not be negative, got {seed} and {index}')
    if swap_cue and not context:
        raise ValueError('swap_cue=True needs context=True: other scenes have no cue')
    rng = RandomNumbers(seed, index, 0)
    short = size * 3 // 4
    height, width = rng.choice(((size, size), (size, size), (short, size), (size, short)))
    canvas = Canvas(rng, height, width, unit=size / 128.0)
    main = _main_slot(seed, index)
    cue, cue_radius = None, max(4, min(height, width) // 12)
    if context:
        night = main >= len(CONTEXT_APPEARANCES)
        cue = _place_cue(canvas, CONTEXT_CUES[night != swap_cue], cue_radius)
    _add_objects(canvas, CONTEXT_APPEARANCES if context else THING_CLASSES, main)

    pixels = canvas.image * rng.uniform(0.84, 1.08)
    pixels += 14.0 * (rng.array(height, width, 1) - 0.5) + 6.0 * (rng.array(height, width, 3) - 0.5)
    image = np.floor(np.clip(pixels, 0.0, 255.0) + 0.5).astype(np.uint8)

    shift = 0
    if cue is not None:
        _paint_cue(image, cue, cue_radius)
        canvas.semantic[cue.mask] = 0
        shift = len(CONTEXT_APPEARANCES) * CONTEXT_CUES.index(cue.name)
        canvas.semantic[canvas.semantic >= FIRST_THING] += shift
    instances = _instances(canvas, shift)
    return Scene(image, canvas.semantic, instances, classes_of(context), index, cue)


def check_size(size: int) -> None:
    """Raise ``ValueError`` if scenes cannot be rendered with ``size`` pixels."""
    if size < MIN_SIZE:
        raise ValueError(f'size must be at least {MIN_SIZE} pixels, got {size}')


def _main_slot(seed: int, index: int) -> int:
    """Return the class, 0 to 7, of the largest object, balanced over 40 scenes in both splits."""
    block, within = divmod(index, _BLOCK)
    order = RandomNumbers(seed, block, 1).shuffled(range(len(THING_CLASSES)))
    return order[(within // 5 + 2 * (within % 5)) % len(THING_CLASSES)]


def _place_cue(canvas: Canvas, name: str, radius: int) -> Cue:
    """Place the cue near a corner, and keep the objects of the canvas away from it."""
    rng, (height, width) = canvas.rng, canvas.shape
    side = min(height, width)
    x, y = (radius + rng.integer(1, max(1, side // 20)) for _ in range(2))
    x = x if rng.chance(0.5) else width - 1 - x
    y = y if rng.chance(0.5) else height - 1 - y
    squared_distance = _squared_distance(canvas.shape, x, y)
    # Shapes and the border of the cue end within two pixels of their radius.
    canvas.keep_away_from_cue(squared_distance, 0.5 * side + radius + 2.0)
    return Cue(name, (x, y), squared_distance <= radius * radius)


def _squared_distance(shape: tuple[int, int], x: int, y: int) -> np.ndarray:
    columns, rows = np.arange(shape[1]) - x, np.arange(shape[0])[:, None] - y
    return columns * columns + rows * rows


def _add_objects(canvas: Canvas, appearances: tuple[str, ...], main: int) -> None:
    rng, side = canvas.rng, min(canvas.shape)
    for kind, radius in _plan(rng):
        radius = max(5.0, radius * side)
        slot = rng.integer(0, len(appearances) - 1)
        if kind == 'rock':
            canvas.add(None, ROCK, radius)
        elif kind == 'crowd':
            canvas.add_crowd(slot, APPEARANCES[appearances[slot]], radius)
        else:
            if kind == 'main':
                slot = main % len(appearances)
            tries = 24 if kind == 'main' else 8
            canvas.add(slot, APPEARANCES[appearances[slot]], radius, tries)


def _plan(rng: RandomNumbers) -> list[tuple[str, float]]:
    """Choose kinds of objects, and radii relative to the shorter side, from back to front."""
    plan = []
    for _ in range(rng.integer(2, 6)):
        radius = rng.uniform(0.11, 0.19)
        plan.append(('thing', 0.07 if rng.chance(0.12) else radius))
    plan.append(('main', rng.uniform(0.23, 0.3)))
    if rng.chance(0.15):
        plan.append(('crowd', rng.uniform(0.17, 0.22)))
    if rng.chance(0.25):
        plan.append(('rock', rng.uniform(0.09, 0.17)))
    plan = rng.shuffled(plan)
    return [] if rng.chance(0.05) else plan


def _paint_cue(image: np.ndarray, cue: Cue, radius: int) -> None:
    """Paint a sun or a moon; both cover the same pixels."""
    height, width = image.shape[:2]
    x = np.arange(width) - cue.position[0]
    y = np.arange(height)[:, None] - cue.position[1]
    distance = _squared_distance((height, width), *cue.position)
    near = distance < (0.45 * radius) * (0.45 * radius)
    if cue.name == CONTEXT_CUES[0]:
        image[cue.mask] = (250, 205, 50)
        image[near & cue.mask] = (255, 246, 190)
    else:
        image[cue.mask] = (34, 32, 84)
        shifted = (x - 0.4 * radius) * (x - 0.4 * radius) + (y + 0.2 * radius) * (y + 0.2 * radius)
        crescent = distance < (0.8 * radius) * (0.8 * radius)
        image[crescent & (shifted > (0.62 * radius) * (0.62 * radius))] = (226, 232, 250)


def _instances(canvas: Canvas, shift: int) -> list[Instance]:
    """Describe the objects of a canvas, with their classes moved by ``shift``."""
    side = min(canvas.shape)
    tiny = side * side // 256
    instances = []
    for item in canvas.objects:
        area, box = np.count_nonzero(item.visible), _box(item.visible)
        hidden = area < _DIFFICULT_FRACTION * np.count_nonzero(item.full)
        instances.append(
            Instance(
                class_id=FIRST_THING + item.slot + shift,
                visible=item.visible,
                full=item.full,
                bbox=box,
                crowd=item.crowd,
                truncated=bool(item.cut or box != _box(item.full)),
                difficult=bool(item.crowd or area < tiny or hidden),
            )
        )
    return instances


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
