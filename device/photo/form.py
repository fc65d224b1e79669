"""The last step: strokes to the form of an MNIST image."""

from __future__ import annotations

import numpy as np

from .parts import connected
from .pixels import BOX, NOTHING, SIDE, Float, NoDigit, SeveralDigits, UInt8, bounds, fit, spread

MAX_ACROSS = 2.1  # strokes of one digit from left to right, on average; 998 of 1,000 in MNIST
MAX_BRIDGED = 0.85  # of the height, on both sides of one thin stroke; 998 of 1,000 in MNIST
FINE = 5  # strokes are evened out on a grid this much finer than MNIST's
THICKNESS = (2.0, 3.5)  # MNIST pixels; 90 % of MNIST is within 1.6 and 3.7


def is_mnist(image: UInt8) -> bool:
    """True for an image made as MNIST's were; holds for all 70,000 of them."""
    if image.max() < 250:
        return False
    rows, columns = np.nonzero(image)
    if max(np.ptp(rows), np.ptp(columns)) + 1 not in (BOX - 1, BOX):
        return False
    weight = image[rows, columns].astype(np.float64)
    centre = np.average(np.stack([rows, columns]), axis=1, weights=weight)
    return bool(np.abs(centre - SIDE / 2).max() < 0.52)


def in_mnist_form(strokes: Float) -> UInt8:
    """(h, w) 0..1 -> (28, 28) 0..255; refuses what has no full ink, such as a ruled line's bits.

    Two digits that touch are refused by their many strokes.
    """
    boxed = fit(_even_thickness(strokes), BOX)
    digit = _centre_by_mass(np.rint(boxed * 255).astype(np.uint8))
    ink = np.pad(digit > 160, ((0, 0), (1, 0)))
    if not ink.any():
        raise NoDigit(NOTHING)
    strokes_across = (ink[:, 1:] & ~ink[:, :-1]).sum() / ink.any(axis=1).sum()
    if strokes_across > MAX_ACROSS or _bridged(digit) > MAX_BRIDGED:
        raise SeveralDigits("digits that touch, or a letter: leave a gap between digits")
    return digit


def _bridged(digit: UInt8) -> float:
    """How tall, of 1, the lower of two sides is that one thin stroke joins; 0 where none does.

    An H is 1 and an open four up to 0.8. A stroke near the top or the bottom does not count: it
    closes a zero.
    """
    ink = digit > 100
    ink = ink[bounds(ink)]
    height, width = ink.shape
    rows = np.arange(height)[:, None]
    count, middle = ink.sum(axis=0), (ink * rows).sum(axis=0) / np.maximum(ink.sum(axis=0), 1)
    pieces = (ink & ~np.pad(ink, ((1, 0), (0, 0)))[:-1]).sum(axis=0)
    thin = (pieces == 1) & (count < 0.35 * height) & (abs(middle / height - 0.5) < 0.3)
    sides = (
        (ink[:, :x].any(axis=1).sum(), ink[:, x + 1 :].any(axis=1).sum()) for x in range(width)
    )
    return max((min(side) / height for side, is_thin in zip(sides, thin) if is_thin), default=0.0)


def _even_thickness(strokes: Float) -> Float:
    """Thickens a thin pen's strokes and thins a marker's to within what MNIST holds."""
    fine = np.pad(fit(strokes, BOX * FINE), 2 * FINE)
    grey = np.rint(fine * 255).astype(np.uint8)
    parts = connected(grey > 127, grey)
    thickness = 2.4 * parts.area.sum() / parts.edge.sum() / FINE  # MNIST pixels; 2.4, not 2: stairs
    change = np.clip(thickness, *THICKNESS) - thickness
    radius = round(abs(change) * FINE / 2)
    grown = _disc(grey, radius) if change > 0 else 255 - _disc(255 - grey, radius)
    if grown.max() < 128:
        grown = grey
    return (grown / 255).astype(np.float32)


def _disc(image: UInt8, radius: int) -> UInt8:
    """Largest value within about `radius` pixels: square and cross in turn make an octagon."""
    for step in range(radius):
        square = spread(image, 1)
        if step % 2:
            image = square
        else:
            across = np.maximum(image[1:-1, :-2], image[1:-1, 2:])
            along = np.maximum(image[:-2, 1:-1], image[2:, 1:-1])
            image = image.copy()
            image[1:-1, 1:-1] = np.maximum(image[1:-1, 1:-1], np.maximum(across, along))
    return image


def _centre_by_mass(digit: UInt8) -> UInt8:
    """(<=20, <=20) -> (28, 28), the centre of mass in the middle to the nearest pixel."""
    ys, xs = np.nonzero(digit)
    weight = digit[ys, xs].astype(np.float64)
    top = round(SIDE / 2 - float(np.average(ys, weights=weight)))
    left = round(SIDE / 2 - float(np.average(xs, weights=weight)))
    height, width = digit.shape
    top, left = min(max(top, 0), SIDE - height), min(max(left, 0), SIDE - width)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = digit
    return image
