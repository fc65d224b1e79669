"""The numbers in the generated C, read back from its text and compared with the model's.

Nothing of the generator is used: weights are put back in order by the layouts that the kernels'
comments tell, weights and scales come from LiteRT's interpreter, and the constants of the rescaling
are computed anew from them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
Tables = dict[tuple[str, str], Numbers]  # by name and by the conditions that it stands under
ARRAY = re.compile(r"static const (\w+) (\w+)\[(\d+)\] = \{")
LAYERS = ("conv1", "conv2", "dense1", "dense2", "dense3")
WIDE, MADD, VNNI = (f"defined(KERNELS_{kind})" for kind in ("WIDE", "MADD", "AVX512VNNI"))
TWO_STEPS = f"!{VNNI} || {MADD}"
STORED = "STORED_BIAS == 128"
# Of each layer's weights the tables, and what they stand under.
ROWS = ("rows", "defined(KERNELS_PORTABLE)")
POINTS, WORDS = ("points", MADD), ("words", "defined(KERNELS_DSP)")
GROUPS = ("groups", f"{VNNI} || defined(KERNELS_NEONDOT)")
NEON = "defined(KERNELS_NEON)"
DENSE = (("rows", "!defined(KERNELS_WIDE)"), ("groups", WIDE))
LAYOUTS = {
    "conv1": (ROWS, POINTS, WORDS, GROUPS, ("spread", NEON)),
    "conv2": (ROWS, POINTS, WORDS, GROUPS, ("rows", NEON)),
    **dict.fromkeys(LAYERS[2:], DENSE),
}


def wrong_numbers(source: Path, model: Path) -> str:
    """One line on the first table of `lenet5_int8.c` that is not the .tflite file's; "": none."""
    try:
        found, wanted = read_tables(source.read_text("utf-8")), expected(model)
    except Exception as error:  # of a file that is missing, damaged, or no LeNet-5
        return f"its numbers cannot be compared ({type(error).__name__}: {error})"
    return compare(found, wanted)


def compare(found: Tables, wanted: Tables) -> str:
    """One line on the first of `read_tables` that differs from `expected`; "" if none does."""
    if odd := sorted(found.keys() ^ wanted.keys()):
        return f"its tables are not a LeNet-5's: {odd[0]}"
    for (name, condition), values in wanted.items():
        try:
            got = in_order(name, condition, found[name, condition])
            values = padded(values, got.shape)
        except ValueError:
            return f"{name} ({condition}) has another size than its kernels take"
        different = np.argwhere(got != values)
        if len(different):
            first = tuple(different[0])
            return (
                f"{name} differs from the model in {len(different):,} of {got.size:,} numbers; "
                f"the first is {got[first]}, not {values[first]}"
                f"{f' (#if {condition})' if condition else ''}"
            )
    return ""


# --- The C's text -------------------------------------------------------------------------------


def read_tables(text: str) -> Tables:
    """Every array of the C, and what each `requantization` is made of.

    Raises:
        ValueError: An array holds another count than it says, or there are two of a name.
    """
    tables: Tables = {}
    conditions: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("#if"):
            conditions.append(line.removeprefix("#if").strip())
        elif line.startswith("#else"):
            conditions[-1] = f"not {conditions[-1]}"
        elif line.startswith("#endif"):
            conditions.pop()
        elif found := ARRAY.fullmatch(line):
            kind, name, count = found.groups()
            items = re.sub(r"INT64_C\((.*?)\)", r"\1", _until_brace(lines)).split(",")
            values = np.array(
                [float.fromhex(i.strip(" f")) if kind == "float" else int(i) for i in items]
            )
            key = name, " and ".join(conditions)
            if len(values) != int(count) or key in tables:
                raise ValueError(f"{name} is there twice, or has not the {count} numbers it says")
            tables[key] = values
        elif found := re.fullmatch(r"static const (?:requantization|folded_vnni) (\w+) = \{", line):
            parts = [part.strip() for part in _until_brace(lines).split(",")]
            tables[found[1], " and ".join(conditions)] = np.array(parts)
        elif found := re.match(r"enum \{ (PIXEL_MINUS_128) = (\d+) \}", line):
            tables[found[1], ""] = np.array([int(found[2])])
    return tables


def _until_brace(lines: Any) -> str:
    """The text up to the line with the closing brace, without the preprocessor's lines."""
    taken = ""
    for line in lines:
        taken += "" if line.startswith("#") else line + " "
        if "};" in line:
            return taken.partition("};")[0]
    raise ValueError("a table does not end")


def in_order(name: str, condition: str, values: Numbers) -> Numbers:
    """A table's numbers; weights as (..., channels, rows, taps) or (outputs, inputs), padded."""
    layer, _, layout = name.partition("_")
    if layout == "words":  # two int16 in each int32
        values = values.astype("<i4").view("<i2")
    if layer == "conv1":
        if layout == "words":  # for even and for odd columns, which start with a zero
            both = values.reshape(6, 5, 2, 6)
            return np.stack([both[:, :, 0], np.roll(both[:, :, 1], -1, axis=-1)])
        if layout in ("groups", "spread"):  # 4 taps of each row; then the last taps, 4 in a group
            spread: Numbers = values.reshape(6, -1, 4 if layout == "spread" else 1, 4)
            groups = spread.transpose(2, 0, 1, 3)  # (copies, 6, 7 or 8, 4)
            last: Numbers = groups[:, :, 5:].reshape(*groups.shape[:2], -1)  # 5 of them, then zeros
            last = np.pad(last, [(0, 0), (0, 0), (0, -last.shape[2] % 5)])
            last = last.reshape(*groups.shape[:2], -1, 5).swapaxes(2, 3)
            return np.concatenate([groups[:, :, :5], last], axis=-1)
        if layout == "points":  # of even rows, and of odd ones, which start with a zero
            both = values.reshape(6, 6, 2, 6).transpose(2, 1, 3, 0)  # (copies, 6, rows, points)
            return np.stack([both[0], np.roll(both[1], -1, axis=1)])
        if layout == "rows":
            return values.reshape(6, 5, -1)
    if layer == "conv2":
        if layout == "words":
            return values.reshape(8, 75, 2, 2).swapaxes(1, 2).reshape(16, 5, 30)
        if layout == "groups":
            return values.reshape(5, -1, 16, 4).transpose(2, 0, 1, 3).reshape(16, 5, -1)
        if layout == "points":
            return values.reshape(6, 5, 3, 16, 2).transpose(3, 1, 0, 2, 4).reshape(16, 5, 36)
        if layout == "rows" and "NEON" in condition:
            return values.reshape(2, 5, 2, 8, 16).transpose(0, 3, 1, 2, 4).reshape(16, 5, 32)
        if layout == "rows":
            return values.reshape(16, 5, 30)
    if layer in LAYERS and layout == "rows":
        inputs = {"dense1": 400, "dense2": 128, "dense3": 96}[layer]
        return values.reshape(-1, inputs // 16, 8, 16).swapaxes(1, 2).reshape(-1, inputs)
    if layer in LAYERS and layout == "groups":  # tiles of at most 128 outputs
        inputs = {"dense1": 400, "dense2": 120, "dense3": 88}[layer]
        tiles = np.split(values, range(128 * inputs, len(values), 128 * inputs))
        parts = [tile.reshape(inputs // 4, -1, 4).swapaxes(0, 1) for tile in tiles]
        return np.concatenate([part.reshape(-1, inputs) for part in parts])
    return values


def padded(values: Numbers, shape: tuple[int, ...]) -> Numbers:
    """Zeros at the end of each axis, up to the last axes of a shape; repeated along the others."""
    if values.dtype.kind == "U":
        return values.reshape(shape)
    room = [
        (0, there - own) for own, there in zip(values.shape, shape[-values.ndim :], strict=True)
    ]
    return np.broadcast_to(np.pad(values, room), shape)


# --- The model ----------------------------------------------------------------------------------


def expected(model: Path) -> Tables:
    """What the tables must hold, weights in the model's own order."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(model),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    details = {d["index"]: d["quantization_parameters"] for d in interpreter.get_tensor_details()}
    products = ("CONV_2D", "FULLY_CONNECTED")
    layers = [op for op in interpreter._get_ops_details() if op["op_name"] in products]
    tables: Tables = {}
    for name, layer in zip(LAYERS, layers, strict=True):
        source, weights_at, bias_at = (int(i) for i in layer["inputs"])
        result = details[int(layer["outputs"][0])]
        weights = interpreter.get_tensor(weights_at).astype(np.int64)
        channels = len(weights)
        order = (channels, -1) if weights.ndim == 2 else (channels, 5, weights.shape[3] * 5)
        weights = weights.reshape(order)
        for table, condition in LAYOUTS[name]:
            tables[f"{name}_{table}", condition] = (
                at_points(weights) if table == "points" else weights
            )
        tables |= _rescaling(
            name,
            weights.reshape(channels, -1),
            interpreter.get_tensor(bias_at),
            details[source],
            details[weights_at]["scales"],
            result,
        )
    scale = result["scales"][0]  # of the logits
    powers = np.exp((-scale * np.arange(256, dtype=np.float32)).astype(np.float64))
    tables["exponentials", ""] = powers.astype(np.float32).astype(np.float64)
    image = details[interpreter.get_input_details()[0]["index"]]
    steps = np.rint(np.arange(256, dtype=np.float32) / np.float32(255) / image["scales"][0])
    pixels = np.clip(steps + image["zero_points"][0], -128, 127)
    tables["quantized_pixels", ""] = pixels
    tables["PIXEL_MINUS_128", ""] = np.array([int((pixels == np.arange(-128, 128)).all())])
    return tables


def at_points(weights: Numbers) -> Numbers:
    """Rows of 5 pixels as 24 times their polynomial over what Lagrange divides by, at 6 points.

    Args:
        weights: (channels, rows, 5 pixels * inputs).

    Returns:
        (channels, rows, 6 points * inputs); at infinity the last pixel.
    """
    taps = weights.reshape(*weights.shape[:2], 5, -1)
    points = (0, 1, -1, 2, -2)
    others = [np.prod([p - other for other in points if other != p]) for p in points]  # 4, -6, 24
    values = [
        sum(taps[:, :, power] * p**power for power in range(5)) * 24 // divisor
        for p, divisor in zip(points, others, strict=True)
    ]
    return np.stack([*values, taps[:, :, 4] * 24], axis=2).reshape(*weights.shape[:2], -1)


def _rescaling(
    name: str, weights: Numbers, bias: Numbers, source: Any, scales: Numbers, result: Any
) -> Tables:
    """A layer's constants after the weights, in both forms (c_templates/common.c.in)."""
    into, out = int(source["zero_points"][0]), int(result["zero_points"][0])
    real = np.float64(source["scales"][0]) * scales.astype(np.float64)
    columns = []
    for row, b, r in zip(weights, bias, real / np.float64(result["scales"][0]), strict=True):
        halvings, fraction = 0, float(r)
        while 0.0 < fraction < 0.5:
            halvings, fraction = halvings + 1, fraction * 2
        multiplier = int(fraction * 2**31 + 0.5)
        if multiplier == 2**31:
            multiplier, halvings = 2**30, halvings - 1
        signed = int(b) - into * int(row.sum())
        stored = signed - 128 * int(row.sum())
        half = (2**30 << halvings) if halvings else 0
        offset = stored * multiplier + 2**30 + half + ((out + 128) << (31 + halvings))
        columns.append((multiplier, 31 + halvings, halvings, offset, stored, signed))
    multiplier, wide, narrow, offset, stored, signed = np.array(columns, np.int64).T
    lowest = f"{-128 if name == LAYERS[-1] else out} + STORED_BIAS"
    folded = [f"{name}_multiplier", f"{name}_offset", f"{name}_whole_shift", lowest]
    apart = [f"{name}_multiplier", f"{name}_bias", f"{name}_shift", f"{name}_scale"]
    return {
        (f"{name}_multiplier", ""): multiplier,
        (f"{name}_whole_shift", VNNI): wide,
        (f"{name}_offset", VNNI): offset,
        (f"{name}_folded", VNNI): np.array(folded),
        (f"{name}_shift", TWO_STEPS): narrow,
        (f"{name}_scale", f"{TWO_STEPS} and {MADD}"): 2**30 >> narrow,
        (f"{name}_bias", f"{TWO_STEPS} and {STORED}"): stored,
        (f"{name}_bias", f"{TWO_STEPS} and not {STORED}"): signed,
        (f"{name}_requantization", TWO_STEPS): np.array([*apart, f"{out} + STORED_BIAS", lowest]),
    }
