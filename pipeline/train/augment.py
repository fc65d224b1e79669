"""Random distortions of 28x28 digit images, vectorized over the batch.

Affine and elastic distortions are the ones that help on handwriting (Simard, Steinkraus and Platt,
"Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis", ICDAR 2003).
The others make what other people's digits look like: ones with a hook, crossed sevens, thin and
thick pens, blur, hard edges, faint ink, coarse scans.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Augmentation
from pipeline.data import SIDE, Images, Labels

ELASTIC_GRID = 6  # control points a side of the elastic displacement field
FILL_SCALE = 1.4  # brings MNIST's 20 pixels to the whole frame
COARSE_SIDES = (12, 14, 16, 18)  # pixels a side of the scans that `coarse` imitates
CHUNK = 128  # images at a time: the working set stays in the CPU cache

FloatImages = NDArray[np.float32]  # (n, 28, 28), ink 0..1
Points = NDArray[np.float32]  # (n, 2), row and column, pixels


def augment(images: Images, labels: Labels, seed: tuple[int, ...], config: Augmentation) -> Images:
    """Distorts every image at random.

    Args:
        images: Ink on an empty ground, (n, 28, 28) uint8, 0..255.
        labels: Which digit each image shows, (n,) uint8; only ones and sevens are told apart.
        seed: Seeds the draws; the same images, seed and config give the same bytes.
        config: What to do, and how strongly.

    Returns:
        The distorted images, (n, 28, 28) uint8, 0..255.
    """
    rng = np.random.default_rng(seed)
    out = np.empty_like(images)
    for start in range(0, len(images), CHUNK):
        x: FloatImages = images[start : start + CHUNK].astype(np.float32) / np.float32(255)
        _restyle(x, labels[start : start + CHUNK], rng, config)
        x = _warp(x, rng, config)
        _apply_to_some(x, rng, config.coarse, _scan_coarsely)
        _apply_to_some(x, rng, config.stroke, _change_stroke)
        _apply_to_some(x, rng, config.blur, _blur)
        _apply_to_some(x, rng, config.contrast, _change_contrast)
        _apply_to_some(x, rng, config.erase, _erase)
        _apply_to_some(x, rng, config.noise, _add_noise)
        out[start : start + CHUNK] = np.rint(np.clip(x, 0, 1) * 255)
    return out


def _apply_to_some(
    x: FloatImages,
    rng: np.random.Generator,
    share: float,
    distort: Callable[[FloatImages, np.random.Generator], FloatImages],
) -> None:
    """Distorts a random share of the images, in place."""
    if share > 0:
        chosen = np.flatnonzero(rng.random(len(x)) < share)
        x[chosen] = distort(x[chosen], rng)


def _restyle(
    x: FloatImages, labels: Labels, rng: np.random.Generator, config: Augmentation
) -> None:
    """Adds the strokes that some people draw and MNIST has few of, in place."""
    for digit, share, draw in (
        (1, config.hooked_ones, _draw_hook),
        (7, config.crossed_sevens, _draw_bar),
        (9, config.curled_nines, _draw_curl),
    ):
        if share > 0:
            chosen = np.flatnonzero((labels == digit) & (rng.random(len(x)) < share))
            x[chosen] = draw(x[chosen], rng)


def _draw_hook(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Draws the upstroke of a one, down to the left from its top; on every third also a foot."""
    n = len(x)
    top, bottom = _extent(x)
    height = bottom - top
    head, foot = _ink_at(x, top + 1), _ink_at(x, bottom - 1)
    pen = np.clip(x.sum(axis=(1, 2)) / (height + 1), 1, 5)  # a one is a bar: area / height
    angle = rng.uniform(np.pi / 6, np.pi / 2.8, n)  # below the horizontal
    length = rng.uniform(0.2, 0.65, n) * height
    tip = head + np.stack([np.sin(angle), -np.cos(angle)], axis=1) * length[:, None]
    x = draw_segment(x, head, tip.astype(np.float32), pen)
    half = rng.uniform(0.15, 0.35, n) * height * (rng.random(n) < 1 / 3)
    across = np.stack([np.zeros(n), half], axis=1).astype(np.float32)
    with_foot = draw_segment(x, foot - across, foot + across, pen)
    return np.where(half[:, None, None] > 0, with_foot, x)


def _draw_bar(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Draws a short, nearly level bar across the stem of a seven."""
    n = len(x)
    top, bottom = _extent(x)
    height = bottom - top
    middle = _ink_at(x, np.rint(top + rng.uniform(0.45, 0.65, n) * height).astype(np.intp))
    half = rng.uniform(0.15, 0.3, n) * height
    across = np.stack([rng.uniform(-0.3, 0.2, n) * half, half], axis=1).astype(np.float32)
    return draw_segment(x, middle - across, middle + across, rng.uniform(1.5, 3.5, n))


def _draw_curl(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Draws the tail of a nine, to the left from its foot and a little up again."""
    n = len(x)
    top, bottom = _extent(x)
    height = bottom - top
    foot = _ink_at(x, bottom - 1)
    pen = rng.uniform(1.5, 3.5, n)
    length = rng.uniform(0.15, 0.5, n) * height
    middle = foot + np.stack([rng.uniform(-0.02, 0.12, n) * height, -0.6 * length], axis=1)
    tip = foot + np.stack([rng.uniform(-0.15, 0.05, n) * height, -length], axis=1)
    x = draw_segment(x, foot, middle.astype(np.float32), pen)
    return draw_segment(x, middle.astype(np.float32), tip.astype(np.float32), pen)


def _extent(x: FloatImages) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last row with ink, (n,) each."""
    inked = x.max(axis=2) > 0.5  # (n, 28)
    return inked.argmax(axis=1), SIDE - 1 - inked[:, ::-1].argmax(axis=1)


def _ink_at(x: FloatImages, row: NDArray[np.intp]) -> Points:
    """The middle of the ink in one row of each image."""
    line = x[np.arange(len(x)), row]  # (n, 28)
    column = (line * np.arange(SIDE)).sum(axis=1) / np.maximum(line.sum(axis=1), 1e-6)
    return np.stack([row, column], axis=1).astype(np.float32)


def draw_segment(
    x: FloatImages, start: Points, end: Points, pen: NDArray[np.floating]
) -> FloatImages:
    """Draws a straight line `pen` (n,) pixels wide with soft edges over each image."""
    pixel = np.arange(SIDE, dtype=np.float32)
    row = pixel[None, :, None] - start[:, 0, None, None]  # (n, 28, 1)
    column = pixel[None, None, :] - start[:, 1, None, None]  # (n, 1, 28)
    along = (end - start)[:, :, None, None]  # (n, 2, 1, 1)
    length2 = np.maximum((along**2).sum(axis=1), 1e-6)
    t = np.clip((row * along[:, 0] + column * along[:, 1]) / length2, 0, 1)  # nearest point
    distance = np.hypot(row - t * along[:, 0], column - t * along[:, 1])
    ink = np.clip(pen[:, None, None].astype(np.float32) / 2 + 0.5 - distance, 0, 1)
    drawn: FloatImages = np.maximum(x, ink)
    return drawn


def _warp(x: FloatImages, rng: np.random.Generator, config: Augmentation) -> FloatImages:
    """Affine and elastic distortion in one resampling, so that the image is blurred only once."""
    n = len(x)
    dy, dx = _affine_offsets(n, rng, config)  # each (n, 28, 28): where a pixel's ink comes from
    if config.elastic_px > 0:
        spread = _elastic_basis()  # (28, g)
        knots = rng.standard_normal((2, n, ELASTIC_GRID, ELASTIC_GRID), np.float32)
        field = spread @ (knots * np.float32(config.elastic_px)) @ spread.T  # (2, n, 28, 28)
        dy += field[0]
        dx += field[1]
    return _bilinear(x, dy, dx)


def _affine_offsets(
    n: int, rng: np.random.Generator, config: Augmentation
) -> tuple[FloatImages, FloatImages]:
    """Source coordinates (row, column) of every pixel under a random affine map."""

    def draw(limit: float) -> NDArray[np.float32]:
        return rng.uniform(-limit, limit, (n, 1, 1)).astype(np.float32)

    angle = np.deg2rad(draw(config.rotation_degrees))
    scale_y = np.float32(1 + config.scale) ** draw(1.0)
    scale_x = np.float32(1 + config.scale) ** draw(1.0)
    if config.fill > 0:
        enlarged = rng.random((n, 1, 1)) < config.fill
        factor = np.where(enlarged, rng.uniform(1.0, FILL_SCALE, (n, 1, 1)), 1).astype(np.float32)
        scale_y, scale_x = scale_y / factor, scale_x / factor
    shear, shift_y, shift_x = draw(config.shear), draw(config.shift_px), draw(config.shift_px)
    centre = np.float32((SIDE - 1) / 2)
    u = np.arange(SIDE, dtype=np.float32) - centre
    row, column = u[:, None], u[None, :]
    cos, sin = np.cos(angle), np.sin(angle)
    dy = (cos * row + sin * column) * scale_y
    dx = ((shear * cos - sin) * row + (shear * sin + cos) * column) * scale_x
    return dy + (centre + shift_y), dx + (centre + shift_x)


def _elastic_basis() -> NDArray[np.float32]:
    """Cubic B-spline weights of the control points at each pixel, (28, ELASTIC_GRID)."""
    knots = np.linspace(0, SIDE - 1, ELASTIC_GRID)
    distance = np.abs(np.arange(SIDE)[:, None] - knots[None, :]) / (knots[1] - knots[0])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights: NDArray[np.float32] = np.where(distance < 1, near, far).astype(np.float32)
    return weights


def _bilinear(x: FloatImages, row: FloatImages, column: FloatImages) -> FloatImages:
    """Samples the images at fractional coordinates; everything outside is empty."""
    n = len(x)
    side = SIDE + 2
    padded = np.zeros((n, side, side), np.float32)
    padded[:, 1:-1, 1:-1] = x
    row = np.clip(row + 1, 0, side - 1.001)
    column = np.clip(column + 1, 0, side - 1.001)
    top, left = row.astype(np.int32), column.astype(np.int32)
    down, right = row - top, column - left  # 0..1, the share of the lower and the right neighbour
    at = top * side + left + (np.arange(n, dtype=np.int32) * side * side)[:, None, None]
    flat = padded.ravel()
    upper: FloatImages = flat[at]
    upper += right * (flat[at + 1] - upper)
    at += side
    lower = flat[at]
    lower += right * (flat[at + 1] - lower)
    upper += down * (lower - upper)
    return upper


def _uniform(n: int, rng: np.random.Generator, low: float, high: float) -> NDArray[np.float32]:
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def _change_stroke(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Blends each image with its dilation (a thicker pen) or its erosion (a thinner one)."""
    cross = _neighbours(x)  # (5, n, 28, 28)
    amount = _uniform(len(x), rng, -0.9, 1.0)
    target = np.where(amount > 0, cross.max(axis=0), cross.min(axis=0))
    blended: FloatImages = x + np.abs(amount) * (target - x)
    return blended


def _blur(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Blends each image with the mean over a cross of five pixels."""
    amount = _uniform(len(x), rng, 0.2, 1.0)
    blurred: FloatImages = x + amount * (_neighbours(x).mean(axis=0) - x)
    return blurred


def _neighbours(x: FloatImages) -> NDArray[np.float32]:
    """The image and its four shifts by one pixel, (5, n, 28, 28)."""
    p = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return np.stack([x, p[:, :-2, 1:-1], p[:, 2:, 1:-1], p[:, 1:-1, :-2], p[:, 1:-1, 2:]])


def _change_contrast(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Steepens the edges up to nearly black and white, then fades the ink."""
    steepness = _uniform(len(x), rng, 0.0, 1.0) ** 2 * 5 + 1  # 1 leaves the image as it is
    threshold = _uniform(len(x), rng, 0.3, 0.6)
    hard = np.clip((x - threshold) * steepness + threshold, 0, 1)
    faded: FloatImages = hard * _uniform(len(x), rng, 0.5, 1.0)
    return faded


def _scan_coarsely(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Averages down to fewer pixels and enlarges again linearly."""
    out = np.empty_like(x)
    sides = rng.choice(COARSE_SIDES, len(x))
    for side in COARSE_SIDES:
        down, up = _area_weights(side), _linear_weights(side)
        both = up @ down  # (28, 28)
        out[sides == side] = both @ x[sides == side] @ both.T
    return out


def _area_weights(side: int) -> NDArray[np.float32]:
    """Share of each of 28 pixels in each of `side` larger ones, (side, 28)."""
    edges = np.arange(side + 1) * SIDE / side
    pixel = np.arange(SIDE)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return np.asarray(np.clip(overlap, 0, None) * side / SIDE, np.float32)


def _linear_weights(side: int) -> NDArray[np.float32]:
    """Weights of `side` pixels at each of 28 positions, linear interpolation, (28, side)."""
    position = np.clip((np.arange(SIDE) + 0.5) * side / SIDE - 0.5, 0, side - 1)
    distance = np.abs(position[:, None] - np.arange(side)[None, :])
    weights: NDArray[np.float32] = np.clip(1 - distance, 0, None).astype(np.float32)
    return weights


def _erase(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    """Empties a rectangle of 2 to 6 pixels a side near the middle, where the ink is."""
    n = len(x)
    pixel = np.arange(SIDE)
    inside = np.ones((n, SIDE, SIDE), bool)
    for axis in (1, 2):
        start = rng.integers(3, 22, (n, 1))
        length = rng.integers(2, 7, (n, 1))
        within = (pixel >= start) & (pixel < start + length)  # (n, 28)
        inside &= np.expand_dims(within, 3 - axis)
    return np.where(inside, np.float32(0), x)


def _add_noise(x: FloatImages, rng: np.random.Generator) -> FloatImages:
    return x + _uniform(len(x), rng, 0.0, 0.1) * rng.standard_normal(x.shape, np.float32)
