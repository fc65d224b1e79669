"""The generated pictures, and the benchmark that reads them."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.studies import photos
from pipeline.studies.photos import NoDigitRow, measure_digits, measure_empties, raw_resize
from pipeline.studies.synthetic_photos import (
    CONDITIONS,
    NO_DIGIT,
    Scene,
    digit_photos,
    draw_skeleton,
    empty_photos,
    render,
)


@pytest.fixture(scope="module")
def images():
    """Two bars in MNIST's frame."""
    bars = np.zeros((2, 28, 28), np.uint8)
    bars[:, 4:24, 12:16] = 255
    return bars


def draw(images, seed, *conditions):
    labels = np.array([1, 1])
    return [photo for c in conditions for photo in digit_photos(c, images, labels, 1, seed)]


@pytest.fixture(scope="module")
def drawn(images):
    return draw(images, 5, "pen on white paper", "20 to 60 pixels")


def test_a_seed_draws_the_same_pictures_and_another_others(images, drawn):
    names = [photo.condition for photo in drawn]
    assert drawn == draw(images, 5, *names)
    others = draw(images, 6, *names)
    assert all(a.data != b.data for a, b in zip(drawn, others, strict=True))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_draws_a_picture_that_decodes(images, condition):
    (photo,) = draw(images, 5, condition)
    Image.open(io.BytesIO(photo.data)).load()
    assert (photo.condition, photo.label) == (condition, 1)


def test_every_kind_of_empty_picture_is_drawn_without_a_label_and_blank_ones_are_refused():
    empties = {kind: next(empty_photos(kind, 1, seed=5)) for kind in NO_DIGIT}
    assert all((p.condition, p.label) == (kind, None) for kind, p in empties.items())
    for kind in ("blank paper", "nothing on nothing", "tiny blank"):
        assert measure_empties([empties[kind]]) == NoDigitRow(kind, 1, 1)


def test_exif_turns_the_file_but_not_what_a_viewer_shows():
    ink = draw_skeleton(np.random.default_rng(0), 7, 60, 0.1)
    shown = []
    for orientation in (1, 6):
        scene = Scene(size=(100, 140), quality=None, noise=0, orientation=orientation)
        file = Image.open(io.BytesIO(render(np.random.default_rng(0), scene, ink)))
        shown.append(file if orientation == 1 else file.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(shown[0]), np.asarray(shown[1]))


def test_raw_resize_turns_light_paper_dark():
    paper = np.full((100, 80), 230, np.uint8)
    assert raw_resize(paper).max() < 30
    assert np.array_equal(raw_resize(paper), raw_resize(255 - paper))


def test_a_row_counts_what_the_model_reads_right(drawn):
    batch = [photo for photo in drawn if photo.condition == "pen on white paper"]
    right = measure_digits(batch, lambda image: 1)
    wrong = measure_digits(batch, lambda image: 2)
    assert (right.n, right.raw_resize_correct, right.find_digit_correct) == (1, 1, 1)
    assert (wrong.n, wrong.raw_resize_correct, wrong.find_digit_correct) == (1, 0, 0)


def test_result_tells_the_shares_over_all_rows(drawn, tmp_path):
    row, model = measure_digits(drawn[:1], lambda image: 1), tmp_path / "m.tflite"
    model.touch()
    result = photos.as_json(model, [row], [NoDigitRow("blank paper", 2, 1)], [])
    assert (result["accuracy"], result["refused_share"]) == (1.0, 0.5)
    text = photos.format_result(result)
    assert "pen on white paper" in text
    assert "of 2 without a digit it refuses 50.0%." in text
