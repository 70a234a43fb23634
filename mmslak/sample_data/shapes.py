"""Shapes of the sample data's objects.

Each function takes coordinates u (to the right) and v (down) of any shape, and returns
approximately the distance to the outline, negative inside. All shapes fit in the unit circle.
"""

from math import sqrt

import numpy as np


def disc(u, v):
    """A disc."""
    return np.sqrt(u * u + v * v) - 1.0


def square(u, v):
    """A square."""
    return np.maximum(np.abs(u), np.abs(v)) - 0.7


def triangle(u, v):
    """A triangle with its tip at the top."""
    return np.maximum(v - 0.5, 0.5 * sqrt(3.0) * np.abs(u) - 0.5 * v - 0.5)


# Cosine and sine of 72 degrees, from square roots.
_COS72, _SIN72 = (sqrt(5.0) - 1.0) / 4.0, sqrt(10.0 + 2.0 * sqrt(5.0)) / 4.0


def star(u, v):
    """A star with five arms."""
    distance = None
    c, s = 0.0, -1.0
    for _ in range(5):
        along, across = c * u + s * v, np.abs(c * v - s * u)
        arm = np.maximum(0.44 * (along - 1.0) + 0.9 * across, -along)
        distance = arm if distance is None else np.minimum(distance, arm)
        c, s = c * _COS72 - s * _SIN72, c * _SIN72 + s * _COS72
    return distance


def ring(u, v):
    """A ring."""
    return np.abs(np.sqrt(u * u + v * v) - 0.68) - 0.32


def half_disc(u, v):
    """The lower half of a disc."""
    v = v + 0.45
    return np.maximum(np.sqrt(u * u + v * v) - 0.9, -v)


def capsule(u, v):
    """A bar with round ends."""
    along = np.maximum(np.abs(u) - 0.62, 0.0)
    return np.sqrt(along * along + v * v) - 0.38


def four_leaves(u, v):
    """Four leaves around a centre."""
    u, v = np.abs(u), np.abs(v)
    near, far = np.maximum(u, v) - 0.55, np.minimum(u, v)
    return np.minimum(np.sqrt(near * near + far * far) - 0.44, np.maximum(u, v) - 0.3)


def boulder(u, v):
    """Two overlapping discs."""
    first = np.sqrt((u + 0.3) * (u + 0.3) + v * v) - 0.62
    second = np.sqrt((u - 0.35) * (u - 0.35) + (v - 0.2) * (v - 0.2)) - 0.5
    return np.minimum(first, second)
