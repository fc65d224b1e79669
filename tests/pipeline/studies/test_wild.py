"""The generated test sets hold what they say, and repeat."""

import numpy as np
import pytest

from pipeline.studies import non_digits, wild


@pytest.mark.parametrize("name", wild.CONDITIONS)
def test_a_set_repeats_and_has_its_digits_in_turn(name):
    first, again, other = (wild.generate(name, 20, seed) for seed in (1, 1, 2))
    digits = list(wild.CONDITIONS[name].ways)
    assert first.images.shape == (20, 28, 28)
    assert first.labels.tolist() == [digits[i % len(digits)] for i in range(20)]
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert (first.images.max(axis=(1, 2)) > 80).all()


def _extent(image):
    rows, columns = np.nonzero(image > 20)
    return max(np.ptp(rows), np.ptp(columns)) + 1


def test_pens_differ_as_their_names_say():
    ink = {
        name: wild.generate(name, 50, 1).images.mean()
        for name in ("thin ball pen", "pen", "thick marker")
    }
    assert ink["thin ball pen"] < ink["pen"] / 1.5
    assert ink["thick marker"] > ink["pen"] * 1.5


def test_digits_in_mnist_form_fill_its_box():
    extents = [_extent(image) for image in wild.generate("pen", 50, 1).images]
    assert min(extents) >= 19
    assert max(extents) <= 20


def test_a_stretched_scan_touches_the_frame_and_a_boxed_one_keeps_the_margin():
    stretched = wild.generate("16x16 scan over the whole frame", 20, 1).images
    boxed = wild.generate("16x16 scan in MNIST's box", 20, 1).images
    assert min(_extent(image) for image in stretched) >= 27
    assert not boxed[:, :4].any()
    assert not boxed[:, :, 24:].any()


def test_a_painted_digit_is_black_or_white():
    assert set(np.unique(wild.generate("paint program at 28x28", 20, 1).images)) == {0, 255}


@pytest.mark.parametrize("kind", non_digits.KINDS)
def test_non_digits_repeat_and_differ(kind):
    first, again = (non_digits.generate(kind, 20, 1) for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == (20, 28, 28)
    assert np.array_equal(first, again)
    assert len(np.unique(first, axis=0)) == 20
