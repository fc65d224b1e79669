"""The third step: one digit from another, each with the parts that a gap set apart."""

from __future__ import annotations

import numpy as np

from .parts import Parts, connected
from .pixels import MAX_WIDTH, MIN_PART, NOTHING, Int, NoDigit, bounds, spread
from .strokes import Cut

MAX_PARTS = 40  # that are put together
MAX_GAP = 0.2  # of a digit's extent, between its parts
ABREAST = 0.7  # of the height of one digit, the height of another beside it, at least


def separate(cut: Cut) -> list[Cut]:
    """The digits in a cut, each with the parts that a gap in its stroke has set apart."""
    ink = cut.strokes > 0.5
    parts = connected(ink, ink.astype(np.uint8))
    largest = np.argsort(-parts.area)[:MAX_PARTS]
    groups = _groups(parts, largest[parts.area[largest] > MIN_PART * parts.area.max()])
    extents = [max(_size(parts, group)) for group in groups]
    digits = []
    for group, extent in zip(groups, extents, strict=True):
        height, width = _size(parts, group)
        if extent < 0.5 * max(extents):
            continue  # a comma, or dust
        if width > MAX_WIDTH * height:
            if len(groups) < 3:
                raise NoDigit(NOTHING)  # a two whose base is too far away to be sure of
            continue  # a line under a number
        digits.append(cut if len(groups) == 1 else _alone(cut, parts, group))
    if not digits:
        raise NoDigit(NOTHING)
    return digits


def _groups(parts: Parts, solid: Int) -> list[Int]:
    """Which parts make up a digit, for each digit; the closest are joined first."""
    rows, left = np.divmod(parts.runs[:, 0], parts.shape[1] + 1)
    right = left + parts.runs[:, 1] - parts.runs[:, 0]
    runs = [np.stack([rows, left, right])[:, parts.runs[:, 2] == part] for part in solid]
    pairs = [(_gap(runs[i], runs[j]), i, j) for i in range(len(solid)) for j in range(i)]
    groups = [solid[i : i + 1] for i in range(len(solid))]
    for gap, i, j in sorted(pairs):
        a, b = groups[i], groups[j]
        if a is not b and _is_one_digit(parts, a, b, gap):
            both = np.concatenate([a, b])
            groups = [both if group is a or group is b else group for group in groups]
    return list({id(group): group for group in groups}.values())


def _gap(a: Int, b: Int) -> float:
    """Pixels between two parts, of which each has (3, r) row, left and right of its runs."""
    down = np.abs(a[0][:, None] - b[0])
    across = np.maximum(a[1][:, None] - b[2], b[1] - a[2][:, None]).clip(0)
    return float(np.hypot(down, across).min())


def _size(parts: Parts, group: Int) -> tuple[int, int]:
    """Height and width of some parts together."""
    height = parts.bottom[group].max() - parts.top[group].min()
    return int(height), int(parts.right[group].max() - parts.left[group].min())


def _is_one_digit(parts: Parts, a: Int, b: Int, gap: float) -> bool:
    """Whether two groups of parts are close, and not two digits side by side."""
    (height_a, width_a), (height_b, width_b) = _size(parts, a), _size(parts, b)
    height, width = _size(parts, np.concatenate([a, b]))
    low, high = sorted((height_a, height_b))
    abreast = (
        low > ABREAST * high
        and height_a + height_b - height > 0.5 * low
        and width_a + width_b - width < 0.5 * min(width_a, width_b)
    )
    return not abreast and gap < MAX_GAP * max(height_a, width_a, height_b, width_b)


def _alone(cut: Cut, parts: Parts, group: Int) -> Cut:
    """One digit, with the grey at its edges and without the others."""
    chosen = np.isin(np.arange(len(parts.area)), group)
    mask = parts.draw(chosen)
    near = (spread(mask.astype(np.uint8), 2) > 0) & ~parts.draw(~chosen)
    rows, columns = bounds(mask, margin=2)
    top, left = cut.top + rows.start * cut.scale, cut.left + columns.start * cut.scale
    return Cut((cut.strokes * near)[rows, columns], top, left, cut.scale)


def in_reading_order(digits: list[Cut]) -> list[Cut]:
    """From left to right in each line, the upper line first."""
    lines: list[list[Cut]] = []
    for digit in sorted(digits, key=lambda digit: digit.box()[1]):
        _, top, _, bottom = digit.box()
        if not lines or (top + bottom) / 2 > lines[-1][0].box()[3]:
            lines.append([])
        lines[-1].append(digit)
    return [digit for line in lines for digit in sorted(line, key=lambda digit: digit.box()[0])]
