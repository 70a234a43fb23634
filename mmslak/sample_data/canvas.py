"""A scene while it is painted, from back to front."""

from dataclasses import dataclass

import numpy as np

from .backgrounds import paint_background
from .classes import STUFF_CLASSES
from .objects import Appearance, PlacedObject, paint, place
from .random_numbers import RandomNumbers
from .textures import jitter

#: Label of the first object class.
FIRST_THING = len(STUFF_CLASSES) + 1
_MIN_VISIBLE_FRACTION = 0.15
_MIN_VISIBLE_PIXELS = 16


@dataclass
class PaintedObject:
    """An object or a crowd on the canvas.

    Args:
        slot (int): Index of its appearance.
        full (ndarray): Pixels that it would cover with nothing in front, bool (H, W).
        visible (ndarray): Visible pixels, bool (H, W).
        crowd (bool): A group of many small objects.
        cut (bool): A part of it is outside the image.
    """

    slot: int
    full: np.ndarray
    visible: np.ndarray
    crowd: bool
    cut: bool


class Canvas:
    """An image, its labels and its objects.

    Args:
        rng (RandomNumbers): Random numbers.
        height (int): Height in pixels.
        width (int): Width in pixels.
        unit (float): Scale of the textures; 1 for a scene of 128 pixels.
    """

    def __init__(self, rng: RandomNumbers, height: int, width: int, unit: float):
        self.rng, self.unit, self.shape = rng, unit, (height, width)
        self.image, self.semantic = paint_background(rng, height, width, unit)
        #: Labelled objects, from back to front.
        self.objects: list[PaintedObject] = []
        self._spots = []  # (x, y, radius) of every object
        self._cue_distance = None  # squared distance of each pixel to the centre of the cue
        self._cue_reach = 0.0

    def keep_away_from_cue(self, squared_distance: np.ndarray, reach: float) -> None:
        """Place all objects at least ``reach`` pixels from the centre of the cue.

        Args:
            squared_distance (ndarray): Squared distance of each pixel to the centre, (H, W).
            reach (float): Smallest distance to an object, in pixels.
        """
        self._cue_distance, self._cue_reach = squared_distance, reach

    def add(self, slot: int | None, appearance: Appearance, radius: float, tries: int = 8) -> None:
        """Paint one object if a place is found.

        Args:
            slot (int, optional): Index of its appearance, or None if it is unlabelled.
            appearance (Appearance): What it looks like.
            radius (float): Radius in pixels.
            tries (int): Number of places to try.
        """
        for _ in range(tries):
            spot = self._spot(radius, near=self.rng.chance(0.55))
            placed = spot and place(self.rng, appearance, *spot, radius, self.shape)
            if not placed:
                continue
            mask = np.zeros(self.shape, bool)
            mask[placed.window] = placed.mask
            if np.count_nonzero(mask) < 2 * _MIN_VISIBLE_PIXELS or self._hides_too_much(mask):
                continue
            self._cover(slot, mask, False, placed.cut)
            self._spots.append((*spot, radius))
            self._paint(appearance, placed)
            return

    def add_crowd(self, slot: int, appearance: Appearance, radius: float, tries: int = 8) -> None:
        """Paint a group of small objects, which is one instance, if a place is found.

        The arguments are those of :meth:`add`; ``radius`` is that of the group.
        """
        rng = self.rng
        for _ in range(tries):
            spot = self._spot(radius)
            if not spot:
                continue
            mask, members, cut = np.zeros(self.shape, bool), [], False
            small = max(2.6, 0.2 * radius)
            for _ in range(rng.integer(10, 16)):
                t, r = rng.uniform(-1.0, 1.0), rng.uniform(0.1, 1.0) * (radius - small)
                c, s = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
                side = rng.choice((-1.0, 1.0))
                x, y = spot[0] + side * c * r, spot[1] + side * s * r
                placed = place(rng, appearance, x, y, small, self.shape)
                if placed:
                    members.append(placed)
                    mask[placed.window] |= placed.mask
                    cut |= placed.cut
            if np.count_nonzero(mask) < 4 * _MIN_VISIBLE_PIXELS or self._hides_too_much(mask):
                continue
            self._cover(slot, mask, True, cut)
            for placed in members:
                self._paint(appearance, placed)
            return

    def _spot(self, radius: float, near: bool = False) -> tuple[int, int] | None:
        """Choose the centre of an object, far from the cue; None if there is no such place."""
        height, width = self.shape
        rng = self.rng
        if near and self._spots:
            x, y, other = rng.choice(self._spots)
            # Close enough to overlap.
            reach = 0.75 * (radius + other)
            x, y = x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach)
        else:
            x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
        x, y = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
        if self._cue_distance is None:
            return x, y
        reach = self._cue_reach + radius
        if self._cue_distance[y, x] >= reach * reach:
            return x, y
        free = np.flatnonzero(self._cue_distance >= reach * reach)
        if len(free) == 0:
            return None
        y, x = divmod(int(rng.choice(free)), width)
        return x, y

    def _hides_too_much(self, mask: np.ndarray) -> bool:
        """Return whether an object with this mask leaves too little of another one visible."""
        for other in self.objects:
            left = np.count_nonzero(other.visible & ~mask)
            least = max(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_FRACTION * np.count_nonzero(other.full))
            if left < least and left < np.count_nonzero(other.visible):
                return True
        return False

    def _cover(self, slot: int | None, mask: np.ndarray, crowd: bool, cut: bool) -> None:
        for other in self.objects:
            other.visible &= ~mask
        self.semantic[mask] = 0 if slot is None else FIRST_THING + slot
        if slot is not None:
            self.objects.append(PaintedObject(slot, mask, mask.copy(), crowd, cut))

    def _paint(self, appearance: Appearance, placed: PlacedObject) -> None:
        brightness = self.rng.uniform(0.82, 1.12)
        pair = self.rng.choice(appearance.colours)
        colours = [
            tuple(brightness * channel for channel in jitter(self.rng, colour, 20))
            for colour in pair
        ]
        paint(self.rng, self.image, appearance, placed, colours, self.unit)
