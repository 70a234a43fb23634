"""Textures of the sample data's objects, and the noise and waves that textures are made of."""

import numpy as np

from .random_numbers import RandomNumbers

# --- building blocks ------------------------------------------------------------------------------


def smooth(x):
    """Map [0, 1] to [0, 1] with zero slope at both ends."""
    return x * x * (3.0 - 2.0 * x)


def wave(x):
    """Return a triangle wave of period 1 between 0 and 1, which is 0 at integers."""
    return np.abs(x - np.floor(x + 0.5)) * 2.0


def ramp(x, softness):
    """Rise from 0 to 1 as x goes from -softness to softness."""
    return np.clip(x / (2.0 * softness) + 0.5, 0.0, 1.0)


def noise(rng: RandomNumbers, height: int, width: int, cell_y: float, cell_x: float) -> np.ndarray:
    """Return smooth noise (height, width) in [0, 1), with cells of cell_y x cell_x pixels."""
    grid = rng.array(int(height / cell_y) + 3, int(width / cell_x) + 3)
    y = np.arange(height) / cell_y + rng.uniform()
    x = np.arange(width) / cell_x + rng.uniform()
    iy, ix = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    fy, fx = smooth(y - iy)[:, None], smooth(x - ix)
    rows = grid[iy] * (1.0 - fy) + grid[iy + 1] * fy
    return rows[:, ix] * (1.0 - fx) + rows[:, ix + 1] * fx


def mix(first, second, weight):
    """Blend two colours with weights of shape (...), into an array of shape (..., 3)."""
    first, second = np.asarray(first, float), np.asarray(second, float)
    return first + (second - first) * weight[..., None]


def jitter(rng: RandomNumbers, colour, amount: float) -> tuple[float, ...]:
    """Change each channel of a colour by at most ``amount``."""
    return tuple(channel + rng.uniform(-amount, amount) for channel in colour)


# --- textures of objects --------------------------------------------------------------------------
# Each takes random numbers and the coordinates u and v of :mod:`.shapes`, and returns the weight of
# the object's second colour, in [0, 1].


def stripes(rng, u, v):
    """Thin stripes along v."""
    return ramp(wave(2.2 * u + rng.uniform()) - 0.5, 0.12)


def bands(rng, u, v):
    """Wide bands along v."""
    return ramp(wave(1.25 * u + rng.uniform(0.1, 0.4)) - 0.5, 0.06)


def blobs(rng, u, v):
    """Irregular blotches, from two bent waves that cross."""
    shift, other = rng.uniform(), rng.uniform()
    first = wave(1.7 * u + 0.6 * wave(1.3 * v + other) + shift)
    second = wave(1.9 * v + 0.7 * wave(1.1 * u + shift) + other)
    return ramp(smooth(first) * smooth(second) - 0.3, 0.2)


def checks(rng, u, v):
    """A checkerboard."""
    first = wave(1.45 * u + rng.uniform()) - 0.5
    second = wave(1.45 * v + rng.uniform()) - 0.5
    return ramp(first * second, 0.02)


def sprinkles(rng, u, v):
    """Short strokes in a grid, in turn along v and along u."""
    a, b = 3.4 * u + 0.4 * v + rng.uniform(), 3.4 * v - 0.4 * u + rng.uniform()
    row = np.floor(b)
    a = a + 0.37 * row
    odd = (np.floor(a) + row) * 0.5
    along_u = odd == np.floor(odd)
    a, b = np.abs(a - np.floor(a) - 0.5), np.abs(b - np.floor(b) - 0.5)
    a, b = np.where(along_u, a, b), np.where(along_u, b, a)
    return ramp(0.32 - np.maximum(a, 2.2 * b), 0.08)


def rind(rng, u, v):
    """The rind and the seeds of a slice of melon."""
    v = v + 0.45
    radius = np.sqrt(u * u + v * v)
    a, b = 4.2 * u + rng.uniform(), 4.2 * v + rng.uniform()
    a, b = a - np.floor(a) - 0.5, b - np.floor(b) - 0.5
    seeds = ramp(0.2 - np.sqrt(a * a + 0.5 * b * b), 0.06) * (radius < 0.62)
    return np.maximum(ramp(radius - 0.74, 0.04), seeds)


def dots(rng, u, v):
    """Round dots in a grid."""
    a, b = 2.6 * u + rng.uniform(), 2.6 * v + rng.uniform()
    a, b = a - np.floor(a) - 0.5, b - np.floor(b) - 0.5
    return ramp(0.28 - np.sqrt(a * a + b * b), 0.07)


def zigzag(rng, u, v):
    """Zigzag lines along u."""
    return ramp(wave(1.8 * v + 0.45 * wave(1.7 * u + rng.uniform()) + rng.uniform()) - 0.5, 0.1)


def rough(rng, u, v):
    """A rough surface without contrast."""
    return 0.6 * wave(1.3 * u + 0.8 * v) * wave(1.7 * v - 0.6 * u) + 0.2
