"""Backgrounds of the sample data: sky, grass, water and sand."""

import numpy as np

from .classes import STUFF_CLASSES
from .random_numbers import RandomNumbers
from .textures import jitter, mix, noise, ramp, smooth, wave

_SKY, _GRASS, _WATER, _SAND = range(1, len(STUFF_CLASSES) + 1)


def _sky(rng, height, width, unit):
    clouds = 0.65 * noise(rng, height, width, 14 * unit, 34 * unit)
    clouds += 0.35 * noise(rng, height, width, 6 * unit, 13 * unit)
    down = np.broadcast_to(np.arange(height)[:, None] / height, (height, width))
    top, low = jitter(rng, (85, 140, 210), 16), jitter(rng, (185, 212, 235), 14)
    colours = mix(top, low, np.clip(1.6 * down, 0.0, 1.0))
    return colours + (np.array([248.0, 248.0, 250.0]) - colours) * (
        0.85 * ramp(clouds - 0.58, 0.12)[..., None]
    )


def _grass(rng, height, width, unit):
    blades = noise(rng, height, width, 7 * unit, 1.7 * unit)
    patches = noise(rng, height, width, 22 * unit, 30 * unit)
    dark, light = jitter(rng, (52, 98, 42), 12), jitter(rng, (136, 176, 78), 14)
    return mix(dark, light, 0.7 * blades + 0.35 * patches)


def _water(rng, height, width, unit):
    drift = noise(rng, height, width, 12 * unit, 26 * unit)
    down = np.arange(height)[:, None] / (6.5 * unit)
    ripples = smooth(wave(down + 1.6 * drift + rng.uniform()))
    glints = noise(rng, height, width, 2 * unit, 9 * unit)
    dark, light = jitter(rng, (28, 82, 128), 12), jitter(rng, (105, 168, 192), 14)
    colours = mix(dark, light, 0.55 * ripples + 0.4 * glints)
    return colours + 45.0 * (ramp(ripples + glints - 1.5, 0.1))[..., None]


def _sand(rng, height, width, unit):
    dunes = noise(rng, height, width, 9 * unit, 40 * unit)
    grain = noise(rng, height, width, 1.3 * unit, 1.3 * unit)
    dark, light = jitter(rng, (182, 148, 98), 12), jitter(rng, (240, 218, 166), 10)
    return mix(dark, light, 0.55 * dunes + 0.45 * grain)


_BACKGROUNDS = {_SKY: _sky, _GRASS: _grass, _WATER: _water, _SAND: _sand}


def paint_background(
    rng: RandomNumbers, height: int, width: int, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Paint two or three regions, one below the other.

    Args:
        rng (RandomNumbers): Random numbers.
        height (int): Height in pixels.
        width (int): Width in pixels.
        unit (float): Scale of the textures; 1 for a scene of 128 pixels.

    Returns:
        tuple[ndarray, ndarray]: Colours, float64 (H, W, 3), and labels, uint8 (H, W), which are 0
        along the borders between regions.
    """
    labels = [_SKY] + rng.shuffled((_GRASS, _WATER, _SAND))[: rng.integer(1, 2)]
    if rng.chance(0.15):
        labels = rng.shuffled((_GRASS, _WATER, _SAND))[:2]
    if len(labels) == 2:
        borders = [rng.uniform(0.3, 0.62)]
    else:
        borders = [rng.uniform(0.2, 0.4), rng.uniform(0.55, 0.78)]
    colours = _BACKGROUNDS[labels[0]](rng, height, width, unit)
    semantic = np.full((height, width), labels[0], np.uint8)
    rows = np.arange(height)[:, None]
    for label, border in zip(labels[1:], borders, strict=True):
        slope = rng.uniform(-0.18, 0.18)
        swing = rng.uniform(0.02, 0.12) * height
        wavy = noise(rng, 1, width, 1.0, rng.uniform(0.12, 0.35) * width)[0] - 0.5
        line = border * height + slope * (np.arange(width) - width / 2) + swing * wavy
        below = rows - line
        texture = _BACKGROUNDS[label](rng, height, width, unit)
        # The far edge of a region is a little darker than the part near the viewer.
        texture *= (0.86 + 0.14 * np.clip(below / (24 * unit), 0.0, 1.0))[..., None]
        colours += (texture - colours) * np.clip(below + 0.5, 0.0, 1.0)[..., None]
        semantic[below >= 0] = label
        # Annotators do not agree on the last pixel of such a border, so it is unlabelled.
        semantic[np.abs(below) <= max(1.0, unit)] = 0
    return colours, semantic
