"""The integer arithmetic of the generated C: TFLite's two roundings, in one step."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.requantization import (
    ArithmeticBoundError,
    quantize_multiplier,
    requantization,
    softmax_table,
)


@pytest.mark.parametrize(
    ("real", "fixed", "exponent"),
    [
        (0.0, 0, 0),
        (0.5, 1 << 30, 0),
        (1.0, 1 << 30, 1),
        (0.25, 1 << 30, -1),
        (0.75, 3 << 29, 0),
        (0.375, 3 << 29, -1),
        (1.0 - 2.0**-33, 1 << 30, 1),  # rounds up to 2^31, which does not fit
        (0.25 - 2.0**-35, 1 << 30, -1),
        (2.0**-40, 0, 0),  # too small for a shift of 31
        (2.0**-32, 1 << 30, -31),
        (2.0**-33, 0, 0),
    ],
)
def test_multiplier_is_split_as_tflite_splits_it(real, fixed, exponent):
    assert quantize_multiplier(real) == (fixed, exponent)
    assert all(type(part) is int for part in quantize_multiplier(real))


def _two_roundings(x, fixed, exponent):
    """The reference in two steps, each rounding half up."""
    high = ((x << max(exponent, 0)) * fixed + (1 << 30)) >> 31
    right = max(-exponent, 0)
    return (high + ((1 << right) >> 1)) >> right


int8 = st.integers(-128, 127)


@given(
    taps=st.lists(st.tuples(int8, int8), min_size=1, max_size=20),
    real=st.floats(2.0**-20, 0.99) | st.sampled_from([2.0**-k for k in range(1, 20)]),
    bias=st.integers(-(2**20), 2**20),
    input_zero_point=int8,
    output_zero_point=int8,
    stored_bias=st.sampled_from([0, 128]),
)
def test_one_folded_shift_equals_two_roundings(
    taps, real, bias, input_zero_point, output_zero_point, stored_bias
):
    """Of what the kernels sum, inputs as they are stored, comes TFLite's output as it is stored."""
    weights, inputs = np.array(taps, np.int64).T
    table = requantization(
        weights[np.newaxis].astype(np.int8),
        np.array([bias]),
        np.array([real]),
        input_zero_point,
        output_zero_point,
        stored_bias,
    )
    stored = int((weights * (inputs + stored_bias)).sum())
    folded = (stored * int(table.multiplier[0]) + int(table.offset[0])) >> int(table.shift[0])
    exact = int((weights * (inputs - input_zero_point)).sum()) + bias
    expected = _two_roundings(exact, *quantize_multiplier(real)) + output_zero_point
    assert folded == expected + stored_bias


@pytest.mark.parametrize("real", [0.99, 0.75, 0.5, 0.3, 0.25, 0.01, 2.0**-9])
def test_sums_around_zero_are_rounded_as_tflite_rounds_them(real):
    table = requantization(np.ones((1, 1), np.int8), np.array([0]), np.array([real]), 0, 0, 0)
    sums = range(-2_000, 2_000)
    folded = [
        (x * int(table.multiplier[0]) + int(table.offset[0])) >> int(table.shift[0]) for x in sums
    ]
    assert folded == [_two_roundings(x, *quantize_multiplier(real)) for x in sums]


def refused(*, taps=1, weight=1, bias=0, real=0.01):
    """Why a channel is refused; None if it is not."""
    weights = np.full((1, taps), weight, np.int8)
    try:
        requantization(weights, np.array([bias]), np.array([real]), 0, 0, 0)
    except ArithmeticBoundError as error:
        return str(error)


LARGEST = 2**30 - 1  # kernels double the sum


def test_a_sum_may_be_as_large_as_32_bits_hold_and_no_larger():
    assert refused(bias=LARGEST - 255) is None
    assert refused(bias=LARGEST - 254) == f"a sum of up to {LARGEST + 1}, doubled, leaves 32 bits"
    assert refused(bias=-LARGEST + 255) is None
    assert "leaves 32 bits" in refused(bias=-LARGEST + 254)
    assert refused(taps=33_000, weight=127) is None
    assert "leaves 32 bits" in refused(taps=33_500, weight=-127)


@pytest.mark.parametrize("real", [-0.5, float("nan"), float("inf")])
def test_multiplier_that_is_none_is_refused(real):
    assert refused(real=real) == f"multiplier {real} is not a finite non-negative number"


def test_multiplier_of_one_and_more_is_refused():
    assert refused(real=1.0 - 2.0**-30) is None
    assert refused(real=1.0) == "multiplier 1.0 is too large"


@pytest.mark.parametrize(("output_zero_point", "fits"), [(0, True), (1, True), (2, False)])
def test_rescaled_sum_beyond_64_bits_is_refused(output_zero_point, fits):
    """The smallest multiplier shifts by 62, and the zero point with it."""
    row = (np.array([[1]], np.int8), np.array([0]), np.array([2.0**-32]))
    if fits:
        assert requantization(*row, 0, output_zero_point, 0).shift.tolist() == [62]
    else:
        with pytest.raises(ArithmeticBoundError, match=r"^a rescaled sum leaves 64 bits$"):
            requantization(*row, 0, output_zero_point, 0)


def test_rescaled_sum_may_be_as_large_as_64_bits_hold_and_no_larger():
    """The zero point, the rounding, the offset of the inputs' zero point and the sum add up."""
    real = 2.0**-32 * 1.9
    fixed, _ = quantize_multiplier(real)
    room = 2**63 - 1 - (1 << 62) - (1 << 61) - (1 << 30)
    taps = room // (2 * fixed * 127 * 255)
    for count, fits in ((taps, True), (taps + 1, False)):
        row = (np.full((1, count), -127, np.int8), np.array([0]), np.array([real]))
        if fits:
            assert requantization(*row, 127, -127, 128).shift.tolist() == [62]
        else:
            with pytest.raises(ArithmeticBoundError, match="64 bits"):
                requantization(*row, 127, -127, 128)


def test_each_channel_has_its_own_constants_in_64_bits():
    table = requantization(
        np.array([[100, 100], [0, -1]], np.int8), np.array([5, 0]), np.array([0.5, 0.0]), 1, 0, 0
    )
    for column in (table.multiplier, table.offset, table.shift, table.bias):
        assert column.dtype == np.int64
    assert table.multiplier.tolist() == [1 << 30, 0]
    assert table.shift.tolist() == [31, 31]
    assert table.bias.tolist() == [5 - 200, 1]
    assert table.offset.tolist() == [(5 - 200) * (1 << 30) + (1 << 30), 1 << 30]
    with pytest.raises(ValueError, match="shorter"):
        requantization(np.ones((2, 1), np.int8), np.array([0]), np.array([0.5, 0.5]), 0, 0, 0)


def test_softmax_table_holds_powers_of_e():
    table = softmax_table(np.float32(np.log(2)))
    assert table.shape == (256,)
    assert table[:3].tolist() == [1.0, 0.5, 0.25]


def test_softmax_table_rounds_each_step_to_float32_before_the_power():
    scale = np.float32(0.173)
    expected = [np.float32(math.exp(float(np.float32(-scale * np.float32(d))))) for d in range(256)]
    table = softmax_table(scale)
    assert table.dtype == np.float32
    assert table.tolist() == expected
