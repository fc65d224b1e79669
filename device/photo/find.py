"""Any picture of a digit to the 28x28 grey levels that MNIST holds: the whole recipe."""

from __future__ import annotations

import numpy as np

from .digits import in_reading_order, separate
from .form import in_mnist_form, is_mnist
from .pixels import (
    BOX,
    MIN_GROUND,
    NOTHING,
    SIDE,
    Box,
    NoDigit,
    PhotoError,
    SeveralDigits,
    UInt8,
    normalised,
    opaque,
    scaled,
)
from .strokes import clean_strokes, find_strokes

SHAPES = ((), (1,), (3,), (4,))  # of the channels


def find_digit(image: UInt8) -> UInt8:
    """Cuts the digit out of a picture and brings it into the form of an MNIST image.

    Args:
        image: (H, W) or (H, W, 1) grey, (H, W, 3) RGB or (H, W, 4) RGBA, uint8, any size; dark on
            light or light on dark.

    Returns:
        (28, 28) uint8, white ink on black. An MNIST image comes back as it is.

    Raises:
        NoDigit: nothing in the picture looks like a digit.
        SeveralDigits: more than one thing does.
        PhotoError: the array is not a picture.
    """
    found = find_digits(image)
    if len(found) > 1:
        raise SeveralDigits(f"several digits ({len(found)}): use --all")
    return found[0][0]


def find_digits(image: UInt8) -> list[tuple[UInt8, Box]]:
    """Cuts every digit of a number out of a picture, as `find_digit` does with the only one.

    Args:
        image: as for `find_digit`.

    Returns:
        In reading order, at least one: (28, 28) uint8, and the digit's box in pixels of `image`:
        left, top, right, bottom, the last two excluded.

    Raises:
        NoDigit: nothing in the picture looks like a digit.
        SeveralDigits: digits touch.
        PhotoError: the array is not a picture.
    """
    kind, shape = getattr(image, "dtype", type(image).__name__), np.shape(image)
    if kind != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in SHAPES:
        raise PhotoError(f"{kind} {shape} where a uint8 array (H, W) or (H, W, 3) is needed")
    if image.size == 0:
        raise PhotoError("the picture has no pixels")
    photo = opaque(image if image.ndim == 3 else image[..., None])
    height, width = photo.shape[:2]
    if photo.shape == (SIDE, SIDE, 1):
        for ready in (photo[..., 0], 255 - photo[..., 0]):
            if is_mnist(ready):
                return [(ready.copy(), (0, 0, width, height))]
    if max(height, width) < BOX:
        return [(_whole_frame(photo), (0, 0, width, height))]
    try:
        cuts = find_strokes(photo)
    except NoDigit:
        cuts = [clean_strokes(photo)]
    digits = in_reading_order([digit for cut in cuts for digit in separate(cut)])
    return [(in_mnist_form(digit.strokes), digit.box()) for digit in digits]


def _whole_frame(photo: UInt8) -> UInt8:
    """A picture smaller than MNIST's box fills it: a digit that was cut out and scaled already.

    Its pixels are too few to find strokes among, and where a digit breaks, its parts belong to it.
    """
    strokes = normalised(photo)
    if (strokes < 0.1).mean() < MIN_GROUND:
        raise NoDigit(NOTHING)
    digit = np.rint(255 * scaled(strokes, BOX)).astype(np.uint8)
    height, width = digit.shape
    whole = np.zeros((SIDE, SIDE), np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    whole[top : top + height, left : left + width] = digit
    return whole
