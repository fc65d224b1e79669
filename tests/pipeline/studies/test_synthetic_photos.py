"""The generated pictures, and the benchmark that reads them."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.studies import photos
from pipeline.studies.photos import (
    NoDigitRow,
    PhotoBench,
    measure_digits,
    measure_empties,
    raw_resize,
)
from pipeline.studies.synthetic_photos import (
    CONDITIONS,
    NO_DIGIT,
    Photo,
    Scene,
    digit_photos,
    draw_skeleton,
    empty_photos,
    enlarge_mnist,
    render,
)

UInt8 = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def images() -> UInt8:
    """Two bars in MNIST's frame."""
    bars = np.zeros((2, 28, 28), np.uint8)
    bars[:, 4:24, 12:16] = 255
    return bars


def draw(images: UInt8, seed: int, *conditions: str) -> list[Photo]:
    return list(digit_photos(images, np.array([1, 1]), 1, seed, conditions))


@pytest.fixture(scope="module")
def drawn(images: UInt8) -> list[Photo]:
    return draw(images, 5, "pen on white paper", "20 to 60 pixels")


def test_a_seed_draws_the_same_pictures_and_another_others(
    images: UInt8, drawn: list[Photo]
) -> None:
    names = [photo.condition for photo in drawn]
    assert drawn == draw(images, 5, *names)
    others = draw(images, 6, *names)
    assert all(a.data != b.data for a, b in zip(drawn, others, strict=True))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_condition_draws_a_picture_that_decodes(images: UInt8, condition: str) -> None:
    (photo,) = draw(images, 5, condition)
    Image.open(io.BytesIO(photo.data)).load()
    assert (photo.condition, photo.label) == (condition, 1)


def test_every_kind_of_empty_picture_is_drawn_without_a_label_and_blank_ones_are_refused() -> None:
    empties = {photo.condition: photo for photo in empty_photos(per_condition=1, seed=5)}
    assert list(empties) == list(NO_DIGIT)
    assert all(photo.label is None for photo in empties.values())
    for kind in ("blank paper", "nothing on nothing", "tiny blank"):
        assert measure_empties([empties[kind]]) == NoDigitRow(kind, 1, 1)


@pytest.mark.parametrize("label", range(10))
def test_a_skeleton_is_drawn_about_as_high_as_asked(label: int) -> None:
    ink = draw_skeleton(np.random.default_rng(0), label, 200, 0.08)
    rows = np.flatnonzero(ink.max(axis=1) > 0.5)
    assert 180 < np.ptp(rows) < 260


def test_a_thicker_pen_leaves_more_ink() -> None:
    thin, thick = (draw_skeleton(np.random.default_rng(0), 3, 200, pen) for pen in (0.03, 0.15))
    assert thick.sum() > 3 * thin.sum()


def test_an_enlarged_mnist_digit_keeps_its_shape(images: UInt8) -> None:
    ink = enlarge_mnist(images[0], 200)
    rows, columns = np.nonzero(ink > 0.5)
    assert np.ptp(rows) == pytest.approx(200, abs=4)
    assert np.ptp(columns) == pytest.approx(40, abs=4)


def test_exif_turns_the_file_but_not_what_a_viewer_shows() -> None:
    ink = draw_skeleton(np.random.default_rng(0), 7, 60, 0.1)
    shown = []
    for orientation in (1, 6):
        scene = Scene(size=(100, 140), quality=None, noise=0, orientation=orientation)
        file = Image.open(io.BytesIO(render(np.random.default_rng(0), scene, ink)))
        shown.append(file if orientation == 1 else file.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(shown[0]), np.asarray(shown[1]))


def test_raw_resize_turns_light_paper_dark() -> None:
    paper = np.full((100, 80), 230, np.uint8)
    assert raw_resize(paper).max() < 30
    assert np.array_equal(raw_resize(paper), raw_resize(255 - paper))


def test_a_row_counts_what_the_model_reads_right(drawn: list[Photo]) -> None:
    batch = [photo for photo in drawn if photo.condition == "pen on white paper"]
    right = measure_digits(batch, lambda image: 1)
    wrong = measure_digits(batch, lambda image: 2)
    assert (right.n, right.raw_resize_correct, right.find_digit_correct) == (1, 1, 1)
    assert (wrong.n, wrong.raw_resize_correct, wrong.find_digit_correct) == (1, 0, 0)


def test_result_tells_the_shares_over_all_rows(drawn: list[Photo]) -> None:
    row = measure_digits(drawn[:1], lambda image: 1)
    bench = PhotoBench("m.tflite", "0" * 64, 5, (row,), (NoDigitRow("blank paper", 2, 1),), ())
    result = photos.as_json(bench)
    assert (result["accuracy"], result["refused_share"]) == (1.0, 0.5)
    text = photos.format_result(result)
    assert "pen on white paper" in text
    assert "device/photo 100.0%; of 2 without a digit 50.0% are refused." in text
