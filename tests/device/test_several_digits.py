"""The digits of a number are found in reading order, and never answered as one."""

import numpy as np
import pytest
from drawings import difference, seven
from PIL import Image, ImageDraw

from device.photo import NoDigit, PhotoError, SeveralDigits, find_digit, find_digits


def row(digits, gap, factor=5):
    """MNIST digits side by side, dark on light, `gap` of their pixels apart."""
    width = sum(digit.any(axis=0).sum() for digit in digits) + gap * (len(digits) - 1)
    ink = np.zeros((28, width), np.uint8)
    left = 0
    for digit in digits:
        columns = np.flatnonzero(digit.any(axis=0))
        tight = digit[:, columns[0] : columns[-1] + 1]
        ink[:, left : left + tight.shape[1]] |= tight
        left += tight.shape[1] + gap
    return 255 - np.pad(ink, 8).repeat(factor, axis=0).repeat(factor, axis=1)


def page(rows, width=None):
    """Rows below each other, cut or filled up to one width."""
    width = width or max(row.shape[1] for row in rows)
    fitting = [row[:, :width] for row in rows]
    return np.concatenate(
        [np.pad(r, ((0, 0), (0, width - r.shape[1])), constant_values=255) for r in fitting]
    )


def differences(found, digits):
    return [difference(a, b) for (a, _), b in zip(found, digits, strict=True)]


@pytest.mark.parametrize("gap", [1, 3, 12])
def test_one_of_two_digits_is_never_answered_alone(mnist, gap):
    for pair in mnist.test.images[20:30].reshape(5, 2, 28, 28):
        with pytest.raises(PhotoError):
            find_digit(row(pair, gap))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_digits_of_a_number_are_found_in_reading_order(mnist, count):
    digits = mnist.test.images[:count]
    image = row(digits, gap=5)
    found = find_digits(image)
    assert np.mean(differences(found, digits)) < 15
    boxes = [box for _, box in found]
    assert boxes == sorted(boxes)
    inside = np.zeros(image.shape, bool)
    for left, top, right, bottom in boxes:
        assert (image[top:bottom, left:right] < 128).any(axis=1).mean() > 0.9
        inside[top:bottom, left:right] = True
    assert (image[~inside] < 60).sum() < 0.02 * (image < 60).sum()
    with pytest.raises(SeveralDigits, match=rf"^several digits \({count}\): use --all$"):
        find_digit(image)


@pytest.mark.parametrize("strength", [0.45, 0.25])
def test_a_faint_digit_beside_a_dark_one_is_read(mnist, strength):
    image = row(mnist.test.images[:2], gap=8)
    right = image[:, image.shape[1] // 2 :]
    right[:] = 255 - (255 - right) * strength
    assert max(differences(find_digits(image), mnist.test.images[:2])) < 20


def test_the_upper_line_is_read_first(mnist):
    digits = mnist.test.images[:6]
    found = find_digits(page([row(digits[:3], gap=6), row(digits[3:], gap=6)]))
    assert np.mean(differences(found, digits)) < 15


def test_a_lone_digit_has_its_box():
    ((digit, box),) = find_digits(np.pad(seven(), ((50, 0), (90, 0)), constant_values=255))
    assert np.abs(np.array(box) - (90 + 25, 50 + 20, 90 + 80, 50 + 100)).max() <= 4
    assert difference(digit, find_digit(seven())) < 6


def two_ones(slant):
    """Two ones joined by a stroke."""
    image = Image.new("L", (200, 200), 255)
    strokes = [[(left + slant, 40), (left, 160)] for left in (60, 125)]
    for stroke in (*strokes, [(65, 105), (130, 100)]):
        ImageDraw.Draw(image).line(stroke, fill=0, width=12)
    return np.asarray(image)


@pytest.mark.parametrize("slant", [None, 0, 20])
def test_digits_that_touch_are_refused(mnist, slant):
    eights = mnist.test.images[[61, 84]]
    with pytest.raises(SeveralDigits, match="touch"):
        find_digits(row(eights, gap=-2) if slant is None else two_ones(slant))


def test_a_page_of_marks_is_no_number(mnist):
    lines = [row(mnist.test.images[i : i + 8], gap=4, factor=2) for i in range(0, 48, 8)]
    with pytest.raises(NoDigit):
        find_digits(page(lines, width=320))
