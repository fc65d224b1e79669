"""The C generator: what it refuses, and what it writes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st
from native_helpers import compile_c, compiled_run, require
from random_models import random_lenet5, realistic_lenet5

from export.quantized_lenet5 import UnsupportedModelError, read_lenet5
from export.requantization import ArithmeticBoundError
from export.to_c import to_c


def _model_file(folder: Path, data: bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return path


def _options(operator: int, **options: Any) -> Callable[[Any], None]:
    """Set options of one operator of a model."""

    def edit(model: Any) -> None:
        for name, value in options.items():
            setattr(model.subgraphs[0].operators[operator].builtinOptions, name, value)

    return edit


def _operator(number: int, code: int) -> Callable[[Any], None]:
    """Make one operator of a model another."""

    def edit(model: Any) -> None:
        model.operatorCodes[number].builtinCode = code
        model.operatorCodes[number].deprecatedBuiltinCode = min(code, 127)

    return edit


def _tensor(operator: int, place: int, edit_tensor: Callable[[Any], None]) -> Callable[[Any], None]:
    """Change an input of an operator of a model."""

    def edit(model: Any) -> None:
        graph = model.subgraphs[0]
        edit_tensor(graph.tensors[graph.operators[operator].inputs[place]])

    return edit


def _without_bias(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs[2] = -1


def _without_softmax(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.outputs = graph.operators.pop().inputs[:1]


def _weights_of_minus_128(model: Any) -> None:
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[5].inputs[1]]
    model.buffers[tensor.buffer].data = np.full(120 * 400, 0x80, np.uint8)


def _set(**attributes: Any) -> Callable[[Any], None]:
    def edit(tensor: Any) -> None:
        for name, value in attributes.items():
            setattr(
                tensor.quantization if hasattr(tensor.quantization, name) else tensor, name, value
            )

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_operator(1, schema.BuiltinOperator.AVERAGE_POOL_2D), "operator 2 is AVERAGE_POOL_2D"),
        (_operator(8, schema.BuiltinOperator.LOGISTIC), "operator 9 is LOGISTIC"),
        (_operator(4, 999), "operator 5 is number 999"),
        (_without_softmax, "8 operators"),
        (_options(0, padding=schema.Padding.SAME), "CONV_2D: padding SAME; LeNet-5 has VALID"),
        (_options(2, strideW=2), "CONV_2D: strideW 2"),
        (_options(2, dilationHFactor=2), "CONV_2D: dilationHFactor 2"),
        (_options(1, filterHeight=3), "MAX_POOL_2D: filterHeight 3"),
        (_options(3, fusedActivationFunction=1), "MAX_POOL_2D: fusedActivationFunction RELU;"),
        (_options(0, fusedActivationFunction=3), "CONV_2D: fusedActivationFunction RELU6"),
        (_options(5, fusedActivationFunction=4), "FULLY_CONNECTED: fusedActivationFunction TANH"),
        (_options(5, weightsFormat=1), "FULLY_CONNECTED: weightsFormat 1"),
        (_options(8, beta=0.5), "SOFTMAX: beta 0.5"),
        (_without_bias, "CONV_2D: bias: none"),
        (_weights_of_minus_128, "FULLY_CONNECTED: weights reach -128"),
        (_tensor(0, 0, _set(type=schema.TensorType.UINT8)), "'tensor0' is UINT8"),
        (_tensor(0, 0, _set(shape=[1, 28, 28, 1])), "'tensor0' has shape"),
        (_tensor(0, 0, _set(zeroPoint=np.array([200]))), "int8 zero point"),
        (_tensor(1, 0, _set(scale=np.array([0.5], np.float32))), "MAX_POOL_2D: input and output"),
        (_tensor(8, 0, _set(shape=[1, 9])), "FULLY_CONNECTED: weights"),
        (_tensor(5, 1, _set(scale=np.array([0.5], np.float32))), "per output channel"),
        (_tensor(5, 1, _set(zeroPoint=np.full(120, 3))), "not symmetric"),
        (_tensor(5, 2, _set(type=schema.TensorType.INT64)), "FULLY_CONNECTED: bias: INT64"),
    ],
)
def test_what_is_no_int8_lenet5_is_refused_by_name(
    edit: Callable[[Any], None], words: str, tmp_path: Path
) -> None:
    path = _model_file(tmp_path, realistic_lenet5(edit=edit))
    with pytest.raises(UnsupportedModelError) as caught:
        to_c(path, tmp_path / "out")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@given(st.data())
def test_damaged_file_is_refused_without_a_crash(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = _DAMAGED_MODEL
    bad = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if bad:
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path = _model_file(tmp_path_factory.mktemp("damaged"), bytes(bad))
    try:
        to_c(path, path.parent)
    except (UnsupportedModelError, ArithmeticBoundError) as error:
        assert "\n" not in str(error)


_DAMAGED_MODEL = realistic_lenet5()


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    path = _model_file(tmp_path, realistic_lenet5())
    first, second = to_c(path, tmp_path / "a"), to_c(path, tmp_path / "b")
    for suffix in (".c", ".h"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_source_compiles_without_a_warning(compiler: str, level: str, tmp_path: Path) -> None:
    require(compiler)
    source = to_c(_model_file(tmp_path, realistic_lenet5()), tmp_path)
    compile_c(tmp_path / "model.o", level, "-c", str(source), compiler=compiler)


def test_source_needs_no_allocation_file_or_math_library(tmp_path: Path) -> None:
    source = to_c(_model_file(tmp_path, realistic_lenet5()), tmp_path)
    compiled = compile_c(tmp_path / "model.o", "-O2", "-c", str(source))
    symbols = subprocess.run(
        ["nm", "--undefined-only", str(compiled)], capture_output=True, text=True, check=True
    )
    wanted = {line.split()[-1] for line in symbols.stdout.splitlines()}
    allowed = {
        "memset",
        "memcpy",
        "memmove",
        "getauxval",
        "__stack_chk_fail",
        "_GLOBAL_OFFSET_TABLE_",
    }
    assert wanted <= allowed


@pytest.mark.parametrize("seed", [0, 1, 3])  # the usual input quantization, and two others
def test_raw_pixels_give_what_their_quantized_and_padded_input_gives(
    seed: int, tmp_path: Path
) -> None:
    path = _model_file(tmp_path, random_lenet5(seed))
    network = read_lenet5(path)
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    steps = np.clip(np.round(pixels / network.image.scale) + network.image.zero_point, -128, 127)
    images = np.random.default_rng(seed).integers(0, 256, (20, 28, 28), np.uint8)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    run = compiled_run(to_c(path, tmp_path), "PORTABLE", network.probabilities.channels)
    np.testing.assert_array_equal(run(images), run(steps.astype(np.int8)[padded]))
