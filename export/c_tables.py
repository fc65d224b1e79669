"""The constants of a LeNet-5 as C: weights in the layouts of c_templates/, and requantization."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.quantized_lenet5 import Activation, Layer, QuantizedLenet5
from export.requantization import requantization, softmax_table

LANES = 16  # output channels side by side in every packed layout
DENSE_TILE = 128  # outputs whose sums dense_tile_vnni holds in registers
DENSE_DEPTH = 8  # inputs that madd.c.in may take at once

# Which kernels read a table.
PORTABLE = "defined(KERNELS_PORTABLE)"
WIDE = "defined(KERNELS_WIDE)"
NOT_WIDE = "!defined(KERNELS_WIDE)"
MADD = "defined(KERNELS_MADD)"
DSP = "defined(KERNELS_DSP)"
VNNI = "defined(KERNELS_AVX512VNNI)"
TWO_STEPS = f"!{VNNI} || {MADD}"  # how they requantize
GROUPS = "defined(KERNELS_AVX512VNNI) || defined(KERNELS_NEONDOT)"
NEON = "defined(KERNELS_NEON)"


def tables(model: QuantizedLenet5) -> str:
    """All constants of the C file, as definitions, or ArithmeticBoundError."""
    conv1, conv2, *dense = model.layers
    parts = [
        _requantization("conv1", conv1),
        _guarded(PORTABLE, "int32_t", "conv1_rows", conv1.weights),
        _guarded(MADD, "int16_t", "conv1_points", pack_image_points(conv1.weights)),
        _guarded(DSP, "int32_t", "conv1_words", pack_image_words(conv1.weights)),
        _guarded(GROUPS, "int8_t", "conv1_groups", pack_image_groups(conv1.weights)),
        _guarded(NEON, "int8_t", "conv1_spread", pack_image_spread(conv1.weights)),
        _requantization("conv2", conv2),
        _guarded(PORTABLE, "int32_t", "conv2_rows", conv2.weights),
        _guarded(MADD, "int16_t", "conv2_points", pack_conv_points(conv2.weights)),
        _guarded(DSP, "int32_t", "conv2_words", pack_conv_words(conv2.weights)),
        _guarded(GROUPS, "int8_t", "conv2_groups", pack_conv_groups(conv2.weights)),
        _guarded(NEON, "int8_t", "conv2_rows", pack_conv_rows(conv2.weights)),
    ]
    for number, layer in enumerate(dense, 1):
        parts += [
            _requantization(f"dense{number}", layer),
            _guarded(NOT_WIDE, "int8_t", f"dense{number}_rows", pack_dense_rows(layer.weights)),
            _guarded(WIDE, "int8_t", f"dense{number}_groups", pack_dense(layer.weights)),
        ]
    pixels = quantize_pixels(model.image)
    usual = int(np.array_equal(pixels, np.arange(256) - 128))  # scale 1/255, zero point -128
    parts += [
        _array("float", "exponentials", softmax_table(model.logits.scale)),
        _array("int8_t", "quantized_pixels", pixels),
        f"enum {{ PIXEL_MINUS_128 = {usual} }}; /* the int8 input of a pixel is this */",
    ]
    return "\n".join(parts)


def quantize_pixels(image: Activation) -> NDArray[np.int8]:
    """int8 input of each 8-bit pixel value: pixel / 255, quantized as in the runner."""
    real = np.arange(256, dtype=np.float32) / np.float32(255)
    steps = np.round(real / image.scale) + image.zero_point
    pixels: NDArray[np.int8] = np.minimum(steps, 127).astype(np.int8)  # none is below -128
    return pixels


# --- Layouts of weights -------------------------------------------------------------------------


def at_points(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """(channels, rows, 5 taps, ...) -> (channels, rows, 6 points, ...).

    24 times the polynomials with the taps as coefficients at 0, 1, -1, 2, -2 and infinity, divided
    as Lagrange's interpolation needs it: what `to_points` of madd.c.in gives the inputs belongs
    to it. At most 31 times a weight.
    """
    points = np.vander([0, 1, -1, 2, -2], increasing=True) * [[6], [-4], [-4], [1], [1]]
    matrix = np.append(points, [[0, 0, 0, 0, 24]], axis=0)  # (6 points, 5 taps)
    values = np.tensordot(matrix, weights, (1, 2))  # (6, channels, rows, ...)
    return np.moveaxis(values, 0, 2).astype(np.int16)


def pack_image_points(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """(6, 5, 5, 1) -> [6 points][6][even, odd][3 pairs of rows]; odd starts with a zero row."""
    rows = at_points(weights[..., 0]).transpose(2, 0, 1)  # (6 points, 6, 5 rows)
    return np.stack([np.pad(rows, [(0, 0), (0, 0), pad]) for pad in ((0, 1), (1, 0))], axis=2)


def pack_conv_points(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """(16, 5, 5, 6) -> [6 points][5 rows][3 pairs of inputs][16 channels][2]."""
    return at_points(weights).reshape(16, 5, 6, 3, 2).transpose(2, 1, 3, 0, 4)


def pack_image_words(weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """(6, 5, 5, 1) -> [6][5 rows][even, odd][3 words of 2 taps]; odd starts with a zero."""
    taps = weights[..., 0]
    both = np.stack([np.pad(taps, [(0, 0), (0, 0), pad]) for pad in ((0, 1), (1, 0))], axis=2)
    return _words(both)


def pack_conv_words(weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """(16, 5, 5, 6) -> [8][75][2 channels] words of 2 taps."""
    return _words(weights.reshape(8, 2, 150)).transpose(0, 2, 1)


def _words(taps: NDArray[np.int8]) -> NDArray[np.int32]:
    """Two neighbouring taps on the last axis as two int16 in 32 bits, the first one lower."""
    return np.ascontiguousarray(taps, "<i2").view("<i4")


def pack_image_groups(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(6, 5, 5, 1) -> [6][8 groups][4 taps].

    Groups 0 to 4: the first four taps of each row. Group 5: the last taps of rows 0 to 3.
    Group 6: the last tap of row 4, and three zeros. Group 7: zeros.
    """
    taps = weights[..., 0]
    last_column = np.pad(taps[:, :, 4], [(0, 0), (0, 7)]).reshape(6, 3, 4)
    return np.concatenate([taps[:, :, :4], last_column], axis=1)


def pack_image_spread(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(6, 5, 5, 1) -> [6][7 groups][4 times the same][4 taps]."""
    return np.repeat(pack_image_groups(weights)[:, :7, None], 4, axis=2)


def pack_conv_groups(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(16, 5, 5, 6) -> [5 rows][8 groups][16 channels][4]; a group stays within a row."""
    taps = _pad(weights.reshape(16, 5, 30), 2, 4)
    return taps.reshape(16, 5, 8, 4).transpose(1, 2, 0, 3)


def pack_conv_rows(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(16, 5, 5, 6) -> [2 halves of the channels][5 rows][2 halves of a row][8 channels][16]."""
    taps = _pad(weights.reshape(16, 5, 30), 2, 16).reshape(2, 8, 5, 2, 16)
    return taps.transpose(0, 2, 3, 1, 4)


def pack_dense_rows(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, inputs) -> [outputs / 8][inputs / 16][8][16], both padded to a multiple of 16."""
    padded = _pad(_pad(weights, 1, 16), 0, 16)
    return padded.reshape(len(padded) // 8, 8, -1, 16).transpose(0, 2, 1, 3)


def pack_dense(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, inputs) -> flat tiles of at most 128 outputs, each [inputs / 4][outputs][4]."""
    padded = _pad(_pad(weights, 1, DENSE_DEPTH), 0, LANES)
    tiles = [padded[start : start + DENSE_TILE] for start in range(0, len(padded), DENSE_TILE)]
    return np.concatenate(
        [tile.reshape(len(tile), -1, 4).transpose(1, 0, 2).ravel() for tile in tiles]
    )


def _pad(array: NDArray[Any], axis: int, multiple: int) -> NDArray[Any]:
    """Zeros at the end of an axis, up to a multiple."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % multiple)
    return np.pad(array, widths)


# --- C text -------------------------------------------------------------------------------------


def _requantization(name: str, layer: Layer) -> str:
    """A layer's `requantization`, in both of its forms."""
    numbers = {
        stored_bias: requantization(
            layer.weights.reshape(len(layer.weights), -1),
            layer.bias,
            layer.multipliers,
            layer.source.zero_point,
            layer.result.zero_point,
            stored_bias,
        )
        for stored_bias in (128, 0)
    }
    multiplier, shift = numbers[0].multiplier, numbers[0].shift  # the same for both
    zero_point = layer.result.zero_point
    lowest = zero_point if layer.relu else -128

    def array(kind: str, part: str, values: NDArray[Any]) -> str:
        return _array(kind, f"{name}_{part}", _pad(values, 0, LANES))

    return f"""\
{array("int32_t", "multiplier", multiplier)}
#if {VNNI}
{array("int32_t", "whole_shift", shift)}
{array("int64_t", "offset", numbers[128].offset)}
static const folded_vnni {name}_folded = {{
    {name}_multiplier, {name}_offset, {name}_whole_shift, {lowest} + STORED_BIAS}};
#endif
#if {TWO_STEPS}
{array("int32_t", "shift", shift - 31)}
#if STORED_BIAS == 128
{array("int32_t", "bias", numbers[128].bias)}
#else
{array("int32_t", "bias", numbers[0].bias)}
#endif
{_guarded(MADD, "int32_t", f"{name}_scale", _pad(2**30 >> (shift - 31), 0, LANES))}
static const requantization {name}_requantization = {{
    {name}_multiplier, {name}_bias, {name}_shift,
#if {MADD}
    {name}_scale,
#endif
    {zero_point} + STORED_BIAS, {lowest} + STORED_BIAS}};
#endif"""


def _guarded(condition: str, kind: str, name: str, values: NDArray[Any]) -> str:
    return f"#if {condition}\n{_array(kind, name, values)}\n#endif"


def _array(kind: str, name: str, values: NDArray[Any]) -> str:
    """A constant array of a C type, in lines of at most 100 characters."""
    if kind == "float":
        items = [f"{float(value).hex()}f" for value in values]
    elif kind == "int64_t":
        items = [f"INT64_C({value})" for value in values]
    else:
        items = [str(value) for value in values.ravel()]
    text = textwrap.fill(", ".join(items), 100, initial_indent="    ", subsequent_indent="    ")
    return f"static const {kind} {name}[{len(items)}] = {{\n{text}}};"
