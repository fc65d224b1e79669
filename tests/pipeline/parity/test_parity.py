"""Parity cannot be fooled: what is broken fails, what did not run is not a pass."""

import json
import shutil

import broken
import pytest
from helpers import HAS_TFLITE_RUNTIME, run_stage

from pipeline import native
from pipeline.artifacts import NATIVE_SOURCE, NATIVE_WASM
from pipeline.parity import judge


def test_healthy_artifacts_pass_on_every_runtime_and_every_image(exported):
    result = json.loads((exported / "parity.json").read_text())
    assert result["status"] == "pass"
    assert result["reference"]["artifact"] == "lenet5.keras"
    assert result["reference"]["n"] == 1_000
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
        assert r["n"] == 1_000
        assert len(r["flips"]) == round((1 - r["agreement"]) * 1_000)
        assert r["delta_ci95_pp"][0] <= r["delta_pp"] <= r["delta_ci95_pp"][1]
    ran_on = {(r["artifact"], r["runtime"]) for r in ran}
    same = {r["bit_identical"] for r in ran if r["artifact"] in judge.FROM_C}
    assert same == {True if judge.SAME_BITS_AS in ran_on else None}
    assert {row["file"] for row in result["binaries"]} == set(native.BINARIES)
    assert all(row["status"] != "fail" for row in result["binaries"])
    assert len(result["c_layers"]) == 7
    assert all(row["status"] != "fail" for row in result["c_layers"])
    assert {noise["artifact"] for noise in result["layers"]} == {
        "lenet5_int8.tflite",
        "lenet5_int8.onnx",
    }


def break_names_weights_and_rounding(folder):
    broken.label_names_exchanged(folder / "lenet5_fp32.onnx")
    broken.without_weights(folder / "lenet5_fp32.tflite")
    broken.cast_without_rounding(folder / "lenet5_int8.tflite", folder / "lenet5.keras")
    broken.onnx_calibrated_on_noise(folder / "lenet5_int8.onnx", folder / "lenet5_fp32.onnx")


def float_files_under_the_names_of_int8_and_one_missing(folder):
    broken.label_names_exchanged(folder / "lenet5_fp32.tflite")
    for kind in ("tflite", "onnx"):
        shutil.copy(folder / f"lenet5_fp32.{kind}", folder / f"lenet5_int8.{kind}")
    (folder / "lenet5_fp32.onnx").unlink()


MODELS = {"lenet5_fp32.tflite", "lenet5_int8.tflite", "lenet5_fp32.onnx", "lenet5_int8.onnx"}
BREAK = (break_names_weights_and_rounding, float_files_under_the_names_of_int8_and_one_missing)


@pytest.mark.usefixtures("this_machine_alone")
@pytest.mark.parametrize("break_it", BREAK)
def test_broken_and_missing_artifacts_make_parity_exit_1_and_name_each_row(
    break_it, artifacts, small_data
):
    break_it(artifacts)
    missing = {name for name in MODELS if not (artifacts / name).exists()}
    # Made of the whole int8 file, the C and the WebAssembly have neither its numbers nor its bits.
    names = {*MODELS, *judge.FROM_C} - missing
    if not HAS_TFLITE_RUNTIME:
        names.remove(NATIVE_WASM)  # nothing has the bits to compare it with
    run = run_stage("parity", "--data", small_data, "--out", artifacts)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "parity: fail" in run.stdout
    result = json.loads((artifacts / "parity.json").read_text())
    failed = {r["artifact"] for r in result["rows"] if r["status"] == "fail"}
    assert failed == names
    assert all(f"{name} on " in run.stdout for name in names)
    (of_c,) = (r["reason"] for r in result["rows"] if r["artifact"] == NATIVE_SOURCE)
    for gate in ("numbers", "(this machine, "):  # read back from its text, and layer by layer
        assert gate in of_c
    not_run = [row for row in result["rows"] if row["status"] == "not_run" and not row["allowed"]]
    assert missing == {row["artifact"] for row in not_run}
    run = run_stage("bundle", "--data", small_data, "--out", artifacts, "--dist", artifacts)
    assert run.returncode == 2
    assert "only what passed is packed" in run.stderr
