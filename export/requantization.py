"""The integer arithmetic that turns a sum of products back into an int8 activation.

TFLite multiplies by a 31-bit fixed-point number and shifts, rounding twice. With both roundings
half up, as the default kernels of tflite-runtime 2.14 do, the two steps equal one:

    (((x * m + 2^30) >> 31) + 2^(r-1)) >> r  ==  (x * m + 2^30 + 2^(30+r)) >> (31 + r)

because floor(floor(a / n) / k) = floor(a / (n * k)). Everything else that is added before or
after (bias, zero points) joins the same 64-bit offset, so the AVX-512 kernels compute

    stored output = clamp((sum(stored input * weight) * multiplier + offset) >> shift).

The others keep the two steps apart: on ARM each is one instruction, and elsewhere the steps fit
32-bit lanes. They need the bias of the sum and the second shift alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


class ArithmeticBoundError(ValueError):
    """A sum of this model could leave the range in which the integer arithmetic is exact."""


@dataclass(frozen=True)
class Requantization:
    """Constants of one layer, one entry per output channel."""

    multiplier: NDArray[np.int64]  # 31-bit fixed-point factors, 0 or in [2^30, 2^31)
    offset: NDArray[np.int64]  # for activations stored as int8 + stored_bias
    shift: NDArray[np.int64]  # 31..62
    bias: NDArray[np.int64]  # of the sum of such activations, within int32


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Split a non-negative multiplier as QuantizeMultiplier of TFLite's quantization_util.cc.

    Returns:
        (fixed, exponent) with real ~= fixed * 2^(exponent - 31).
    """
    if real == 0.0:
        return 0, 0
    fraction, exponent = math.frexp(real)
    fixed = math.floor(fraction * 2**31 + 0.5)
    if fixed == 2**31:
        fixed //= 2
        exponent += 1
    if exponent < -31:
        return 0, 0
    return fixed, exponent


def requantization(
    weights: NDArray[np.int8],
    bias: NDArray[np.int64],
    multipliers: NDArray[np.float64],
    input_zero_point: int,
    output_zero_point: int,
    stored_bias: int,
) -> Requantization:
    """Fold a layer's constants and check that no intermediate can overflow.

    Args:
        weights: int8, (out_channels, taps).
        bias: int32 values, (out_channels,).
        multipliers: Real multipliers, (out_channels,).
        input_zero_point: int8 that stands for 0.0 at the input.
        output_zero_point: int8 that stands for 0.0 at the output.
        stored_bias: What the kernels add to an int8 activation in memory (0 or 128).

    Raises:
        ArithmeticBoundError: A sum could leave int32, or a product int64.
    """
    columns: list[tuple[int, int, int, int]] = []
    for row, b, real in zip(weights.astype(np.int64), bias, multipliers, strict=True):
        if not (math.isfinite(real) and real >= 0.0):
            raise ArithmeticBoundError(f"multiplier {real} is not a finite non-negative number")
        fixed, exponent = quantize_multiplier(float(real))
        magnitude = int(np.abs(row).sum())
        if exponent > 0:  # the output's range would be a fraction of what one weight reaches
            raise ArithmeticBoundError(f"multiplier {real} is too large")
        # Any input byte is at most 255 steps from the zero point, stored or not. Kernels double
        # the sum, and add up to 2^30 to the product's upper half before they shift it.
        bound = magnitude * 255 + abs(int(b))
        if 2 * bound > INT32_MAX:
            raise ArithmeticBoundError(f"a sum of up to {bound}, doubled, leaves 32 bits")
        shift = 31 - exponent
        rounding = (1 << 30) + (1 << (30 - exponent)) if exponent < 0 else 1 << 30
        true_bias = int(b) - (input_zero_point + stored_bias) * int(row.sum())
        offset = true_bias * fixed + rounding + ((output_zero_point + stored_bias) << shift)
        if abs(offset) + magnitude * 255 * fixed > INT64_MAX:
            raise ArithmeticBoundError("a rescaled sum leaves 64 bits")
        columns.append((fixed, offset, shift, true_bias))
    table = np.array(columns, np.int64)
    return Requantization(*table.T)


def softmax_table(scale: np.float32) -> NDArray[np.float32]:
    """exp(-scale * d) for d = 0..255, in float32 as TFLite fills its table for int8 logits."""
    steps = -scale * np.arange(256, dtype=np.float32)
    return np.exp(steps.astype(np.float64)).astype(np.float32)
