"""The constants of the C are the model's, in the layouts that its kernels read."""

import re

import numpy as np
import pytest
from random_models import realistic_lenet5

from export import c_tables
from export.quantized_lenet5 import read_lenet5
from pipeline.parity.c_numbers import compare, expected, read_tables

MODELS = {
    "usual": {},
    "odd": {"classes": 130, "image": (0.0045, -100), "zero_points": (-100, -90, 3, -128, 5)},
}

# The type that the kernels read.
KINDS = {
    "float": "exponentials",
    "int8_t": r"quantized_pixels|conv\d_(groups|spread)|conv2_rows|dense\d_(rows|groups)",
    "int16_t": r"conv\d_pairs",
    "int32_t": r"conv\d_(rows|words)|\w+_(multiplier|shift|bias)",
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


def test_long_table_is_wrapped_at_100_characters():
    lines = c_tables._array("int8_t", "x", np.array([-100, -100, *[-10] * 18])).splitlines()
    assert lines == [
        "static const int8_t x[20] = {",
        "    -100, -100, " + ", ".join(["-10"] * 17) + ",",
        "    -10};",
    ]
    assert len(lines[1]) == 100


def test_weights_are_padded_with_zeros_up_to_the_next_multiple():
    assert c_tables._pad(np.ones((1, 3)), 1, 2).tolist() == [[1, 1, 1, 0]]
    assert c_tables._pad(np.ones((1, 4)), 1, 4).tolist() == [[1, 1, 1, 1]]
