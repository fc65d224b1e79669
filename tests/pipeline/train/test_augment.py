"""Random distortions: shapes, range, identity, determinism, and what each one does to the ink."""

from dataclasses import fields, replace

import numpy as np
import pytest

from pipeline.config import Augmentation
from pipeline.train.augment import augment

NAMES = [field.name for field in fields(Augmentation)]
NOTHING = Augmentation(**dict.fromkeys(NAMES, 0.0))
STRENGTHS = {"rotation_degrees": 15, "scale": 0.2, "shear": 0.2, "shift_px": 2}
EVERYTHING = Augmentation(**dict.fromkeys(NAMES, 1) | STRENGTHS)
OF_OTHER_DIGITS = ("crossed_sevens", "curled_nines")
DISTORTIONS = [name for name in NAMES if name not in OF_OTHER_DIGITS]
ONES = np.ones(300, np.uint8)


@pytest.fixture
def bars():
    """300 images (more than one chunk) of an upright bar, 4 pixels wide and 16 high."""
    images = np.zeros((300, 28, 28), np.uint8)
    images[:, 6:22, 12:16] = 255
    return images


def only(name):
    return replace(NOTHING, **{name: getattr(EVERYTHING, name)})


def test_strength_zero_returns_the_same_bytes():
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28)).astype(np.uint8)
    assert np.array_equal(augment(images, ONES, (1,), NOTHING), images)


def test_shape_and_type_are_kept_and_the_input_is_untouched(bars):
    before = bars.copy()
    out = augment(bars, ONES, (1,), EVERYTHING)
    assert out.shape == bars.shape
    assert out.dtype == np.uint8
    assert np.array_equal(bars, before)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(bars):
    first = augment(bars, ONES, (1, 7), EVERYTHING)
    assert np.array_equal(first, augment(bars, ONES, (1, 7), EVERYTHING))
    assert not np.array_equal(first, augment(bars, ONES, (1, 8), EVERYTHING))


@pytest.mark.parametrize("name", DISTORTIONS)
def test_each_distortion_alone_changes_images(bars, name):
    changed = (augment(bars, ONES, (1,), only(name)) != bars).any(axis=(1, 2))
    assert changed.mean() > 0.2  # an erased rectangle often falls beside the bar


@pytest.mark.parametrize("name", ["rotation_degrees", "shear", "shift_px", "elastic_px"])
def test_geometry_keeps_the_ink(bars, name):
    ink = augment(bars, ONES, (1,), only(name)).astype(float).sum(axis=(1, 2))
    assert np.mean(ink) == pytest.approx(64 * 255, rel=0.03)


def test_shift_moves_the_centre_of_mass_by_at_most_its_limit(bars):
    out = augment(bars, ONES, (1,), replace(NOTHING, shift_px=2)).astype(float)
    mass = out.sum(axis=(1, 2))
    row = (out.sum(axis=2) * np.arange(28)).sum(axis=1) / mass
    column = (out.sum(axis=1) * np.arange(28)).sum(axis=1) / mass
    for moved in (row - 13.5, column - 13.5):  # the bar's centre lies at 13.5, 13.5
        assert np.abs(moved).max() <= 2.02  # rounding to whole gray levels moves it a little
        assert moved.min() < -1.5
        assert moved.max() > 1.5


def test_stroke_makes_some_bars_wider_and_some_narrower(bars):
    width = (
        augment(bars, ONES, (1,), replace(NOTHING, stroke=1))[:, 14].astype(float).sum(axis=1) / 255
    )
    assert width.min() < 3
    assert width.max() > 5
    assert ((width > 2.0) & (width <= 6.0)).all()


def test_share_is_the_share_of_images_changed(bars):
    changed = (augment(bars, ONES, (1,), replace(NOTHING, stroke=0.3)) != bars).any(axis=(1, 2))
    assert 0.2 < changed.mean() < 0.4


@pytest.mark.parametrize(
    ("name", "digit", "least", "inked", "blank"),
    [
        ("hooked_ones", 1, 255, np.s_[5:15, :12], np.s_[:0]),  # at the upper left
        ("crossed_sevens", 7, 0, np.s_[10:19, :12], np.s_[:0]),  # on both sides of the stem
        ("crossed_sevens", 7, 0, np.s_[10:19, 16:], np.s_[:0]),
        ("curled_nines", 9, 255, np.s_[17:, :12], np.s_[:16]),  # at the lower left alone
    ],
)
def test_a_stroke_is_added_to_its_digit_alone(bars, name, digit, least, inked, blank):
    labels = np.arange(300).astype(np.uint8) % 10
    added = augment(bars, labels, (1,), replace(NOTHING, **{name: 1})).astype(int) - bars
    assert (added >= 0).all()
    assert (added[labels != digit] == 0).all()
    for image in added[labels == digit]:
        assert image[inked].sum() > least
        assert not image[blank].any()


def test_fill_enlarges_up_to_the_whole_frame_and_never_shrinks(bars):
    ink = augment(bars, ONES, (1,), replace(NOTHING, fill=1)).astype(float).sum(axis=(1, 2))
    larger = ink / (64 * 255)  # of the bar's area; at 1.4 times the size it is 1.96 times that
    assert larger.min() > 0.97
    assert 1.8 < larger.max() < 2.02


def test_an_empty_image_stays_finite():
    images = np.zeros((3, 28, 28), np.uint8)
    out = augment(images, np.array([1, 7, 9], np.uint8), (1,), replace(EVERYTHING, noise=0))
    assert out.shape == images.shape
