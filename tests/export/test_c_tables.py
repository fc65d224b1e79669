"""The constants of the C are the model's, in the layouts that its kernels read."""

import re

import numpy as np
import pytest
from random_models import realistic_lenet5

from export import c_tables
from export.quantized_lenet5 import Activation, read_lenet5
from pipeline.parity.c_numbers import compare, expected, read_tables

MODELS = {
    "usual": {},
    "odd": {"classes": 130, "image": (0.0045, -100), "zero_points": (-100, -90, 3, -128, 5)},
}

# The type that the kernels read.
KINDS = {
    "float": "exponentials",
    "int8_t": r"quantized_pixels|conv\d_(groups|spread)|conv2_rows|dense\d_(rows|groups)",
    "int16_t": r"conv\d_points",
    "int32_t": r"conv\d_(rows|words)|\w+_(multiplier|shift|bias|scale)",
    "int64_t": r"\w+_offset",
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.tflite"
    path.write_bytes(realistic_lenet5(**MODELS[request.param]))
    return path


def test_tables_read_back_are_the_models_numbers(model, monkeypatch):
    # Wrapping takes most of the time, and this test runs for each of many mutants.
    monkeypatch.setattr(c_tables.textwrap, "fill", lambda text, width, **indents: text)
    text = c_tables.tables(read_lenet5(model))
    assert compare(read_tables(text), expected(model)) == ""
    for kind, name in re.findall(r"^static const (\w+) (\w+)\[", text, re.MULTILINE):
        assert re.fullmatch(KINDS[kind], name), (kind, name)


CONV1, CONV2 = np.ones((6, 5, 5, 1), np.int8), np.ones((16, 5, 5, 6), np.int8)


def test_layouts_have_the_shape_that_their_kernels_step_through():
    assert c_tables.pack_image_points(CONV1).shape == (6, 6, 2, 6)
    assert c_tables.pack_image_words(CONV1).shape == (6, 5, 2, 3)
    assert c_tables.pack_image_groups(CONV1).shape == (6, 8, 4)
    assert c_tables.pack_image_spread(CONV1).shape == (6, 7, 4, 4)
    assert c_tables.pack_conv_points(CONV2).shape == (6, 5, 3, 16, 2)
    assert c_tables.pack_conv_groups(CONV2).shape == (5, 8, 16, 4)
    assert c_tables.pack_conv_words(CONV2).shape == (8, 75, 2)
    assert c_tables.pack_conv_rows(CONV2).shape == (2, 5, 2, 8, 16)
    assert c_tables.pack_dense_rows(np.ones((120, 400), np.int8)).shape == (16, 25, 8, 16)
    assert c_tables.pack_dense(np.ones((130, 84), np.int8)).shape == (128 * 88 + 16 * 88,)


@pytest.mark.parametrize(
    ("scale", "zero_point", "pixel", "step"),
    [
        (2 / 255, 0, 1, 0),  # ties go to even
        (2 / 255, 0, 3, 2),  # in float64: 1
        (1 / 400, -128, 254, 127),
        (1 / 255, -128, 255, 127),
        (1 / 255, -128, 0, -128),
    ],
)
def test_pixels_are_quantized_in_float32_and_end_at_127(scale, zero_point, pixel, step):
    pixels = c_tables.quantize_pixels(Activation(1, np.float32(scale), zero_point))
    assert (pixels.dtype, pixels[pixel]) == (np.int8, step)


@pytest.mark.parametrize(("wide", "narrow", "length"), [(2, 17, 100), (3, 15, 96)])
def test_long_table_is_wrapped_before_101_characters(wide, narrow, length):
    lines = c_tables._array("int8_t", "x", np.array([*[-100] * wide, *[-10] * 18])).splitlines()
    items = ["-100,"] * wide + ["-10,"] * 17 + ["-10};"]
    assert lines[0] == f"static const int8_t x[{wide + 18}] = {{"
    assert [line.split() for line in lines[1:]] == [items[: wide + narrow], items[wide + narrow :]]
    assert [len(line) - len(line.lstrip()) for line in lines[1:]] == [4, 4]
    assert len(lines[1]) == length


def test_numbers_of_64_bits_are_written_as_such():
    text = c_tables._array("int64_t", "x", np.array([-(2**62), 1]))
    assert text == "static const int64_t x[2] = {\n    INT64_C(-4611686018427387904), INT64_C(1)};"


def test_weights_are_padded_with_zeros_up_to_the_next_multiple():
    assert c_tables._pad(np.ones((1, 3)), 1, 2).tolist() == [[1, 1, 1, 0]]
    assert c_tables._pad(np.ones((1, 4)), 1, 4).tolist() == [[1, 1, 1, 1]]
