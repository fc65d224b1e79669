"""Parity cannot be fooled: what is broken fails, what did not run is not a pass."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import broken
import numpy as np
import onnx
import pytest
from conftest import run_stage

from pipeline import config
from pipeline.artifacts import Subject, this_architecture
from pipeline.classify import Outputs
from pipeline.data import preprocess
from pipeline.parity import check, judge, layer_noise
from pipeline.parity.judge import ParityRow
from pipeline.train.training import load_model

BUDGET = config.load_parity_budget()
FLOAT = Subject("lenet5_fp32.onnx", "onnxruntime", Path("python"), True)
INT8 = Subject("lenet5_int8.onnx", "onnxruntime", Path("python"), False)


def one_hot(labels, classes=10):
    return np.eye(classes, dtype=np.float32)[labels]


def judged(subject, flips, n=10_000, wrong=0):
    """Reasons after `flips` right labels became wrong ones; the reference errs `wrong` times."""
    labels = np.arange(n) % 10
    reference = labels.copy()
    reference[n - wrong :] = (reference[n - wrong :] + 1) % 10
    got = reference.copy()
    got[:flips] = (got[:flips] + 1) % 10
    reasons, figures = judge.judge(subject, labels, one_hot(reference), one_hot(got), BUDGET)
    assert len(figures["flips"]) == flips
    return reasons


@pytest.mark.parametrize(
    ("subject", "flips", "wrong", "passes"),
    [
        (FLOAT, 0, 0, True),
        (FLOAT, 1, 0, False),  # 10,000 of 10,000
        (FLOAT, 1, 2000, False),  # whatever the reference
        (INT8, 10, 100, True),  # exactly 99.9 % and exactly 0.10 pp
        (INT8, 11, 100, False),
        (INT8, 40, 400, True),  # a reference that errs 4 times as often: 4 times the flips
        (INT8, 41, 400, False),
        (INT8, 100, 9000, True),  # but never more than 10 times
        (INT8, 101, 9000, False),
    ],
)
def test_budget_is_enforced_to_the_image(subject, flips, wrong, passes):
    assert (judged(subject, flips, wrong=wrong) == []) is passes


def test_float_probability_beyond_its_budget_fails_though_every_label_agrees():
    labels = np.zeros(100, int)
    reference = np.tile(np.float32([0.9, 0.1]), (100, 1))
    got = reference + np.float32([-2e-4, 2e-4])
    reasons, _ = judge.judge(FLOAT, labels, reference, got, BUDGET)
    assert reasons == ["max |dp| 2.0e-04, above 1.0e-04"]


def test_nan_and_another_shape_fail_with_their_reason():
    labels, reference = np.zeros(5, int), one_hot(np.zeros(5, int))
    got = reference.copy()
    got[3, 2] = np.nan
    assert judge.judge(INT8, labels, reference, got, BUDGET)[0] == [
        "NaN or infinity among the probabilities"
    ]
    assert "shape" in judge.judge(INT8, labels, reference, reference[:, :9], BUDGET)[0][0]


def row(status, **values):
    return ParityRow("lenet5_int8.onnx", "onnxruntime", "1", "", status, "", **values)


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([row("pass"), row("pass")], "pass"),
        ([row("pass"), row("fail"), row("not_run")], "fail"),
        ([row("pass"), row("not_run")], "not_run"),
        ([row("pass"), row("not_run", allowed=True)], "pass"),
    ],
)
def test_a_row_that_did_not_run_is_never_a_pass_unless_allowed(rows, status):
    assert judge.overall_status(rows) == status


@pytest.mark.parametrize(
    ("loss_db", "status"),
    [(-5.0, "pass"), (2.9, "pass"), (3.0, "pass"), (3.1, "fail"), (np.nan, "fail")],
)
def test_a_layer_may_lose_three_decibels_against_the_ideal_and_no_more(loss_db, status):
    layers = [
        layer_noise.TensorNoise("lenet5_int8.onnx", name, 40.0 - lost, 40.0)
        for name, lost in (("C1", 0.0), ("C3", loss_db), ("F6", 0.0))
    ]
    (judged,) = judge.with_layers([row("pass")], layers, BUDGET)
    assert judged.status == status
    assert ("layer C3 " in judged.reason) is (status == "fail")


def test_an_int8_row_without_its_own_layers_fails():
    others = [layer_noise.TensorNoise("lenet5_int8.tflite", "C1", 40.0, 40.0)]
    for layers in ([], others):
        assert judge.with_layers([row("pass")], layers, BUDGET)[0].status == "fail"


@pytest.mark.parametrize(
    ("reference", "quantized", "expected_db"),
    [
        ([1.0, 1.0], [1.0, 1.0], 200.0),
        ([10.0, 0.0], [9.0, 0.0], 20.0),
        ([3.0, 4.0], [3.0, 3.5], 20.0),
        ([0.0], [1.0], -200.0),
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


def test_ideal_weights_and_activations_are_rounded_to_the_nearest_of_their_steps():
    # A scale a channel (the last axis): 1.27 / 127 and 127 / 127.
    kernel = np.float32([[1.27, 127.0], [0.014, 0.4], [0.016, -0.6]])
    expected = [[1.27, 127.0], [0.01, 0.0], [0.02, -1.0]]
    np.testing.assert_allclose(layer_noise._round_weights(kernel), expected, rtol=1e-6)
    values = np.float32([-51.0, 0.4, 0.6, 204.0])  # 255 steps of 1
    np.testing.assert_allclose(layer_noise._round_activation(values), [-51, 0, 1, 204])


@pytest.mark.parametrize("name", ["lenet5_int8.tflite", "lenet5_int8.onnx"])
def test_layers_of_both_kinds_are_found_by_position_and_shape(
    name, exported, float_weights, samples
):
    noise = layer_noise.measure(exported / name, float_weights, samples)
    assert [n.tensor for n in noise] == [
        n for n in layer_noise.LAYERS if n != "OUTPUT" or name.endswith("onnx")
    ]
    assert all(n.artifact == name and n.loss_db < 3 for n in noise)


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
    assert max(n.loss_db for n in noise) > BUDGET.int8_max_sqnr_loss_db + 0.5


def test_healthy_artifacts_pass_on_every_runtime_and_every_image(exported):
    result = json.loads((exported / "parity.json").read_text())
    assert result["status"] == "pass"
    assert result["reference"]["artifact"] == "lenet5.keras"
    assert result["reference"]["n"] == 2_000
    ran = [r for r in result["rows"] if r["status"] == "pass"]
    assert {r["artifact"] for r in ran} == {
        "lenet5_fp32.tflite",
        "lenet5_int8.tflite",
        "lenet5_fp32.onnx",
        "lenet5_int8.onnx",
        *judge.FROM_C,
    }
    assert all(r["status"] == "pass" or r["allowed"] for r in result["rows"])
    for r in ran:
        assert r["n"] == 2_000
        assert len(r["flips"]) == round((1 - r["agreement"]) * 2_000)
        assert r["delta_ci95_pp"][0] <= r["delta_pp"] <= r["delta_ci95_pp"][1]
    ran_on = {(r["artifact"], r["runtime"]) for r in ran}
    same = {r["bit_identical"] for r in ran if r["artifact"] in judge.FROM_C}
    assert same == {True if judge.SAME_BITS_AS in ran_on else None}
    assert {noise["artifact"] for noise in result["layers"]} == {
        "lenet5_int8.tflite",
        "lenet5_int8.onnx",
    }


BREAKAGES = {
    "a float file under the name of int8": (
        "lenet5_int8.tflite",
        lambda folder: shutil.copy(folder / "lenet5_fp32.tflite", folder / "lenet5_int8.tflite"),
    ),
    "a float ONNX file under the name of int8": (
        "lenet5_int8.onnx",
        lambda folder: shutil.copy(folder / "lenet5_fp32.onnx", folder / "lenet5_int8.onnx"),
    ),
    "a float model without weights": (
        "lenet5_fp32.tflite",
        lambda folder: broken.without_weights(folder / "lenet5_fp32.tflite"),
    ),
    "two label names exchanged": (
        "lenet5_fp32.tflite",
        lambda folder: broken.label_names_exchanged(folder / "lenet5_fp32.tflite"),
    ),
    "two label names exchanged in ONNX": (
        "lenet5_fp32.onnx",
        lambda folder: broken.label_names_exchanged(folder / "lenet5_fp32.onnx"),
    ),
    "two labels exchanged": (
        "lenet5_int8.tflite",
        lambda folder: broken.labels_exchanged(folder / "lenet5_int8.tflite"),
    ),
    "calibrated on noise": (
        "lenet5_int8.tflite",
        lambda folder: broken.calibrated_on_noise(
            folder / "lenet5_int8.tflite", folder / "lenet5.keras"
        ),
    ),
    "ONNX calibrated on noise": (
        "lenet5_int8.onnx",
        lambda folder: broken.onnx_calibrated_on_noise(
            folder / "lenet5_int8.onnx", folder / "lenet5_fp32.onnx"
        ),
    ),
    "quantized by casting without rounding": (
        "lenet5_int8.tflite",
        lambda folder: broken.cast_without_rounding(
            folder / "lenet5_int8.tflite", folder / "lenet5.keras"
        ),
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_artifact_makes_parity_exit_1_and_name_the_row(breakage, artifacts, small_data):
    name, break_it = BREAKAGES[breakage]
    break_it(artifacts)
    run = run_stage("parity", "--data", small_data, "--out", artifacts)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "parity: fail" in run.stdout
    result = json.loads((artifacts / "parity.json").read_text())
    failed = {r["artifact"] for r in result["rows"] if r["status"] == "fail"}
    also = set()
    if name == "lenet5_int8.tflite" and any(r["bit_identical"] is not None for r in result["rows"]):
        also = set(judge.FROM_C)  # made from the whole one, they do not give these outputs
    assert failed == {name} | also
    assert f"{name} on " in run.stdout
    run = run_stage("bundle", "--data", small_data, "--out", artifacts, "--dist", artifacts)
    assert run.returncode == 2
    assert "only what passed is packed" in run.stderr


def test_missing_artifact_is_not_run_and_not_a_pass(artifacts, small_data):
    (artifacts / "lenet5_int8.onnx").unlink()
    run = run_stage("parity", "--data", small_data, "--out", artifacts)
    assert run.returncode == 1
    result = json.loads((artifacts / "parity.json").read_text())
    assert result["status"] == "not_run"
    assert "lenet5_int8.onnx on onnxruntime: not_run" in run.stdout


def test_reference_that_is_not_what_training_wrote_is_refused(artifacts, small_data):
    with (artifacts / "lenet5.keras").open("ab") as stream:
        stream.write(b"x")
    run = run_stage("parity", "--data", small_data, "--out", artifacts)
    assert run.returncode == 2
    assert "lenet5.keras: its SHA-256 is not the one in train.json" in run.stderr


# --- The C file ---------------------------------------------------------------------------------

NATIVE = Subject("native/lenet5_int8.c", "native", Path("python"), False)


def outputs(raw):
    return Outputs(np.zeros(raw.shape, np.float32), raw, "1")


def test_one_bit_of_one_output_fails_the_c_file_and_no_other():
    promised = np.zeros((5, 10), np.int8)
    got = promised.copy()
    passed = replace(row("pass"), artifact=NATIVE.artifact, runtime="native")
    assert judge.with_bits(passed, outputs(got), outputs(promised)).bit_identical is True
    got[3, 2] = 1
    failed = judge.with_bits(passed, outputs(got), outputs(promised))
    assert (failed.status, failed.bit_identical) == ("fail", False)
    assert failed.reason.startswith("1 outputs are not, bit for bit, those of lenet5_int8.tflite")
    assert judge.with_bits(row("pass"), outputs(got), outputs(promised)) == row("pass")
    assert judge.with_bits(passed, outputs(got), None) == passed


@pytest.mark.parametrize("compiler", [True, False])
def test_c_that_is_not_compiled_may_be_missing_only_where_there_is_no_compiler(
    compiler, artifacts, small_data, monkeypatch
):
    shutil.rmtree(artifacts / "native" / this_architecture())
    if not compiler:
        monkeypatch.setattr(check.shutil, "which", lambda program: None)
    source = artifacts / "native" / "lenet5_int8.c"
    got = check.classify_apart(source, "native", Path(sys.executable), np.zeros((1, 28, 28), "u1"))
    judged = check._judge(NATIVE, artifacts, got, None, None, BUDGET)
    assert (judged.status, judged.allowed) == ("not_run", not compiler)
    assert "not compiled for this machine" in judged.reason
    assert ("has no C compiler" in judged.reason) is not compiler
