"""Distortions of the robustness table do what their names and units say."""

import json

import numpy as np
import pytest

from pipeline.studies import robustness
from pipeline.studies.robustness import DISTORTIONS, distort

BY_NAME = {d.name: d for d in DISTORTIONS}


@pytest.fixture
def bars():
    """Four images of an upright bar, 16 pixels high and 4 wide, off the centre to the right."""
    images = np.zeros((4, 28, 28), np.uint8)
    images[:, 6:22, 16:20] = 200
    return images


def test_none_changes_nothing(bars):
    assert np.array_equal(distort(bars, BY_NAME["none"], 0), bars)


def test_shift_goes_down_up_right_and_left_in_turn(bars):
    moved = distort(bars, BY_NAME["shift"], 2)
    for image, (rows, columns) in zip(moved, ((2, 0), (-2, 0), (0, 2), (0, -2)), strict=True):
        assert np.array_equal(image, np.roll(bars[0], (rows, columns), (0, 1)))


def test_rotation_alternates_and_a_quarter_turn_is_exact(bars):
    turned = distort(bars, BY_NAME["rotation"], 90)
    turns = {np.rot90(bars[0], k).tobytes() for k in (1, 3)}
    assert {image.tobytes() for image in turned} == turns
    assert np.array_equal(turned[0], turned[2])


def test_scale_is_around_the_centre(bars):
    square = np.zeros((1, 28, 28), np.uint8)
    square[:, 9:19, 9:19] = 255
    half, double = (distort(square, BY_NAME["scale"], factor)[0] for factor in (0.5, 2))
    assert half.sum() / square.sum() == pytest.approx(0.25, rel=0.05)
    assert double.sum() / square.sum() == pytest.approx(4, rel=0.05)
    assert np.array_equal(half, half[::-1, ::-1])
    assert np.array_equal(double, double[::-1, ::-1])


def test_contrast_leaves_that_share_of_the_ink(bars):
    assert distort(bars, BY_NAME["contrast"], 0.3).max() == 60


def test_noise_has_its_deviation_and_repeats():
    grey = np.full((4, 28, 28), 128, np.uint8)
    noisy = distort(grey, BY_NAME["noise"], 0.1)
    assert noisy.std() / 255 == pytest.approx(0.1, rel=0.05)
    assert np.array_equal(noisy, distort(grey, BY_NAME["noise"], 0.1))


def test_blur_keeps_the_ink_and_lowers_the_peak(bars):
    blurred = distort(bars, BY_NAME["blur"], 1.5)
    assert blurred.sum() == pytest.approx(bars.sum(), rel=0.01)
    assert blurred.max() < 190


def test_rows_hold_float_and_int8_of_every_strength(tmp_path, monkeypatch, mnist):
    test = mnist.test
    one_hot = np.eye(10, dtype=np.float32)

    def classify(folder, images):  # float: always right; int8: always 0
        labels = np.tile(test.labels, len(images) // len(test))
        return {"float": one_hot[labels], "int8": one_hot[np.zeros_like(labels)]}

    monkeypatch.setattr(robustness, "classify_float_and_int8", classify)
    for name in ("lenet5.keras", "lenet5_int8.tflite"):
        (tmp_path / name).write_bytes(b"")
    result = robustness.measure(tmp_path, test)
    rows = result["rows"]
    assert [(r["distortion"], r["strength"]) for r in rows] == [
        (d.name, s) for d in DISTORTIONS for s in d.strengths
    ]
    zeros = float((test.labels == 0).mean())
    assert all(r["accuracy"] == {"float": 1.0, "int8": zeros} for r in rows)
    assert set(result["models"]) == {"lenet5.keras", "lenet5_int8.tflite"}
    assert json.loads((tmp_path / "robustness.json").read_text()) == result
