"""The C generator: what it refuses, and what it writes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from helpers import need
from hypothesis import given
from hypothesis import strategies as st
from native_helpers import compile_c, compiled_run
from random_models import random_lenet5, realistic_lenet5

from export.quantized_lenet5 import Activation, UnsupportedModelError, read_lenet5
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


def _output(operator: int, edit_tensor: Callable[[Any], None]) -> Callable[[Any], None]:
    """Change what an operator of a model gives."""

    def edit(model: Any) -> None:
        graph = model.subgraphs[0]
        edit_tensor(graph.tensors[graph.operators[operator].outputs[0]])

    return edit


def _graph(change: Callable[[Any], None]) -> Callable[[Any], None]:
    """Change the graph of a model."""
    return lambda model: change(model.subgraphs[0])


def _one_operator_more(graph: Any) -> None:
    graph.operators.append(graph.operators[-1])


def _inputs(operator: int, inputs: list[int]) -> Callable[[Any], None]:
    return _graph(lambda graph: setattr(graph.operators[operator], "inputs", inputs))


def _custom(model: Any) -> None:
    _operator(1, schema.BuiltinOperator.CUSTOM)(model)
    model.operatorCodes[1].customCode = b"mine"


def _weights_cut_off(model: Any) -> None:
    graph = model.subgraphs[0]
    buffer = model.buffers[graph.tensors[graph.operators[5].inputs[1]].buffer]
    buffer.data = buffer.data[:-1]


def _weights_of_no_buffer(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[5].inputs[1]].buffer = 0


def _without_bias(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs[2] = -1


def _without_softmax(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.outputs = graph.operators.pop().inputs[:1]


def _weights_of_minus_128(model: Any) -> None:
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[5].inputs[1]]
    buffer = model.buffers[tensor.buffer]
    buffer.data = np.append(buffer.data[:-1], np.uint8(0x80))


def _set(**attributes: Any) -> Callable[[Any], None]:
    def edit(tensor: Any) -> None:
        for name, value in attributes.items():
            setattr(
                tensor.quantization if hasattr(tensor.quantization, name) else tensor, name, value
            )

    return edit


_SOFTMAX = "SOFTMAX: its output needs scale 1/256, zero point -128 and as many classes as its input"
_INPUT = "input: tensor 'tensor0' needs one positive scale and an int8 zero point"
_NO_QUANTIZATION = "input: tensor 'tensor0' has no quantization parameters"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            _operator(1, schema.BuiltinOperator.AVERAGE_POOL_2D),
            "operator 2 is AVERAGE_POOL_2D; LeNet-5 has MAX_POOL_2D",
        ),
        (
            _operator(8, schema.BuiltinOperator.LOGISTIC),
            "operator 9 is LOGISTIC; LeNet-5 has SOFTMAX",
        ),
        (_operator(4, 999), "operator 5 is number 999; LeNet-5 has RESHAPE"),
        (_without_softmax, "8 operators; LeNet-5 has 9"),
        (_options(0, padding=schema.Padding.SAME), "CONV_2D: padding SAME; LeNet-5 has VALID"),
        (_options(2, strideW=2), "CONV_2D: strideW 2; LeNet-5 has 1"),
        (_options(2, dilationHFactor=2), "CONV_2D: dilationHFactor 2; LeNet-5 has 1"),
        (_options(1, filterHeight=3), "MAX_POOL_2D: filterHeight 3; LeNet-5 has 2"),
        (
            _options(3, fusedActivationFunction=1),
            "MAX_POOL_2D: fusedActivationFunction RELU; LeNet-5 has NONE",
        ),
        (
            _options(0, fusedActivationFunction=3),
            "CONV_2D: fusedActivationFunction RELU6; LeNet-5 has RELU or NONE",
        ),
        (
            _options(5, fusedActivationFunction=4),
            "FULLY_CONNECTED: fusedActivationFunction TANH; LeNet-5 has RELU or NONE",
        ),
        (_options(5, weightsFormat=1), "FULLY_CONNECTED: weightsFormat 1; LeNet-5 has 0"),
        (_options(8, beta=0.5), "SOFTMAX: beta 0.5; LeNet-5 has 1.0"),
        (_without_bias, "CONV_2D: bias: none"),
        (_weights_of_minus_128, "FULLY_CONNECTED: weights reach -128; -127 to 127 is the range"),
        (
            _tensor(0, 0, _set(type=schema.TensorType.UINT8)),
            "input: tensor 'tensor0' is UINT8; int8 is needed",
        ),
        (
            _tensor(0, 0, _set(shape=[1, 28, 28, 1])),
            "input: tensor 'tensor0' has shape (1, 28, 28, 1); LeNet-5 has (1, 32, 32, 1)",
        ),
        (
            _tensor(0, 0, _set(zeroPoint=np.array([200]))),
            "input: tensor 'tensor0' needs one positive scale and an int8 zero point",
        ),
        (
            _tensor(1, 0, _set(scale=np.array([0.5], np.float32))),
            "MAX_POOL_2D: input and output differ in scale",
        ),
        (
            _tensor(8, 0, _set(shape=[1, 9])),
            "FULLY_CONNECTED: weights: INT8 (10, 84); LeNet-5 has INT8 (9, 84)",
        ),
        (
            _tensor(5, 1, _set(scale=np.array([0.5], np.float32))),
            "FULLY_CONNECTED: weights are not quantized per output channel",
        ),
        (
            _tensor(5, 1, _set(zeroPoint=np.full(120, 3))),
            "FULLY_CONNECTED: weights are not symmetric (zero point is not 0)",
        ),
        (
            _tensor(5, 2, _set(type=schema.TensorType.INT64)),
            "FULLY_CONNECTED: bias: INT64 (120,); LeNet-5 has INT32 (120,)",
        ),
        (
            _tensor(0, 0, _set(name=None, type=schema.TensorType.UINT8)),
            "input: tensor '' is UINT8; int8 is needed",
        ),
        (_graph(_one_operator_more), "10 operators; LeNet-5 has 9"),
        (_custom, "operator 2 is CUSTOM 'mine'; LeNet-5 has MAX_POOL_2D"),
        (_inputs(3, [0]), "MAX_POOL_2D does not take the result of the one before"),
        (
            _graph(lambda graph: setattr(graph, "outputs", [1])),
            "the output is not the result of the last operator",
        ),
        *(
            (_output(8, _set(**change)), _SOFTMAX)
            for change in (
                {"scale": np.array([1 / 255], np.float32)},
                {"zeroPoint": np.array([-127])},
                {"shape": [1, 9]},
            )
        ),
        (
            _output(8, _set(shape=[1, 0])),
            "SOFTMAX: tensor 'tensor20' has shape (1, 0); LeNet-5 has (1, -1)",
        ),
        (
            _output(8, _set(shape=[10])),
            "SOFTMAX: tensor 'tensor20' has shape (10,); LeNet-5 has (1, -1)",
        ),
        (
            _tensor(1, 0, _set(zeroPoint=np.array([0]))),
            "MAX_POOL_2D: input and output differ in scale",
        ),
        *(
            (_tensor(0, 0, _set(**change)), _INPUT)
            for change in (
                {"zeroPoint": np.array([-129])},
                {"zeroPoint": np.array([128])},
                {"scale": np.array([0.0], np.float32)},
                {"scale": np.array([np.inf], np.float32)},
                {"scale": np.ones(2, np.float32), "zeroPoint": np.zeros(2, np.int64)},
            )
        ),
        *(
            (_tensor(0, 0, _set(**change)), _NO_QUANTIZATION)
            for change in (
                {"quantization": None},
                {"scale": None},
                {"zeroPoint": None},
                {"scale": np.empty(0, np.float32)},
            )
        ),
        (
            _tensor(5, 1, _set(quantizedDimension=1)),
            "FULLY_CONNECTED: weights are not quantized per output channel",
        ),
        (
            _tensor(5, 1, _set(shape=[400, 120])),
            "FULLY_CONNECTED: weights: INT8 (400, 120); LeNet-5 has INT8 (120, 400)",
        ),
        (
            _tensor(5, 1, _set(sparsity=schema.SparsityParametersT())),
            "FULLY_CONNECTED: weights: sparse INT8 (120, 400); LeNet-5 has INT8 (120, 400)",
        ),
        (
            _tensor(5, 1, _set(quantization=None)),
            "FULLY_CONNECTED: weights has no quantization parameters",
        ),
        (_weights_cut_off, "FULLY_CONNECTED: weights are not constant"),
        (_weights_of_no_buffer, "FULLY_CONNECTED: weights are not constant"),
        (_inputs(0, [0, 1]), "CONV_2D: bias: none"),
    ],
)
def test_what_is_no_int8_lenet5_is_refused_by_name(
    edit: Callable[[Any], None], words: str, tmp_path: Path
) -> None:
    path = _model_file(tmp_path, realistic_lenet5(edit=edit))
    with pytest.raises(UnsupportedModelError) as caught:
        to_c(path, tmp_path / "out")
    assert str(caught.value) == words
    assert not (tmp_path / "out").exists()


def test_what_is_no_flatbuffer_is_refused(tmp_path: Path) -> None:
    good = realistic_lenet5()
    for bad, words in (
        (good[:4] + b"TFL4" + good[8:], "not a TFLite file (no TFL3 identifier)"),
        (b"", "not a TFLite file (no TFL3 identifier)"),
        (good[:8], "damaged flatbuffer (error)"),
    ):
        with pytest.raises(UnsupportedModelError) as caught:
            read_lenet5(_model_file(tmp_path, bad))
        assert str(caught.value) == words


def test_numbers_are_read_as_they_are_written(tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        for code in model.operatorCodes:  # as old writers leave it
            code.builtinCode = 0
        _options(2, fusedActivationFunction=schema.ActivationFunctionType.NONE)(model)
        _tensor(5, 0, _set(name=b"\xff"))(model)  # a name that is not text

    network = read_lenet5(
        _model_file(
            tmp_path,
            realistic_lenet5(1, edit, (0.5, 127), (-128, -7, 0, 1, 127)),
        )
    )
    assert [layer.relu for layer in network.layers] == [True, False, True, True, False]
    activations = [network.image, *(layer.result for layer in network.layers)]
    assert [a.zero_point for a in activations] == [127, -128, -7, 0, 1, 127]
    assert [a.channels for a in activations] == [1, 6, 16, 120, 84, 1]
    scales = [0.5, 0.0064, 0.0156, 0.0366, 0.0599, 0.1782]
    assert [a.scale for a in activations] == [np.float32(scale) for scale in scales]
    assert [layer.source.zero_point for layer in network.layers] == [127, -128, -7, 0, 1]
    for layer, source, result in zip(network.layers, scales, scales[1:], strict=False):
        assert layer.bias.dtype == np.int64
        assert layer.multipliers.dtype == np.float64
        weight_scales = layer.multipliers * np.float32(result) / np.float32(source)
        assert 0.001 <= weight_scales.min() <= weight_scales.max() < 0.004
        np.testing.assert_allclose(np.float32(weight_scales), weight_scales, rtol=1e-15)
    assert network.logits is network.layers[-1].result
    assert network.probabilities == Activation(1, np.float32(1 / 256), -128)


def test_tensors_may_be_listed_in_any_order(tmp_path: Path) -> None:
    def bias_first(graph: Any) -> None:
        n = len(graph.tensors)
        graph.tensors = [*graph.tensors[2:], *graph.tensors[:2]]
        for users in (graph, *graph.operators):
            users.inputs = [(i - 2) % n for i in users.inputs]
            users.outputs = [(i - 2) % n for i in users.outputs]

    usual = read_lenet5(_model_file(tmp_path, realistic_lenet5()))
    other = read_lenet5(_model_file(tmp_path, realistic_lenet5(edit=_graph(bias_first))))
    for a, b in zip(usual.layers, other.layers, strict=True):
        np.testing.assert_equal(vars(a), vars(b))


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
    need(compiler)
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
