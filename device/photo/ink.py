"""The first step: what differs from the paper around it, dark or light, at one thickness."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .parts import connected
from .pixels import WINDOW_RADIUS, UInt8, shrink, shrunk, spread

MIN_SEPARATION = 0.76  # of the contrast's variance, between ink and paper; noise: 0.64
SHEET_SIDE = 50  # pixels of the shorter side where the sheet is looked for
MAX_CALM = 0.12  # of the light, between neighbours on paper
MIN_SHEET, MIN_AROUND = 0.06, 0.15  # of the picture: the paper, and what is around it


def opposed_channels(image: UInt8) -> UInt8:
    """(h, w, C) -> (C,), 255 for a channel that goes down where the strongest goes up, else 0.

    Yellow ink on blue paper is lighter in red and darker in blue. Once blue is inverted
    (`image ^ 255`) it is light ink in all channels.
    """
    lag = min(WINDOW_RADIUS, image.shape[1] - 1)
    wide = image.astype(np.float32)
    step = (wide[:, lag:] - wide[:, : image.shape[1] - lag]).reshape(-1, image.shape[2])
    covariance = step.T @ step
    variance = covariance.diagonal()
    opposed = covariance[variance.argmax()] < -0.3 * np.sqrt(variance.max() * variance)
    return np.where(opposed, 255, 0).astype(np.uint8)


def sheet_alone(image: UInt8) -> UInt8:
    """Paints over what lies around the paper if that is rough, such as a table's grain.

    The paper is the largest calm surface, with all that it encloses along a row or a column.
    """
    k = min(image.shape[:2]) // SHEET_SIDE
    if k < 3:  # a digit cut out, not a table
        return image
    planes = shrink(image, k).transpose(2, 0, 1)
    edges = (spread(planes, 1) - shrunk(planes, 1)).max(axis=0)
    light = np.maximum(spread(planes, 1).max(axis=0), np.uint8(100))  # the dark is noisy
    calm = edges < MAX_CALM * light.astype(np.float32)
    parts = connected(calm, edges)
    if len(parts.area) == 0:
        return image
    surface = parts.draw(np.arange(len(parts.area)) == parts.area.argmax())
    sheet = np.zeros_like(surface)
    for axis in (0, 1):
        before = np.maximum.accumulate(surface, axis=axis)
        after = np.flip(np.maximum.accumulate(np.flip(surface, axis), axis=axis), axis)
        sheet |= before & after
    around = ~sheet
    is_sheet = surface.mean() > MIN_SHEET and surface[sheet].mean() > 0.7
    if not is_sheet or around.mean() < MIN_AROUND or calm[around].mean() > 0.4:
        return image
    paper = np.median(planes[:, surface], axis=1).astype(np.uint8)
    around = around.repeat(k, axis=0).repeat(k, axis=1)
    painted = image.copy()
    height, width = around.shape
    painted[:height, :width][around] = paper
    painted[height:], painted[:, width:] = paper, paper
    return painted


@dataclass(frozen=True)
class Layer:
    """Dark or light ink of one range of thickness, before strokes are chosen.

    Attributes:
        is_dark: whether the ink is darker than its paper.
        picture: (C, h, w) uint8.
        paper: (C, h, w) uint8, the picture with its ink painted over by what is around it.
        contrast: (h, w) uint8, 0 (paper) to 255, how far each pixel is from its paper.
        edges: (h, w) uint8, the contrast among the pixels close by.
    """

    is_dark: bool
    picture: UInt8
    paper: UInt8
    contrast: UInt8
    edges: UInt8


def ink_layers(planes: UInt8, radius: int) -> Iterator[Layer]:
    """(C, h, w) -> dark ink, then light."""
    reach = max(1, radius // 5)
    near = spread(planes, reach)
    edges = near - shrunk(planes, reach)
    brightest, darkest = spread(planes, radius), shrunk(planes, radius)
    dark_paper, light_paper = shrunk(brightest, radius), spread(darkest, radius)
    for is_dark, paper, difference, lit in (
        (True, dark_paper, dark_paper - planes, np.maximum(dark_paper, near)),
        (False, light_paper, planes - light_paper, brightest),
    ):
        # Relative to the light that falls there, so that ink in a shadow counts as much: as light
        # as paper, or as light ink. The strongest channel tells; a colour's weakest is noisy.
        gain = 255 / np.maximum(lit.max(axis=0), np.float32(64))
        contrast, near_edges = (
            np.minimum(x.max(axis=0) * gain, 255).astype(np.uint8) for x in (difference, edges)
        )
        yield Layer(is_dark, planes, paper, contrast, near_edges)


def blurred(planes: UInt8) -> UInt8:
    """(C, h, w): takes the edge off noise where strokes are wide enough to bear it."""
    if min(planes.shape[1:]) < 64:
        return planes
    wide = planes.astype(np.uint16)
    wide[:, 1:-1] = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:] + 2) >> 2
    wide[..., 1:-1] = (wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:] + 2) >> 2
    return wide.astype(np.uint8)


def noise_floor(contrast: UInt8) -> float:
    """The contrast above which there is ink and no grain of the paper's.

    Six standard deviations above the paper's own, if paper is most of the picture. A digit that
    fills its frame makes that too high; its ink and its paper are two groups of contrast, which
    grain never is.
    """
    sample = contrast[::2, ::2] if contrast.size > 10_000 else contrast
    quiet, middle, ink = np.percentile(sample, (16, 50, 98))
    floor = float(middle + 6 * (middle - quiet))
    if floor < 0.5 * ink:
        return floor
    count = np.bincount(sample.ravel(), minlength=256)
    below = np.cumsum(count) / sample.size  # share of the pixels up to each contrast
    mass = np.cumsum(count * np.arange(256)) / sample.size
    between = (mass[-1] * below - mass) ** 2 / np.maximum(below * (1 - below), 1e-6)
    split = int(between.argmax())  # Otsu's threshold
    two_groups = between[split] > MIN_SEPARATION * sample.var() and below[split] > 0.6
    return min(floor, split) if two_groups else floor
