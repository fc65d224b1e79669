"""The numbers in the generated C are read back and compared with the model's, one by one."""

import re

import numpy as np
import pytest

from pipeline.artifacts import INT8_TFLITE, NATIVE_SOURCE
from pipeline.parity import c_numbers
from pipeline.parity.c_layers import difference
from pipeline.parity.c_numbers import compare, wrong_numbers


@pytest.fixture(scope="module")
def tables(exported):
    """What the C holds, and what it must hold."""
    found = c_numbers.read_tables((exported / NATIVE_SOURCE).read_text())
    return found, c_numbers.expected(exported / INT8_TFLITE)


def test_the_generated_c_holds_the_models_numbers(exported):
    assert wrong_numbers(exported / NATIVE_SOURCE, exported / INT8_TFLITE) == ""


@pytest.mark.parametrize(
    "change",
    [lambda n: n + 1, lambda n: n - 16, lambda n: n + max(1, abs(n) // 10**6)],
    ids=["1 more", "16 less", "a millionth"],
)
def test_one_changed_number_in_any_table_is_found_and_named(tables, change):
    found, wanted = tables
    rng = np.random.default_rng(26)
    assert compare(found, wanted) == ""
    numbers = {key: values for key, values in found.items() if values.dtype.kind == "i"}
    assert len(numbers) == 53
    for (name, condition), values in numbers.items():
        mutant, at = values.copy(), rng.integers(len(values))
        mutant[at] = change(int(mutant[at]))
        said = compare({**found, (name, condition): mutant}, wanted)
        # A word of two weights may carry into its upper one.
        assert re.match(f"{name} differs from the model in [12] of ", said), said


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("    -1, ", "    -2, ", " differs from the model in 1 of "),
        ("-128 + STORED_BIAS}", "-127 + STORED_BIAS}", "conv1_folded differs from"),
        ("conv1_points[", "conv1_values[", "its tables are not a LeNet-5's: ('conv1_"),
        ("conv1_rows[150]", "conv1_rows[151]", "its numbers cannot be compared (ValueError: "),
        ("PIXEL_MINUS_128 = 1", "PIXEL_MINUS_128 = 0", "PIXEL_MINUS_128 differs from"),
        ("0x1.0000000000000p+0f", "0x1.0000000000001p+0f", "exponentials differs from"),
    ],
)
def test_what_is_no_table_of_the_model_is_named(exported, old, new, found, tmp_path):
    text = (exported / NATIVE_SOURCE).read_text()
    assert old in text
    path = tmp_path / "lenet5_int8.c"
    path.write_text(text.replace(old, new, 1))
    assert found in wrong_numbers(path, exported / INT8_TFLITE)


def test_first_layer_that_differs_is_named_with_its_first_value():
    right = np.zeros((2, 5), np.int8)
    wrong = right.copy()
    wrong[1, 3:] = 7
    sizes = {"conv1": 3, "dense1": 2}
    assert difference(sizes, right, right) == ""
    assert difference(sizes, wrong, right) == (
        "layer dense1 differs in 2 of 4 values; the first is value 0 of image 1: 7, not 0"
    )
    assert "shape" in difference(sizes, wrong[:1], right)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2, 0, 0], ""),
        ([1, 2, 0, 3], "a differs from the model in 1 of 4 numbers; the first is 3, not 0"),
        ([2, 2, 0, 4], "a differs from the model in 2 of 4 numbers; the first is 2, not 1"),
        ([1], "a () has another size than its kernels take"),
    ],
)
def test_table_holds_the_models_numbers_and_then_zeros(values, said):
    wanted = {("a", ""): np.array([1, 2])}
    assert compare({("a", ""): np.array(values)}, wanted) == said
    assert "its tables are not a LeNet-5's: ('b'" in compare({**wanted, ("b", ""): []}, wanted)


def test_tables_are_read_with_the_conditions_that_they_stand_under():
    text = """\
#if A
#if B
static const int8_t t[2] = {
    -1,
    2};
#else
static const int64_t t[1] = {
    INT64_C(3)};
#endif
static const float f[1] = {
    0x1.8p+1f};
#endif
static const int8_t t[1] = {
    4};
"""
    read = {key: values.tolist() for key, values in c_numbers.read_tables(text).items()}
    assert read == {
        ("t", "A and B"): [-1, 2],
        ("t", "A and not B"): [3],
        ("f", "A"): [3.0],
        ("t", ""): [4],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("static const int8_t t[2] = {\n1};", "t is there twice, or has not the 2 numbers it says"),
        ("static const int8_t t[1] = {\n1};\n" * 2, "t is there twice"),
        ("static const int8_t t[1] = {\n1,", "a table does not end"),
    ],
)
def test_text_that_holds_other_tables_than_it_says_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        c_numbers.read_tables(text)
