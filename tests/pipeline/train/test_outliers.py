"""Non-digits to train on: none of the digits is left, and the draws repeat."""

import numpy as np

from pipeline.train.outliers import draw_non_digits


def test_every_image_is_replaced_and_the_draws_repeat(mnist):
    images = mnist.train.images[:200]
    before = images.copy()
    first, again, other = (draw_non_digits(images, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first.shape == images.shape
    assert first.dtype == np.uint8
    assert (first != images).any(axis=(1, 2)).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(images, before)


def test_no_images_give_no_images():
    none = np.zeros((0, 28, 28), np.uint8)
    assert draw_non_digits(none, np.random.default_rng(0)).shape == (0, 28, 28)
