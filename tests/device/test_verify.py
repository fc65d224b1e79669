"""`runner.py verify` on a small bundle put together here: every way to differ is told."""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT, run_runner
from onnx import TensorProto, helper, numpy_helper

from device.runner import Classifier
from export import seal

MODEL = "lenet5_fp32.onnx"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of one dense layer, small and sealed."""
    weights = np.random.default_rng(0).normal(0, 0.05, (1024, 10)).astype(np.float32)
    flat = numpy_helper.from_array(np.array([-1, 1024]), "flat")
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Softmax", ["y"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 32, 32, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [flat, numpy_helper.from_array(weights, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(proto, {"seal": json.dumps({seal.KEY: seal.DIGITS})})
    path = tmp_path_factory.mktemp("model") / MODEL
    path.write_bytes(seal.seal(proto.SerializeToString()))
    return path


@pytest.fixture(scope="module")
def expected(model, mnist):
    """uint8 (12, 28, 28) images and the model's own probabilities, float32 (12, 10)."""
    images = mnist.test.images[:12]
    return images, Classifier(model).predict(images).probabilities


@pytest.fixture
def bundle(model, expected, tmp_path):
    """A function that writes a bundle with some things changed and verifies it."""
    folder = tmp_path / "bundle"
    shutil.copytree(ROOT / "device", folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(model, folder)
    images, probabilities = expected

    def verify(
        *arguments,
        golden=probabilities,
        tolerance=1e-4,
        python=sys.executable,
        files=None,
        **models,
    ):
        labels = np.zeros(len(images), np.uint8)
        np.savez(folder / "golden.npz", images=images, labels=labels, **{MODEL: golden})
        hashes = {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in ("runner.py", "golden.npz", MODEL)
        }
        hashes.update(files or {})
        content = {
            "schema_version": 1,
            "files": {name: {"sha256": value} for name, value in hashes.items()},
            "models": {MODEL: {"tolerance": tolerance}, **models},
        }
        (folder / "manifest.json").write_text(json.dumps(content))
        command = ["verify", *(arguments or ["-m", folder / MODEL])]
        return run_runner(*command, runner=folder / "runner.py", python=python)

    verify.folder = folder
    return verify


def fails_with(run, line):
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "FAIL"
    assert line in run.stdout


def test_equal_answers_pass_and_name_the_model(bundle):
    run = bundle()
    assert (run.returncode, run.stdout.splitlines()[-1]) == (0, "PASS"), run.stderr
    assert run.stdout.startswith(f"ok       {MODEL} on onnxruntime ")


@pytest.mark.parametrize(("difference", "passes"), [(0.9e-3, True), (1.1e-3, False)])
def test_probabilities_may_differ_by_the_tolerance_and_no_more(
    bundle, expected, difference, passes
):
    golden = expected[1].copy()
    golden[3, 4] += difference
    run = bundle(golden=golden, tolerance=1e-3)
    if passes:
        assert run.returncode == 0
    else:
        fails_with(run, f"differs  {MODEL}: probabilities differ by 0.0011, over 0.001")


def test_another_label_fails_though_the_tolerance_covers_the_difference(bundle, expected):
    golden = expected[1].copy()
    golden[5] = 0.0
    golden[5, (expected[1][5].argmax() + 1) % 10] = 0.5
    run = bundle(golden=golden, tolerance=0.9999999)
    fails_with(run, f"differs  {MODEL}: golden image 5 is ")
    assert "probabilities differ" not in run.stdout


def test_nan_among_the_golden_outputs_fails(bundle, expected):
    golden = expected[1].copy()
    golden[2, 9] = np.nan
    fails_with(bundle(golden=golden), "probabilities differ by nan")


@pytest.mark.parametrize("shape", [(12, 9), (11, 10)])
def test_golden_outputs_of_another_shape_fail(bundle, expected, shape):
    golden = expected[1][: shape[0], : shape[1]]
    fails_with(bundle(golden=golden), f"golden outputs of shape {shape}, not (12, 10)")


@pytest.mark.parametrize("tolerance", [-1e-9, 1.0, float("nan"), "x"])
def test_tolerance_that_is_none_is_a_damaged_manifest(bundle, tolerance):
    run = bundle(tolerance=tolerance)
    assert run.returncode == 2
    assert run.stderr.endswith("manifest.json: damaged; unpack the bundle again\n")


def test_model_without_a_tolerance_is_refused(bundle):
    other = bundle.folder / "other.onnx"
    shutil.copy(bundle.folder / MODEL, other)
    run = bundle("-m", other)
    assert run.returncode == 2
    assert "other.onnx: not a model of this bundle's manifest" in run.stderr
    run = bundle("--all", **{"other.onnx": {"tolerance": 0.1}})  # without a hash
    assert run.returncode == 2
    assert "manifest.json: damaged" in run.stderr


@pytest.mark.parametrize("name", ["gone.txt", "a\nb", "a\x1b[2J"])
def test_missing_file_and_a_name_that_does_not_print_fail(bundle, name):
    if name != "gone.txt":
        (bundle.folder / name).write_bytes(b"")
    run = bundle(files={name: hashlib.sha256(b"").hexdigest()})
    assert run.returncode == 1
    assert "missing; unpack the bundle again" in run.stdout
    assert "\x1b" not in run.stdout
    assert run.stdout.count("\n") == 2


def test_altered_file_fails_and_no_model_is_run(bundle):
    run = bundle(files={"runner.py": "0" * 64})
    fails_with(run, "differs  runner.py: altered; its SHA-256 is not the manifest's")
    assert "ok " not in run.stdout


def test_nothing_run_is_a_failure(bundle, bare_python):
    run = bundle("--all", python=bare_python)
    fails_with(run, f"not run  {MODEL}: no runtime installed")
    assert "no model could be run: install a runtime" in run.stdout
