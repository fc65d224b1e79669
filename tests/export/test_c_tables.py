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


def test_tables_read_back_are_the_models_numbers(model):
    text = c_tables.tables(read_lenet5(model))
    assert compare(read_tables(text), expected(model)) == ""
    assert max(len(line.removesuffix("};")) for line in text.splitlines()) == 100
    for kind, name in re.findall(r"^static const (\w+) (\w+)\[", text, re.MULTILINE):
        assert re.fullmatch(KINDS[kind], name), (kind, name)


def test_weights_are_padded_with_zeros_up_to_the_next_multiple():
    assert c_tables._pad(np.ones((1, 3)), 1, 2).tolist() == [[1, 1, 1, 0]]
    assert c_tables._pad(np.ones((1, 4)), 1, 4).tolist() == [[1, 1, 1, 1]]
