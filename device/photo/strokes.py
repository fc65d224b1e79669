"""The second step: the connected ink that looks like a digit, cut out of the picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from .ink import Layer, blurred, ink_layers, noise_floor, opposed_channels, sheet_alone
from .parts import Parts, connected
from .pixels import (
    MAX_WIDTH,
    MIN_GROUND,
    MIN_PART,
    NOTHING,
    WINDOW_RADIUS,
    Bool,
    Box,
    Float,
    NoDigit,
    UInt8,
    bounds,
    holds_square,
    normalised,
    reduction,
    resize,
    shrink,
    shrunk,
    spread,
)

WORKING_PIXELS = 60_000  # where the ink is looked for, and of the strokes when they are cut out
MIN_CONTRAST = 10  # of 255
MIN_EXTENT = 10  # pixels of the searched picture
MIN_SCORE = 4.0  # contrast times share of the frame: the fainter, the larger it must be
MIN_SHARPNESS = 0.93  # a digit's outline is an edge all around
MAX_CROSSINGS = 3.0  # of a line across it, on average; the most of 1,500 digits: 2.6
MAX_SQUARE = 0.32  # share of a digit's extent; what holds a larger square is a thing, not a stroke
MIN_OTHER = 0.15  # of the best score; what is less is no digit beside it
MIN_LEVEL = 0.3  # of the usual strength of ink, a faint digit's; noise among it: 0.2
MAX_STEP = 0.8  # of the ink's contrast, between the two sides of a stroke
MIN_SHARE = 0.4  # of all ink; what is less is grain among grain, or a letter among letters
MAX_TRIES = 3  # candidates that are looked at closely at each threshold
MAX_DIGITS = 20  # of a number; more is texture, or a page of writing
REACH = 0.35  # of a digit's extent: what is farther away is no part of it
MAX_SQUARE_CLEAN = 0.55  # as MAX_SQUARE; MNIST: 0.48, closer up 0.51


@dataclass(frozen=True)
class Cut:
    """Strokes that were cut out of a picture.

    Attributes:
        strokes: (h, w) float32, 0 on paper to 1 in full ink.
        top, left: where the cut begins, in pixels of the picture.
        scale: pixels of the picture to one of the strokes, along each side.
    """

    strokes: Float
    top: int
    left: int
    scale: int

    def box(self) -> Box:
        """Around the ink, in pixels of the picture."""
        rows, columns = bounds(self.strokes > 0.5)
        left, right = (self.left + side * self.scale for side in (columns.start, columns.stop))
        top, bottom = (self.top + side * self.scale for side in (rows.start, rows.stop))
        return left, top, right, bottom


@dataclass(frozen=True)
class Ink:
    """The strokes of a digit, or of several, on a coarse grid.

    Attributes:
        score: how much like a digit.
        mask: (h, w), True on the strokes; on none where too many things are as much like a digit.
        layer: the picture on this grid.
        scale: pixels of the searched picture to one of this grid, along each side.
    """

    score: float
    mask: Bool
    layer: Layer
    scale: int

    @property
    def extent(self) -> int:
        """The longer side, in pixels of the searched picture."""
        return self.scale * max(side.stop - side.start for side in bounds(self.mask))


def find_strokes(photo: UInt8) -> list[Cut]:
    """The strokes of the digits in a photograph; digits of unlike pens are cut out apart."""
    k = reduction(photo, WORKING_PIXELS)
    small = shrink(photo, k)
    inverted = opposed_channels(small)
    inks = _find_inks(sheet_alone(small) ^ inverted)
    return [_cut_out(photo, k, inverted, ink) for ink in inks]


def _find_inks(image: UInt8) -> list[Ink]:
    """(h, w, C) -> the strokes of the digits, the most digit-like first.

    Ink is what is thin: a grey closing (for dark ink) or opening (for light) wider than any
    stroke paints it over with the paper around it, and leaves shadows, tables and the edges of
    sheets as they are. What was painted over, in any channel, is the contrast. Thicker strokes
    are looked for with the same window in pictures halved again and again, where what is thin by
    a marker's measure, such as a ruled line, is passed over.
    """
    planes = blurred(np.ascontiguousarray(image.transpose(2, 0, 1)))
    found: list[Ink] = []
    scale, thinnest = 1, 0.0
    while scale == 1 or min(planes.shape[1:]) >= 48:
        radius = min(WINDOW_RADIUS, min(planes.shape[1:]) // 4)
        for layer in ink_layers(planes, radius):
            beaten = MIN_OTHER * max((ink.score for ink in found), default=0.0)
            found += _best_strokes(layer, scale, thinnest, radius, beaten)
        planes = shrink(planes.transpose(1, 2, 0), 2).transpose(2, 0, 1)
        scale, thinnest = 2 * scale, 0.25 * WINDOW_RADIUS
    found.sort(key=lambda ink: -ink.score)
    if not found or not found[0].mask.any():
        raise NoDigit(NOTHING)
    inks = found[:1]
    for ink in found[1:]:
        if ink.score > MIN_OTHER * found[0].score and ink.layer.is_dark == found[0].layer.is_dark:
            inks += _beside(ink, inks)
    return inks


def _beside(ink: Ink, inks: list[Ink]) -> list[Ink]:
    """What of an ink lies beside those that were found, if it is a digit of about their size.

    So a ball pen's digit is not lost beside a marker's, which is found at another scale.
    """
    mask = ink.mask.copy()
    for other in inks:
        k = other.scale / ink.scale
        rows, columns = (slice(int(x.start * k), ceil(x.stop * k)) for x in bounds(other.mask))
        mask[rows, columns] = False
    parts = connected(mask, mask.astype(np.uint8))
    extent = parts.extent * ink.scale / inks[0].extent
    wanted = (likeness(parts) > 0) & (extent > 0.5) & (extent < 2.2)
    wanted &= (parts.rim == 0) & (parts.width < MAX_WIDTH * parts.height)  # no finger, no line
    return [replace(ink, mask=parts.draw(wanted))] if wanted.any() else []


def _best_strokes(
    layer: Layer, scale: int, thinnest: float, radius: int, beaten: float
) -> list[Ink]:
    """The most digit-like parts at any threshold, made whole; those with a score above `beaten`."""
    contrast = layer.contrast
    floor = max(MIN_CONTRAST, noise_floor(contrast))
    least = max(250.0, MIN_SCORE * min(contrast.shape), beaten / scale)
    found: list[Ink] = []
    seen = np.zeros(contrast.shape, bool)
    for best_score, part, parts, score in _candidates(layer, floor, thinnest, radius, least):
        if seen[parts.box(part)].any():
            continue
        chosen = np.arange(len(score)) == part
        alike, beside = score > 0.25 * best_score, _near(parts, chosen, parts.extent[part] / 4)
        if parts.area[alike | beside].sum() < MIN_SHARE * parts.area.sum():
            continue
        strokes = parts.draw(chosen)
        if not _is_stroke(strokes, float(parts.thickness[part]), layer):
            continue
        whole = np.zeros_like(strokes)
        if alike.sum() <= MAX_DIGITS:
            whole = _complete(strokes, contrast, floor, is_alone=(alike & ~beside).sum() < 2)
        found.append(Ink(scale * best_score, whole, layer, scale))
        if not whole.any():
            break
        seen[bounds(whole)] = True
    return found


def _candidates(
    layer: Layer, floor: float, thinnest: float, radius: int, least: float
) -> list[tuple[float, int, Parts, Float]]:
    """Score and number of the best parts at each threshold, all parts there and their scores."""
    candidates: list[tuple[float, int, Parts, Float]] = []
    level = floor
    while level < 0.8 * layer.contrast.max():
        mask = layer.contrast > level
        parts = connected(mask, layer.contrast)
        score = likeness(parts)
        share = parts.thickness / radius  # a thick stroke's loops are blots wider than the window:
        score *= (2 - 1.25 * share).clip(0.4, 1)  # at the next scale they are not
        score *= (parts.thickness > thinnest) & (share <= 1.25)
        if score.any():
            score *= _sharpness(parts, mask, layer.edges) > MIN_SHARPNESS
        for part in np.argsort(-score)[:MAX_TRIES]:
            if score[part] > least:
                candidates.append((float(score[part]), int(part), parts, score))
        level *= 2
    return sorted(candidates, key=lambda candidate: -candidate[0])


def likeness(parts: Parts) -> Float:
    """(n,) 0 for what cannot be a digit, else higher the darker and larger it is."""
    height, width = parts.shape
    extent = parts.extent
    slim = parts.thickness / np.maximum(extent, 1)
    crossings = parts.edge / (2 * (parts.height + parts.width))  # of a line across it, on average
    crosses_frame = (parts.width == width) | (parts.height == height)
    possible = (
        (extent >= MIN_EXTENT)
        & (slim < 0.42)  # MNIST: 0.40 at most
        & (crossings < MAX_CROSSINGS)  # not a grid of lines, a scribble, the paper among letters
        & (parts.rim < 0.3 * parts.edge)  # not a thing that reaches in from outside
        & ~(crosses_frame & (slim < 0.025))  # not a ruled line
    )
    contrast = parts.mass / np.maximum(parts.area, 1)
    return (contrast * extent * possible).astype(np.float32)


def _sharpness(parts: Parts, mask: Bool, edges: UInt8) -> Float:
    """(n,) the share of each part's outline where the picture has an edge of its strength.

    A stroke has one all around; a shadow, a corner in the dark or the paper between two strokes,
    whose outline is partly the window's, has not.
    """
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    part = np.repeat(parts.runs[:, 2], parts.runs[:, 1] - parts.runs[:, 0])  # of each mask pixel
    outline = ~inner[mask]
    part = part[outline]
    n = len(parts.area)
    contrast = parts.mass / np.maximum(parts.area, 1)
    sharp = edges[mask][outline] > 0.5 * contrast[part]
    total = np.maximum(np.bincount(part, minlength=n), 1)
    return (np.bincount(part, sharp, minlength=n) / total).astype(np.float32)


def _is_stroke(mask: Bool, thickness: float, layer: Layer) -> bool:
    """False for a thing as broad as it is long, and for what lies between two unlike surfaces.

    Paper is the same on both sides of a stroke. The shadow along a sheet's edge, a fold, or the
    sliver of table beyond has paper on one side only.
    """
    window = bounds(mask, margin=round(thickness) + 6)
    ink = mask[window].astype(np.uint8)
    if holds_square(np.pad(mask[window], 1), MAX_SQUARE):  # beyond the frame is no ink
        return False
    picture = layer.picture[(slice(None), *window)]
    gap = 2  # pixels over which a stroke's edge may be blurred
    ring = spread(ink, gap + 1) > spread(ink, gap)
    reach = round(thickness / 2) + gap + 2
    high = spread(np.where(ring, picture, np.uint8(0)), reach)
    low = shrunk(np.where(ring, picture, np.uint8(255)), reach)
    inside = ink > 0
    above, below, at = (x[:, inside].astype(np.float32) for x in (high, low, picture))
    # Relative to the light there, as the contrast is; below 0 where no ring is near.
    step = (255 * (above - below) / np.maximum(np.maximum(above, at), 64)).max(axis=0)
    return bool(np.percentile(step, 85) < MAX_STEP * layer.contrast[window][inside].mean())


def _complete(mask: Bool, contrast: UInt8, floor: float, is_alone: bool) -> Bool:
    """Grows a part to all ink of about its own strength, with what broke off it or is like it.

    Nothing if that is too much, or if the part runs into a line or the frame and is not alone.
    """
    strength = float(np.percentile(contrast[mask], 90))
    shared = mask.astype(np.uint8)
    parts = connected(contrast > max(floor, 0.4 * strength), shared)  # mass: shared pixels
    main = int(parts.mass.argmax())
    digit_like = likeness(replace(parts, mass=parts.area)) > 0
    if not digit_like[main]:
        return mask if is_alone else np.zeros_like(mask)
    extent = parts.extent / parts.extent[main]
    digits = digit_like & (extent > 0.5) & (extent < 2.2)
    if digits.sum() > MAX_DIGITS:
        return np.zeros_like(mask)
    pieces = (parts.area > MIN_PART * parts.area[main]) & (extent < 2.2)
    return parts.draw(digits | pieces & _near(parts, digits, REACH * parts.extent[main]))


def _near(parts: Parts, some: Bool, reach: float) -> Bool:
    """(n,) the parts whose boxes lie within `reach` pixels of those of some, and these."""
    first, last = np.stack([parts.top, parts.left]), np.stack([parts.bottom, parts.right])  # (2, n)
    before = first[:, some, np.newaxis] - last[:, np.newaxis]  # (2, m, n)
    after = first[:, np.newaxis] - last[:, some, np.newaxis]
    near: Bool = (np.maximum(before, after).max(axis=0) <= reach).any(axis=0)
    return near


def _cut_out(photo: UInt8, k: int, inverted: UInt8, ink: Ink) -> Cut:
    """The strokes, at the photo's own resolution.

    The photo is `k` times as large as the picture in which the ink was looked for.
    """
    k *= ink.scale
    rows, columns = bounds(ink.mask, margin=3)
    mask, paper = ink.mask[rows, columns], ink.layer.paper[:, rows, columns].transpose(1, 2, 0)
    crop = photo[rows.start * k : rows.stop * k, columns.start * k : columns.stop * k]
    scale = reduction(crop, WORKING_PIXELS)
    crop = shrink(crop, scale) ^ inverted
    around = spread(mask.astype(np.uint8), 1)
    grown = resize(np.dstack([paper, mask, around]).astype(np.float32), crop.shape[:2])
    light, share = grown[..., :-2], grown[..., -2]
    near = grown[..., -1] > 0.3  # leaves out dust and lines beside the strokes
    difference = (light - crop) / np.maximum(light, 128)  # evens out shadows on light paper
    core = share > 0.5
    colour = difference[core].mean(axis=0)  # from paper to ink: what tells them apart best
    strength = difference @ colour  # (h, w)
    usual = np.percentile(strength[core], 75)
    full = np.full(core.shape, usual, np.float32)
    for level, box in sorted(_levels(core, strength), key=lambda digit: -digit[0]):
        if level > MIN_LEVEL * usual:
            full[box] = level  # the faintest last, so that its neighbour does not hide it
    low = 0.2 * full
    strokes: Float = ((strength - low) / (0.8 * full - low)).clip(0, 1) * near
    return Cut(strokes, rows.start * k, columns.start * k, scale)


def _levels(core: Bool, strength: Float) -> Iterator[tuple[float, tuple[slice, slice]]]:
    """The strength of full ink in each digit, and its box: one may be in pencil."""
    parts = connected(core, core.astype(np.uint8))
    for part in np.flatnonzero(parts.extent > 0.5 * parts.extent.max()).tolist():
        box = parts.box(part)
        yield float(np.percentile(strength[box][core[box]], 75)), box


def clean_strokes(photo: UInt8) -> Cut:
    """The strokes of a digit on clean black or white; raises NoDigit if it is none.

    A digit that was cut out already, such as a 16x16 scan, may fill its frame, so that no paper is
    left around it to find its ink by, and may be bolder than anything a photograph is searched for.
    What tells it from a piece of a photograph is its ground, which is of one grey.
    """
    k = reduction(photo, WORKING_PIXELS)
    strokes = normalised(shrink(photo, k))
    ink = strokes > 0.5
    parts = connected(ink, ink.astype(np.uint8))
    main = int(parts.area.argmax())
    if (
        (strokes < 0.03).mean() < MIN_GROUND
        or likeness(parts)[main] == 0
        or parts.area[main] < 0.8 * parts.area.sum()
        or holds_square(np.pad(ink, 1), MAX_SQUARE_CLEAN)
    ):
        raise NoDigit(NOTHING)
    return Cut(strokes, 0, 0, k)
