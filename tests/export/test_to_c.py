"""The C generator: what it refuses, and what it writes."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from helpers import need, run_program
from hypothesis import given
from hypothesis import strategies as st
from native_helpers import compile_c, compiled_run
from random_models import random_lenet5, realistic_lenet5

from export.quantized_lenet5 import Activation, UnsupportedModelError, read_lenet5
from export.requantization import ArithmeticBoundError
from export.to_c import to_c

Op, Kind = schema.BuiltinOperator, schema.TensorType
Relu = schema.ActivationFunctionType


def model_file(folder, data):
    path = folder / "model.tflite"
    path.write_bytes(data)
    return path


# --- What is refused: changes of a model, by the number of an operator --------------------------


def put(thing, **values):
    """Set attributes of a tensor, its quantization, or an operator's options."""
    for name, value in values.items():
        of_tensor = getattr(thing, "quantization", None)
        setattr(of_tensor if hasattr(of_tensor, name) else thing, name, value)


def graph(change):
    return lambda model: change(model.subgraphs[0])


def options(number, **values):
    return graph(lambda g: put(g.operators[number].builtinOptions, **values))


def taken(number, place, **values):
    """Change a tensor that an operator takes."""
    return graph(lambda g: put(g.tensors[g.operators[number].inputs[place]], **values))


def result(number, **values):
    return graph(lambda g: put(g.tensors[g.operators[number].outputs[0]], **values))


def inputs(number, tensors):
    return graph(lambda g: setattr(g.operators[number], "inputs", tensors))


def code(number, code, **values):
    """Make an operator another."""
    values |= {"builtinCode": code, "deprecatedBuiltinCode": min(code, 127)}
    return lambda model: put(model.operatorCodes[number], **values)


def weights(change):
    """Change the data of the first dense layer's weights."""

    def edit(model):
        g = model.subgraphs[0]
        buffer = model.buffers[g.tensors[g.operators[5].inputs[1]].buffer]
        buffer.data = change(buffer.data)

    return edit


def without_softmax(g):
    g.outputs = g.operators.pop().inputs[:1]


def f32(*values):
    return np.array(values, np.float32)


DENSE, SHAPE = "FULLY_CONNECTED: ", "LeNet-5 has (1, -1)"
SOFTMAX = "SOFTMAX: its output needs scale 1/256, zero point -128 and as many classes as its input"
INPUT = "input: tensor 'tensor0' needs one positive scale and an int8 zero point"
NO_QUANTIZATION = "input: tensor 'tensor0' has no quantization parameters"
POOL = "MAX_POOL_2D: input and output differ in scale"
PER_CHANNEL = f"{DENSE}weights are not quantized per output channel"
REFUSED = [
    (code(1, Op.AVERAGE_POOL_2D), "operator 2 is AVERAGE_POOL_2D; LeNet-5 has MAX_POOL_2D"),
    (code(8, Op.LOGISTIC), "operator 9 is LOGISTIC; LeNet-5 has SOFTMAX"),
    (code(4, 999), "operator 5 is number 999; LeNet-5 has RESHAPE"),
    (
        code(1, Op.CUSTOM, customCode=b"mine"),
        "operator 2 is CUSTOM 'mine'; LeNet-5 has MAX_POOL_2D",
    ),
    (graph(without_softmax), "8 operators; LeNet-5 has 9"),
    (graph(lambda g: g.operators.append(g.operators[-1])), "10 operators; LeNet-5 has 9"),
    (inputs(3, [0]), "MAX_POOL_2D does not take the result of the one before"),
    (graph(lambda g: put(g, outputs=[1])), "the output is not the result of the last operator"),
    (options(0, padding=schema.Padding.SAME), "CONV_2D: padding SAME; LeNet-5 has VALID"),
    (options(2, strideW=2), "CONV_2D: strideW 2; LeNet-5 has 1"),
    (options(2, dilationHFactor=2), "CONV_2D: dilationHFactor 2; LeNet-5 has 1"),
    (options(1, filterHeight=3), "MAX_POOL_2D: filterHeight 3; LeNet-5 has 2"),
    (
        options(3, fusedActivationFunction=Relu.RELU),
        "MAX_POOL_2D: fusedActivationFunction RELU; LeNet-5 has NONE",
    ),
    (
        options(0, fusedActivationFunction=Relu.RELU6),
        "CONV_2D: fusedActivationFunction RELU6; LeNet-5 has RELU or NONE",
    ),
    (
        options(5, fusedActivationFunction=Relu.TANH),
        f"{DENSE}fusedActivationFunction TANH; LeNet-5 has RELU or NONE",
    ),
    (options(5, weightsFormat=1), f"{DENSE}weightsFormat 1; LeNet-5 has 0"),
    (options(8, beta=0.5), "SOFTMAX: beta 0.5; LeNet-5 has 1.0"),
    (graph(lambda g: g.operators[0].inputs.__setitem__(2, -1)), "CONV_2D: bias: none"),
    (inputs(0, [0, 1]), "CONV_2D: bias: none"),
    (
        weights(lambda data: np.append(data[:-1], np.uint8(0x80))),
        f"{DENSE}weights reach -128; -127 to 127 is the range",
    ),
    (weights(lambda data: data[:-1]), f"{DENSE}weights are not constant"),
    (taken(5, 1, buffer=0), f"{DENSE}weights are not constant"),
    (taken(0, 0, type=Kind.UINT8), "input: tensor 'tensor0' is UINT8; int8 is needed"),
    (taken(0, 0, name=None, type=Kind.UINT8), "input: tensor '' is UINT8; int8 is needed"),
    (
        taken(0, 0, shape=[1, 28, 28, 1]),
        "input: tensor 'tensor0' has shape (1, 28, 28, 1); LeNet-5 has (1, 32, 32, 1)",
    ),
    (taken(0, 0, zeroPoint=np.array([200])), INPUT),
    (taken(0, 0, zeroPoint=np.array([-129])), INPUT),
    (taken(0, 0, zeroPoint=np.array([128])), INPUT),
    (taken(0, 0, scale=f32(0.0)), INPUT),
    (taken(0, 0, scale=f32(np.inf)), INPUT),
    (taken(0, 0, scale=f32(1, 1), zeroPoint=np.zeros(2, np.int64)), INPUT),
    (taken(0, 0, quantization=None), NO_QUANTIZATION),
    (taken(0, 0, scale=None), NO_QUANTIZATION),
    (taken(0, 0, zeroPoint=None), NO_QUANTIZATION),
    (taken(0, 0, scale=f32()), NO_QUANTIZATION),
    (taken(1, 0, scale=f32(0.5)), POOL),
    (taken(1, 0, zeroPoint=np.array([0])), POOL),
    (taken(8, 0, shape=[1, 9]), f"{DENSE}weights: INT8 (10, 84); LeNet-5 has INT8 (9, 84)"),
    (taken(5, 1, scale=f32(0.5)), PER_CHANNEL),
    (taken(5, 1, quantizedDimension=1), PER_CHANNEL),
    (
        taken(5, 1, zeroPoint=np.full(120, 3)),
        f"{DENSE}weights are not symmetric (zero point is not 0)",
    ),
    (taken(5, 1, quantization=None), f"{DENSE}weights has no quantization parameters"),
    (
        taken(5, 1, shape=[400, 120]),
        f"{DENSE}weights: INT8 (400, 120); LeNet-5 has INT8 (120, 400)",
    ),
    (
        taken(5, 1, sparsity=schema.SparsityParametersT()),
        f"{DENSE}weights: sparse INT8 (120, 400); LeNet-5 has INT8 (120, 400)",
    ),
    (taken(5, 2, type=Kind.INT64), f"{DENSE}bias: INT64 (120,); LeNet-5 has INT32 (120,)"),
    (result(8, scale=f32(1 / 255)), SOFTMAX),
    (result(8, zeroPoint=np.array([-127])), SOFTMAX),
    (result(8, shape=[1, 9]), SOFTMAX),
    (result(8, shape=[1, 0]), f"SOFTMAX: tensor 'tensor20' has shape (1, 0); {SHAPE}"),
    (result(8, shape=[10]), f"SOFTMAX: tensor 'tensor20' has shape (10,); {SHAPE}"),
]


@pytest.mark.parametrize(("edit", "words"), REFUSED)
def test_what_is_no_int8_lenet5_is_refused_by_name(edit, words, tmp_path):
    path = model_file(tmp_path, realistic_lenet5(edit=edit))
    with pytest.raises(UnsupportedModelError) as caught:
        to_c(path, tmp_path / "out")
    assert str(caught.value) == words
    assert not (tmp_path / "out").exists()


def test_what_is_no_flatbuffer_is_refused(tmp_path):
    good = realistic_lenet5()
    for bad, words in (
        (good[:4] + b"TFL4" + good[8:], "not a TFLite file (no TFL3 identifier)"),
        (b"", "not a TFLite file (no TFL3 identifier)"),
        (good[:8], "damaged flatbuffer (error)"),
    ):
        with pytest.raises(UnsupportedModelError) as caught:
            read_lenet5(model_file(tmp_path, bad))
        assert str(caught.value) == words


@given(st.data())
def test_damaged_file_is_refused_without_a_crash(tmp_path_factory, data):
    good = realistic_lenet5()  # made once
    bad = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if bad:
            bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path = model_file(tmp_path_factory.mktemp("damaged"), bytes(bad))
    try:
        to_c(path, path.parent)
    except (UnsupportedModelError, ArithmeticBoundError) as error:
        assert "\n" not in str(error)


# --- What is read -------------------------------------------------------------------------------


def test_numbers_are_read_as_they_are_written(tmp_path):
    def edit(model):
        for operator in model.operatorCodes:  # as old writers leave it
            operator.builtinCode = 0
        options(2, fusedActivationFunction=Relu.NONE)(model)
        taken(5, 0, name=b"\xff")(model)  # a name that is not text

    data = realistic_lenet5(1, edit, (0.5, 127), (-128, -7, 0, 1, 127))
    network = read_lenet5(model_file(tmp_path, data))
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


def test_tensors_may_be_listed_in_any_order(tmp_path):
    def bias_first(g):
        n = len(g.tensors)
        g.tensors = [*g.tensors[2:], *g.tensors[:2]]
        for users in (g, *g.operators):
            users.inputs = [(i - 2) % n for i in users.inputs]
            users.outputs = [(i - 2) % n for i in users.outputs]

    usual = read_lenet5(model_file(tmp_path, realistic_lenet5()))
    other = read_lenet5(model_file(tmp_path, realistic_lenet5(edit=graph(bias_first))))
    for a, b in zip(usual.layers, other.layers, strict=True):
        np.testing.assert_equal(vars(a), vars(b))


# --- What is written ----------------------------------------------------------------------------


def test_same_model_gives_the_same_bytes(tmp_path):
    path = model_file(tmp_path, realistic_lenet5())
    first, second = to_c(path, tmp_path / "a"), to_c(path, tmp_path / "b")
    for suffix in (".c", ".h"):
        assert first.with_suffix(suffix).read_bytes() == second.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_source_compiles_without_a_warning(compiler, level, tmp_path):
    source = to_c(model_file(tmp_path, realistic_lenet5()), tmp_path)
    compile_c(tmp_path / "model.o", level, "-c", str(source), compiler=need(compiler))


def test_source_needs_no_allocation_file_or_math_library(tmp_path):
    source = to_c(model_file(tmp_path, realistic_lenet5()), tmp_path)
    compiled = compile_c(tmp_path / "model.o", "-O2", "-c", str(source))
    symbols = run_program("nm", "--undefined-only", compiled).stdout
    wanted = {line.split()[-1] for line in symbols.splitlines()}
    allowed = {"memset", "memcpy", "memmove", "getauxval"}
    assert wanted <= allowed | {"__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.parametrize("seed", [0, 1, 3])  # the usual input quantization, and two others
def test_raw_pixels_give_what_their_quantized_and_padded_input_gives(seed, tmp_path):
    path = model_file(tmp_path, random_lenet5(seed))
    network = read_lenet5(path)
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    steps = np.clip(np.round(pixels / network.image.scale) + network.image.zero_point, -128, 127)
    images = np.random.default_rng(seed).integers(0, 256, (20, 28, 28), np.uint8)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    run = compiled_run(to_c(path, tmp_path), "PORTABLE", network.probabilities.channels)
    np.testing.assert_array_equal(run(images), run(steps.astype(np.int8)[padded]))
