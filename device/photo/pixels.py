"""Arithmetic on pixels: what the other files share."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

WINDOW_RADIUS = 10  # pixels; strokes up to 1.25 times as thick are looked for
MAX_WIDTH = 2.5  # times the height; MNIST: 2.2
MIN_PART = 0.03  # of a digit's area: what is smaller is no part of it
MIN_GROUND = 0.15  # share of a clean picture's pixels that are of its ground's grey
SIDE = 28  # MNIST image
BOX = 20  # MNIST digit
NOTHING = "no digit found; show one on plain paper, at least a tenth of the picture high"
Box = tuple[int, int, int, int]
UInt8 = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]


class PhotoError(ValueError):
    """The array is not a picture, or not of one digit."""


class NoDigit(PhotoError):  # noqa: N818 - says what was found
    """The picture holds nothing that looks like a digit."""


class SeveralDigits(PhotoError):  # noqa: N818 - says what was found
    """The picture holds more than one digit."""


def opaque(image: UInt8) -> UInt8:
    """(H, W, C): fills what is transparent in RGBA with a fitting paper.

    Ink alone on nothing gets white paper, or black if the ink is light. A whole picture with
    some transparent parts (say, round corners) has them filled with its own paper's colour.
    """
    if image.shape[2] < 4:
        return image
    colour, alpha = image[..., :3], image[..., 3:]
    if alpha.min() == 255:
        return colour
    seen = colour[alpha[..., 0] > min(127, int(alpha.max()) - 1)]  # (n, 3)
    level = seen.mean(axis=1)
    paper = np.full(3, 0 if level.mean() > 127 else 255)
    if len(seen) > alpha.size / 2 and np.ptp(np.percentile(level, (2, 98))) > 40:
        paper = np.median(seen, axis=0)
    share = alpha.astype(np.float32) / 255
    filled: UInt8 = np.rint(colour * share + paper * (1 - share)).astype(np.uint8)
    return filled


def normalised(photo: UInt8) -> Float:
    """(h, w, C) -> (h, w), ink 1 on a ground of 0; raises NoDigit where contrast is too little."""
    grey = photo.mean(axis=2, dtype=np.float32)
    low, high = float(grey.min()), float(grey.max())
    if high - low < 128:
        raise NoDigit(NOTHING)
    strokes = (grey - low) / (high - low)
    # A digit leaves most corners free.
    return 1 - strokes if strokes[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 0.5 else strokes


def reduction(image: UInt8, pixels: int) -> int:
    """The whole factor by which both sides shrink to leave at most about `pixels` pixels."""
    height, width = image.shape[:2]
    return min(max(1, round(math.sqrt(width * height / pixels))), width, height)


def shrink(image: UInt8, k: int) -> UInt8:
    """(H, W, C) -> (H / k, W / k, C), by means over k x k blocks."""
    if k == 1:
        return image
    height, width, channels = image.shape[0] // k, image.shape[1] // k, image.shape[2]
    bands = image[: height * k, : width * k].reshape(height, k, width * k, channels)
    sums = bands.sum(axis=1, dtype=np.uint16).reshape(
        height, width, k, channels
    )  # k is 257 at most
    return (sums.sum(axis=2, dtype=np.uint32) // k**2).astype(np.uint8)


def resize(image: Float, shape: tuple[int, int]) -> Float:
    """(h, w, C) -> (*shape, C): means over areas when it shrinks, linear when it grows."""
    rows, columns = _weights(image.shape[0], shape[0]), _weights(image.shape[1], shape[1])
    resized: Float = np.einsum("yh,hwc,xw->yxc", rows, image, columns, optimize=True)
    return resized


def _weights(n: int, m: int) -> Float:
    """(m, n): how much of each of n pixels goes into each of m."""
    scale = n / m
    if scale > 1:
        edges = np.arange(m + 1)[:, None] * scale - np.arange(n)[None]
        covered = edges.clip(0, 1)
        shares: Float = ((covered[1:] - covered[:-1]) / scale).astype(np.float32)
        return shares
    centre = ((np.arange(m) + 0.5) * scale - 0.5).clip(0, n - 1)
    return (1 - np.abs(centre[:, None] - np.arange(n)[None])).clip(0, 1).astype(np.float32)


def fit(strokes: Float, side: int) -> Float:
    """Cuts to the strokes and scales their longer side to `side`, aspect ratio kept."""
    return scaled(strokes[bounds(strokes > 0.5)], side)


def scaled(strokes: Float, side: int) -> Float:
    """Scales the longer side to `side`, aspect ratio kept."""
    height, width = strokes.shape
    scale = side / max(height, width)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    return resize(strokes[..., None], shape)[..., 0]


def bounds(mask: Bool, margin: int = 0) -> tuple[slice, slice]:
    """The box around all True, as (rows, columns)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - margin), min(mask.shape[0], int(rows[-1]) + 1 + margin)),
        slice(max(0, int(columns[0]) - margin), min(mask.shape[1], int(columns[-1]) + 1 + margin)),
    )


def spread(planes: UInt8, radius: int) -> UInt8:
    """(..., h, w): the largest value within `radius` along both axes, by doubling."""
    for axis in (-1, -2):
        planes = planes.swapaxes(axis, -2)
        window = 2 * radius + 1
        padded = np.zeros(
            (*planes.shape[:-2], planes.shape[-2] + 2 * radius, planes.shape[-1]), np.uint8
        )
        padded[..., radius : radius + planes.shape[-2], :] = planes
        reach = 1
        while reach < window:
            step = min(reach, window - reach)
            padded = np.maximum(padded[..., :-step, :], padded[..., step:, :])
            reach += step
        planes = padded.swapaxes(axis, -2)
    return planes


def shrunk(planes: UInt8, radius: int) -> UInt8:
    """The smallest value within `radius`."""
    return 255 - spread(255 - planes, radius)


def holds_square(mask: Bool, share: float) -> bool:
    """Whether a square of the given share of the mask's extent fits in, partly over the frame."""
    extent = max(side.stop - side.start for side in bounds(mask))
    window = mask[bounds(mask, margin=1)].astype(np.uint8)
    return bool(shrunk(window, math.ceil((share * extent - 1) / 2)).any())
