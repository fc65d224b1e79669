"""The native stage: golden outputs lie there only when all else does, and of their images alone."""

import shutil

import numpy as np
import pytest
from helpers import run_stage

from pipeline import native
from pipeline.artifacts import FP32_TFLITE, INT8_TFLITE, NATIVE_GOLDEN, NATIVE_WASM
from pipeline.classify import Outputs
from pipeline.files import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
OUTPUTS = np.arange(-15, 15, dtype=np.int8).reshape(3, 10)


def test_golden_outputs_are_read_back_for_their_images_and_no_others(tmp_path):
    path = tmp_path / "golden.bin"
    content = native.golden_file(IMAGES, OUTPUTS)
    path.write_bytes(content)
    np.testing.assert_array_equal(native.read_golden(path, IMAGES), OUTPUTS)
    other = IMAGES.copy()
    other[2, 27, 27] ^= 1
    for wrong, images in (
        (content, other),
        (content, IMAGES[:2]),
        (content[:-1], IMAGES),
        (content[:8], IMAGES),
        (None, IMAGES),
    ):
        path.unlink() if wrong is None else path.write_bytes(wrong)
        with pytest.raises(UserError, match=r"golden\.bin: missing, damaged or of other images"):
            native.read_golden(path, images)


@pytest.fixture
def without_compiler(monkeypatch):
    """The stage compiles nothing; what it classifies with, it asks `answers` for."""
    answers = {}
    monkeypatch.setattr(native, "build", lambda *_: None)
    monkeypatch.setattr(native, "build_wasm", lambda folder: (folder / NATIVE_WASM).touch())
    monkeypatch.setattr(native, "classify_apart", lambda path, runtime, *_: answers[runtime])
    return answers


def test_where_the_c_does_not_run_no_golden_outputs_are_left(
    artifacts, small_data, without_compiler
):
    without_compiler |= {"tflite-runtime": "missing", "native": "crashed (signal 4)"}
    run = run_stage("native", "--data", small_data, "--out", artifacts)
    assert run.returncode == 2
    assert "lenet5_int8.c: it does not run here: crashed (signal 4); make it" in run.stderr
    assert not (artifacts / NATIVE_GOLDEN).exists()


@pytest.mark.parametrize("runtime", ["tflite-runtime", "native"])
def test_golden_outputs_are_tflite_runtimes_or_else_the_cs(
    artifacts, small_data, mnist, without_compiler, runtime
):
    right = np.full((1000, 10), 3 if runtime == "native" else 4, np.int8)
    others = Outputs(right, np.full_like(right, 9), "")
    without_compiler |= {"tflite-runtime": "missing", "native": others}
    without_compiler[runtime] = Outputs(right, right, "")
    run = run_stage("native", "--data", small_data, "--out", artifacts)
    assert run.returncode == 0, run.stderr
    found = native.read_golden(artifacts / NATIVE_GOLDEN, mnist.test.images[:1000])
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize(
    ("there", "said"), [(None, "missing; run `make export`"), (FP32_TFLITE, "no C for it: ")]
)
def test_what_is_no_int8_model_is_one_line(artifacts, small_data, there, said):
    (artifacts / INT8_TFLITE).unlink()
    if there:
        shutil.copy(artifacts / there, artifacts / INT8_TFLITE)
    run = run_stage("native", "--data", small_data, "--out", artifacts)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert f"lenet5_int8.tflite: {said}" in run.stderr
