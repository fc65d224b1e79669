"""Where an int8 artifact loses precision: every layer is found, and bad quantization shows."""

import re
import shutil
from pathlib import Path

import broken
import numpy as np
import onnx
import pytest

from pipeline import config
from pipeline.data import preprocess
from pipeline.parity import layer_noise
from pipeline.train.training import load_model

BUDGET = config.load_parity_budget()


@pytest.mark.parametrize(
    ("reference", "quantized", "expected_db"),
    [
        ([1.0, 1.0], [1.0, 1.0], 200.0),
        ([10.0, 0.0], [9.0, 0.0], 20.0),
        ([3.0, 4.0], [3.0, 3.5], 20.0),
        ([1.0], [11.0], -20.0),
        ([0.0], [1.0], -200.0),
        ([1e10, 1e-6], [1e10, 0.0], 200.0),  # 320, which is cut off
        ([1e-6], [1e10], -200.0),
        (np.float32([1e30]), [0.0], 0.0),  # beyond float32 when squared
        ([1e100], [0.0], 0.0),
        ([1.0, 1.0], [1.0, np.nan], -200.0),
        ([1.0, 1.0], [1.0, np.inf], -200.0),
    ],
)
def test_sqnr_of_hand_computed_values(reference, quantized, expected_db):
    assert layer_noise.sqnr_db(np.array(reference), np.array(quantized)) == pytest.approx(
        expected_db
    )


@pytest.fixture(scope="module")
def float_weights(exported):
    return load_model(exported / "lenet5.keras").get_weights()


@pytest.fixture(scope="module")
def samples(mnist):
    return preprocess(mnist.test.images[:32])


def test_float_outputs_are_those_of_keras(exported, float_weights, samples):
    model = load_model(exported / "lenet5.keras")
    outputs = layer_noise.float_outputs(float_weights, samples)
    assert [values.shape[1:] for values in outputs] == [
        *((28, 28, 6), (14, 14, 6), (10, 10, 16)),
        *((400,), (120,), (84,), (10,), (10,)),
    ]
    np.testing.assert_allclose(outputs[-1], model.predict(samples, verbose=0), atol=1e-5)


def test_ideal_weights_are_rounded_to_the_nearest_step_of_their_channel():
    # A scale a channel (the last axis): 0.127 / 127 and 127 / 127.
    kernel = np.float32([[0.127, 127.0, 0.0], [0.0014, 0.4, 0.0], [0.0016, -0.6, 0.0]])
    expected = [[0.127, 127.0, 0.0], [0.001, 0.0, 0.0], [0.002, -1.0, 0.0]]
    np.testing.assert_allclose(layer_noise._round_weights(kernel), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "rounded"),
    [
        ([-51.0, 0.4, 0.6, 204.0], [-51, 0, 1, 204]),  # 255 steps of 1
        ([-102.0, 0.9, 1.1, 408.0], [-102, 0, 2, 408]),  # of 2
        ([51.0, 0.11, 5.0], [51.0, 0.2, 5.0]),  # of 0.2: zero is always among them
        ([-0.255, -0.0016], [-0.255, -0.002]),
        ([-1.5, 253.5], [-2.0, 253.0]),  # 254 would be the 257th step
        ([0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_activations_are_rounded_to_256_steps(values, rounded):
    got = layer_noise._round_activation(np.float32(values))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, rounded, rtol=1e-6)


@pytest.mark.parametrize("name", ["lenet5_int8.tflite", "lenet5_int8.onnx"])
def test_layers_of_both_kinds_are_found_by_position_and_shape(
    name, exported, float_weights, samples
):
    noise = layer_noise.measure(exported / name, float_weights, samples)
    assert [n.tensor for n in noise] == [
        n for n in layer_noise.LAYERS if n != "OUTPUT" or name.endswith("onnx")
    ]
    assert all(n.artifact == name and n.loss_db < BUDGET.int8_max_sqnr_loss_db for n in noise)


def test_renamed_tensors_hide_no_layer_and_other_layers_are_no_layers(
    artifacts, float_weights, samples
):
    path = artifacts / "lenet5_int8.onnx"
    before = layer_noise.measure(path, float_weights, samples)
    model = onnx.load(path)
    for node in model.graph.node:  # every activation gets another name
        for names in (node.input, node.output):
            names[:] = [re.sub("Relu|MaxPool2d", "other", text) for text in names]
    for tensor in model.graph.initializer:
        tensor.name = re.sub("Relu|MaxPool2d", "other", tensor.name)
    onnx.save(model, path)
    assert layer_noise.measure(path, float_weights, samples) == before
    wider = [*float_weights[:4], np.zeros((400, 121)), np.zeros(121), np.zeros((121, 84))]
    assert layer_noise.measure(path, [*wider, *float_weights[7:]], samples) == ()
    next(node for node in model.graph.node if node.op_type == "MaxPool").op_type = "Relu"
    onnx.save(model, path)
    assert layer_noise.measure(path, float_weights, samples) == ()


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_float_model_under_an_int8_name_has_no_int8_layers(
    kind, exported, float_weights, samples, tmp_path
):
    path = Path(shutil.copy(exported / f"lenet5_fp32.{kind}", tmp_path / f"lenet5_int8.{kind}"))
    assert layer_noise.measure(path, float_weights, samples) == ()


def test_onnx_file_with_a_name_that_is_not_text_has_no_layers(artifacts, float_weights, samples):
    path = artifacts / "lenet5_int8.onnx"
    broken.rename_a_tensor_to_bytes_that_are_no_text(path)
    assert layer_noise.measure(path, float_weights, samples) == ()


BREAK_LAYERS = {
    "cast without rounding": broken.cast_without_rounding,
    "truncating requantization": lambda path, model: broken.truncating_requantization(path),
    "calibrated on noise": broken.calibrated_on_noise,
}


@pytest.mark.parametrize("breakage", BREAK_LAYERS)
def test_layers_of_a_broken_quantization_lose_more_than_the_budget(
    breakage, artifacts, float_weights, samples
):
    path = artifacts / "lenet5_int8.tflite"
    BREAK_LAYERS[breakage](path, artifacts / "lenet5.keras")
    noise = layer_noise.measure(path, float_weights, samples)
    assert max(n.loss_db for n in noise) > BUDGET.int8_max_sqnr_loss_db
