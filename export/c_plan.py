"""Turn the layers of a model into kernel calls of c_templates/, with their packed constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export import c_packing as packing
from export.c_text import array_text, guard_text, struct_text
from export.requantization import requantization, softmax_table
from export.tflite_graph import Conv2D, Dense, Graph, Pool2D, Softmax

SLACK_BYTES = 128  # SLACK of common.c.in: readable bytes behind every buffer
STORED_BIAS = {"x86": 128, "other": 0}  # as in platform.c.in
MAX_FUSED_WINDOW = 20  # positions that conv_tile_vnni holds in registers

PORTABLE = "defined(KERNELS_PORTABLE)"
MADD = "defined(KERNELS_MADD)"
GROUPS = "defined(KERNELS_AVX512VNNI) || defined(KERNELS_ARM)"
NOT_PORTABLE = "!defined(KERNELS_PORTABLE)"

# Kernel family -> suffixes and the macro that compiles them in.
FAMILIES = {
    "portable": {"portable": "KERNELS_PORTABLE"},
    "madd": {"sse2": "KERNELS_SSE2", "avx2": "KERNELS_AVX2"},
    "groups": {"vnni": "KERNELS_AVX512VNNI", "neon": "KERNELS_ARM"},
}


@dataclass(frozen=True)
class Step:
    """One kernel call of the generated network.

    Attributes:
        tables: C definitions of its constants.
        calls: Kernel family -> C call, with {src} and {dst} for the two buffers and {isa} for
            the kernel's suffix.
        out_bytes: Bytes it writes into its output buffer.
        wide_bytes: Bytes it needs in the working area, for int16 inputs.
        rows: (channels, depth) of a convolution's portable weights.
    """

    tables: str
    calls: dict[str, str]
    out_bytes: int
    wide_bytes: int = 0
    rows: tuple[int, int] = (1, 1)


def plan(graph: Graph) -> list[Step]:
    """Turn layers into kernel calls, with max pooling fused into convolutions where it is exact.

    Requantization never falls when a sum rises (the multiplier is not negative and is the same
    within a channel), so the maximum of the sums requantizes to the maximum of the outputs.
    """
    steps: list[Step] = []
    layers = list(graph.layers)
    index = 0
    while index < len(layers):
        layer, label = layers[index], f"layer{index}"
        following = layers[index + 1] if index + 1 < len(layers) else None
        index += 1
        if isinstance(layer, Conv2D):
            pool = following if isinstance(following, Pool2D) and _fusable(following) else None
            index += pool is not None
            if any(layer.padding):
                steps.append(_pad_step(layer))
            steps.append(_conv_step(layer, pool, label))
        elif isinstance(layer, Pool2D):
            steps.append(_pool_step(layer, label))
        elif isinstance(layer, Dense):
            steps.append(_dense_step(layer, label))
        else:
            steps.append(_softmax_step(layer, label))
    return steps


def _fusable(pool: Pool2D) -> bool:
    window = pool.window[0] * pool.window[1]
    return (
        pool.kind == "max"
        and pool.stride == pool.window
        and not any(pool.padding)
        and window <= MAX_FUSED_WINDOW
    )


def _same_call(call: str) -> dict[str, str]:
    return dict.fromkeys(FAMILIES, call)


def _pad_step(conv: Conv2D) -> Step:
    height, width, depth = conv.source.shape
    top, bottom, left, right = conv.padding
    call = (
        f"pad2d({{src}}, {{dst}}, {height}, {width * depth}, {top}, {bottom}, {left * depth}, "
        f"{right * depth}, to_stored({conv.source.zero_point}));"
    )
    return Step("", _same_call(call), (height + top + bottom) * (width + left + right) * depth)


def _conv_step(conv: Conv2D, pool: Pool2D | None, label: str) -> Step:
    height, width, depth = conv.source.shape
    height += conv.padding[0] + conv.padding[1]
    width += conv.padding[2] + conv.padding[3]
    channels, kernel_height, kernel_width, _ = conv.weights.shape
    window = pool.window if pool else (1, 1)
    out_height, out_width, _ = pool.result.shape if pool else conv.result.shape
    shape = {
        "in_width": width,
        "in_height": height,
        "in_channels": depth,
        "kernel_height": kernel_height,
        "kernel_width": kernel_width,
        "stride_y": conv.stride[0],
        "stride_x": conv.stride[1],
        "out_channels": channels,
        "pool_height": window[0],
        "pool_width": window[1],
        "out_height": out_height,
        "out_width": out_width,
    }
    # A one-channel image has its own kernels: pixels, not channels, side by side in a vector.
    image = width == 32 and depth == 1 and conv.stride == (1, 1) and window == (2, 2)
    image_5x5 = image and conv.weights.shape[1:3] == (5, 5)
    clamp = conv.clamp
    if pool:
        # max, then clamp to both ranges, in the order of the two operators.
        low = min(max(clamp[0], pool.clamp[0]), pool.clamp[1])
        clamp = (low, max(min(clamp[1], pool.clamp[1]), low))
    rows = packing.pack_rows(conv.weights)
    pairs = (packing.pack_image_pairs if image else packing.pack_conv_pairs)(conv.weights)
    groups = (packing.pack_image_groups if image_5x5 else packing.pack_conv_groups)(conv.weights)
    tables = [
        struct_text("conv_shape", f"{label}_shape", shape),
        _requantization_tables(conv, clamp, label),
        guard_text(PORTABLE, array_text("int16_t", f"{label}_rows", rows)),
        guard_text(MADD, array_text("int16_t", f"{label}_pairs", pairs)),
        guard_text(GROUPS, array_text("int8_t", f"{label}_groups", groups)),
    ]
    start = f"({{src}}, {{dst}}, &{label}_shape, {label}_"
    end = f", &{label}_requantization"
    calls = {
        "portable": f"conv_portable{start}rows, {rows.shape[1]}{end});",
        "madd": ("conv_image_pool2" if image else "conv")
        + f"_{{isa}}{start}pairs{end}, (int16_t *)(void *)wide);",
        "groups": ("conv5x5_pool2" if image_5x5 else "conv") + f"_{{isa}}{start}groups{end});",
    }
    out_bytes = out_height * out_width * channels
    wide_bytes = 2 * (height * width * depth + SLACK_BYTES)
    return Step("\n".join(tables), calls, out_bytes, wide_bytes, rows.shape)


def _pool_step(pool: Pool2D, label: str) -> Step:
    shape = {
        "in_height": pool.source.shape[0],
        "in_width": pool.source.shape[1],
        "channels": pool.source.shape[2],
        "window_height": pool.window[0],
        "window_width": pool.window[1],
        "stride_y": pool.stride[0],
        "stride_x": pool.stride[1],
        "pad_top": pool.padding[0],
        "pad_left": pool.padding[2],
        "out_height": pool.result.shape[0],
        "out_width": pool.result.shape[1],
        "low": pool.clamp[0],
        "high": pool.clamp[1],
    }
    table = struct_text("pool_shape", f"{label}_shape", shape)
    call = f"{pool.kind}_pool({{src}}, {{dst}}, &{label}_shape);"
    return Step(table, _same_call(call), pool.result.size)


def _dense_step(dense: Dense, label: str) -> Step:
    outputs, inputs = dense.weights.shape
    rows = packing.pack_rows(dense.weights)
    tables = [
        _requantization_tables(dense, dense.clamp, label),
        guard_text(PORTABLE, array_text("int8_t", f"{label}_rows", rows)),
        guard_text(
            NOT_PORTABLE, array_text("int8_t", f"{label}_groups", packing.pack_dense(dense.weights))
        ),
    ]
    packed_outputs = packing.round_up(outputs, packing.LANES)
    packed = (
        f"dense_{{isa}}({{src}}, {{dst}}, {packing.round_up(inputs, 4)}, {packed_outputs}, "
        f"{label}_groups, &{label}_requantization"
    )
    calls = {
        "portable": f"dense_portable({{src}}, {{dst}}, {rows.shape[1]}, {outputs}, "
        f"{label}_rows, &{label}_requantization);",
        "madd": f"{packed}, (int16_t *)(void *)wide);",
        "groups": f"{packed});",
    }
    return Step("\n".join(tables), calls, packed_outputs, 2 * (inputs + SLACK_BYTES))


def _softmax_step(softmax: Softmax, label: str) -> Step:
    table = softmax_table(softmax.source.scale, softmax.beta)
    call = f"softmax({{src}}, {{dst}}, {softmax.source.size}, {label}_exponential);"
    return Step(
        array_text("float", f"{label}_exponential", table), _same_call(call), softmax.result.size
    )


def _requantization_tables(layer: Conv2D | Dense, clamp: tuple[int, int], label: str) -> str:
    weights = layer.weights.reshape(len(layer.weights), -1)
    padding = (0, packing.round_up(len(weights), packing.LANES) - len(weights))
    tables = {
        family: requantization(
            weights,
            layer.bias,
            layer.multipliers,
            layer.source.zero_point,
            layer.result.zero_point,
            stored_bias,
        )
        for family, stored_bias in STORED_BIAS.items()
    }
    # Multipliers and shifts do not depend on the stored form of activations; offsets do.
    shared = tables["other"]
    offsets = {
        family: array_text("int64_t", f"{label}_offset", np.pad(table.offset, padding))
        for family, table in tables.items()
    }
    return "\n".join(
        [
            array_text("int32_t", f"{label}_multiplier", np.pad(shared.multiplier, padding)),
            array_text("int32_t", f"{label}_shift", np.pad(shared.shift, padding)),
            f"#if STORED_BIAS == {STORED_BIAS['x86']}",
            f"{offsets['x86']}\n#else\n{offsets['other']}\n#endif",
            f"static const requantization {label}_requantization = {{",
            f"    {label}_multiplier, {label}_offset, {label}_shift,",
            f"    {clamp[0]} + STORED_BIAS, {clamp[1]} + STORED_BIAS}};",
        ]
    )
