"""Images that are no digits, made cheaply enough to be trained on.

What they teach is to be unsure (Hendrycks, Mazeika and Dietterich, "Deep Anomaly Detection with
Outlier Exposure", ICLR 2019): scribbles, straight strokes, digits cut up and put together wrongly,
patches of noise and plain shapes. `non_digits.py` has others, to test with.
"""

from __future__ import annotations

import numpy as np

from pipeline.data import SIDE, Images
from pipeline.train.augment import draw_segment

TILE = 7  # pixels: a digit is cut into 4 x 4 tiles
CONTROLS = 6  # points of a scribble
STROKES = 4  # straight ones; fewer are often a 1, 4 or 7
STEPS = 64  # dots of a scribble


def draw_non_digits(images: Images, rng: np.random.Generator) -> Images:
    """Replace each image by something else, of a kind drawn at random.

    Args:
        images: uint8 (n, 28, 28) digits, distorted; two of the kinds are made from them.
        rng: Of all draws.
    """
    kinds = (_scribble, _cross_strokes, _shuffle_tiles, _pattern, _block)
    which = rng.integers(len(kinds), size=len(images))
    out = images.copy()
    for kind, make in enumerate(kinds):
        out[which == kind] = make(images[which == kind], rng)
    return out


def _scribble(images: Images, rng: np.random.Generator) -> Images:
    """A smooth curve through random points, drawn with a round pen."""
    n = len(images)
    corners = rng.uniform(4, 24, (n, CONTROLS, 2))
    position = np.linspace(0, CONTROLS - 1, STEPS)
    nearest = np.abs(position[:, None] - np.arange(CONTROLS)[None])  # (steps, controls)
    weights = np.exp(-((nearest / rng.uniform(0.5, 1.0)) ** 2))
    dots = (weights / weights.sum(axis=1, keepdims=True)) @ corners  # (n, steps, 2)
    pixel = np.arange(SIDE)
    radius = rng.uniform(0.6, 2.2, (n, 1, 1))
    squared = np.full((n, SIDE, SIDE), np.inf)
    for step in range(STEPS):
        rows = (pixel[None, :] - dots[:, step, :1]) ** 2  # (n, 28)
        columns = (pixel[None, :] - dots[:, step, 1:]) ** 2
        np.minimum(squared, rows[:, :, None] + columns[:, None, :], out=squared)
    return np.rint(np.clip(radius + 0.5 - np.sqrt(squared), 0, 1) * 255).astype(np.uint8)


def _cross_strokes(images: Images, rng: np.random.Generator) -> Images:
    """A few straight strokes of one pen, each from anywhere to anywhere."""
    n = len(images)
    x = np.zeros((n, SIDE, SIDE), np.float32)
    pen = rng.uniform(1.5, 4, n)
    for _ in range(STROKES):
        start, end = rng.uniform(5, 23, (2, n, 2)).astype(np.float32)
        x = draw_segment(x, start, end, pen)
    return np.rint(x * 255).astype(np.uint8)


def _shuffle_tiles(images: Images, rng: np.random.Generator) -> Images:
    """The tiles of each image in another order."""
    n, across = len(images), SIDE // TILE
    tiles = images.reshape(n, across, TILE, across, TILE).swapaxes(2, 3)
    tiles = tiles.reshape(n, across * across, TILE, TILE)
    order = rng.permuted(np.tile(np.arange(across * across), (n, 1)), axis=1)
    tiles = np.take_along_axis(tiles, order[:, :, None, None], axis=1)
    return tiles.reshape(n, across, across, TILE, TILE).swapaxes(2, 3).reshape(n, SIDE, SIDE)


def _pattern(images: Images, rng: np.random.Generator) -> Images:
    """Noise of a random grain over the whole frame, of a random contrast."""
    n = len(images)
    out = np.empty_like(images)
    grains = rng.choice((1, 2, 4, 7), n)
    for grain in (1, 2, 4, 7):
        chosen = np.flatnonzero(grains == grain)
        side = SIDE // grain
        noise = rng.random((len(chosen), side, side)) ** rng.uniform(0.5, 6, (len(chosen), 1, 1))
        out[chosen] = np.rint(noise.repeat(grain, axis=1).repeat(grain, axis=2) * 255)
    return out


def _block(images: Images, rng: np.random.Generator) -> Images:
    """Filled rectangles and ellipses of random sizes and greys, up to three over one another."""
    n = len(images)
    pixel = np.arange(SIDE)
    out = np.zeros((n, SIDE, SIDE), np.float64)
    for _ in range(3):
        middle, half = rng.uniform(8, 20, (n, 2)), rng.uniform(3, 12, (n, 2))
        rows = np.abs(pixel[None, :] - middle[:, :1]) / half[:, :1]
        columns = np.abs(pixel[None, :] - middle[:, 1:]) / half[:, 1:]
        ellipse = rows[:, :, None] ** 2 + columns[:, None, :] ** 2 < 1
        rectangle = np.maximum(rows[:, :, None], columns[:, None, :]) < 1
        inside = np.where(rng.random((n, 1, 1)) < 0.5, ellipse, rectangle)
        out = np.where(inside, rng.uniform(0.2, 1, (n, 1, 1)), out)
    return np.rint(out * 255).astype(np.uint8)
