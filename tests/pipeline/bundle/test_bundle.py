"""The bundle: reproducible, complete, and only of what passed."""

import copy
import hashlib
import json
import sys
import tarfile

import numpy as np
import pytest
from helpers import DEVICE_PYTHON, run_program, run_runner, run_stage

from export.bundle import unpack_bundle, write_bundle
from pipeline.artifacts import this_architecture
from pipeline.bundle import pack


@pytest.fixture
def unpacked(packed, tmp_path):
    unpack_bundle(packed, tmp_path)
    (folder,) = tmp_path.iterdir()
    return folder


def test_same_artifacts_give_the_same_bytes(packed, artifacts, small_data, tmp_path):
    run = run_stage("bundle", "--data", small_data, "--out", artifacts, "--dist", tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / packed.name).read_bytes() == packed.read_bytes()


def test_manifest_tells_the_hash_of_every_file_and_the_contract_of_every_model(unpacked):
    manifest = json.loads((unpacked / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["labels"] == list("0123456789")
    present = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    present.remove("manifest.json")
    assert set(manifest["files"]) == present
    for name, entry in manifest["files"].items():
        content = (unpacked / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert len(content) == entry["size_bytes"]
    model = manifest["models"]["lenet5_int8.tflite"]
    assert model["input"]["zero_point"] == -128
    assert model["input"]["scale"] == pytest.approx(1 / 255)
    assert 0.8 < model["accuracy"] <= 1.0
    assert {"tensorflow", "onnxruntime"} <= set(manifest["tools"])


def test_web_folder_holds_the_module_that_parity_judged(unpacked, exported):
    web = {path.name: path for path in (unpacked / "web").iterdir()}
    assert set(web) == {"index.html", "lenet5.js", "digit.js", "lenet5_int8.wasm"}
    judged = exported / "native" / "lenet5_int8.wasm"
    assert web["lenet5_int8.wasm"].read_bytes() == judged.read_bytes()


def test_golden_vectors_are_256_test_images_and_64_exciting_ones_with_every_models_outputs(
    unpacked, mnist
):
    with np.load(unpacked / "golden.npz") as golden:
        assert golden["images"].shape == (320, 28, 28)
        assert golden["labels"].shape == (256,)
        for name in ("lenet5_fp32.tflite", "lenet5_int8.tflite", "lenet5_int8.onnx"):
            assert golden[name].shape == (320, 10)
            np.testing.assert_allclose(golden[name].sum(axis=1), 1.0, atol=0.02)
    manifest = json.loads((unpacked / "manifest.json").read_text())
    indices = manifest["golden"]["test_indices"]
    with np.load(unpacked / "golden.npz") as golden:
        np.testing.assert_array_equal(golden["images"][:256], mnist.test.images[indices])


def test_example_picture_is_read_right_by_the_runner_and_by_the_command(unpacked, mnist):
    picture = unpacked / "example.pgm"
    pixels = np.frombuffer(picture.read_bytes()[-784:], np.uint8).reshape(28, 28)
    label = mnist.test.labels[(mnist.test.images == pixels).all(axis=(1, 2)).argmax()]
    run = run_runner(picture, python=DEVICE_PYTHON, runner=unpacked / "runner.py")
    assert run.stdout.split()[1] == str(label), run.stdout + run.stderr
    command = unpacked / "native" / this_architecture() / "lenet5"
    run = run_program(command, picture)
    assert run.stdout.split()[2] == str(label), run.stdout + run.stderr


@pytest.mark.parametrize("python", [sys.executable, DEVICE_PYTHON])
def test_every_model_verifies_in_both_environments(unpacked, python):
    run = run_runner("verify", "--all", python=python, runner=unpacked / "runner.py")
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("ok ") == 5
    assert run.stdout.splitlines()[-1] == "PASS"


def test_files_of_another_bundle_have_another_time_so_that_no_old_bytecode_is_run(tmp_path):
    times = set()
    for content in (b"a = 1", b"a = 2"):
        path = tmp_path / "bundle.tar.gz"
        write_bundle({"module.py": content}, {}, "root", path)
        with tarfile.open(path) as archive:
            times |= {member.mtime for member in archive}
    assert len(times) == 2
    assert all(1_577_836_800 <= time_s < 1_577_836_800 + 2**26 for time_s in times)


def test_figures_of_a_model_are_of_the_row_that_passed(exported):
    parity = json.loads((exported / "parity.json").read_text())
    name = "lenet5_int8.tflite"
    good = next(r for r in parity["rows"] if r["artifact"] == name and r["status"] == "pass")
    bad = {**copy.deepcopy(good), "status": "fail", "accuracy": 0.1, "agreement": 0.1}
    described = pack.describe_model(exported / name, {"rows": [bad, good]})
    assert (described["accuracy"], described["agreement"]) == (good["accuracy"], good["agreement"])
    assert described["golden_runtime"] == f"{good['runtime']} {good['runtime_version']}"
    assert described["tolerance"] == 0.0625


def bundled(artifacts, data):
    """The stage's run, and its bundle; None if there is none."""
    dist = artifacts / "dist"
    run = run_stage("bundle", "--data", data, "--out", artifacts, "--dist", dist)
    return run, next(dist.glob("*.tar.gz"), None)


def test_shuffled_probabilities_are_not_packed(artifacts, small_data):
    path = artifacts / "probabilities.npz"
    with np.load(path) as archive:
        arrays = {name: values[::-1] for name, values in archive.items()}
    np.savez(path, **arrays)
    run, bundle = bundled(artifacts, small_data)
    assert (run.returncode, bundle) == (2, None)
    assert "the bundle does not verify: differs  lenet5_fp32.tflite" in run.stderr


def test_golden_outputs_that_the_packed_command_does_not_give_are_not_packed(
    artifacts, small_data, monkeypatch, tmp_path
):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))  # only the command is asked
    monkeypatch.setattr(pack.artifacts, "DEVICE_PYTHON", tmp_path / "none")
    path = artifacts / "native" / "golden.bin"
    golden = bytearray(path.read_bytes())
    for last in range(8 + 794 - 1, len(golden), 794):
        golden[last] ^= 1
    path.write_bytes(golden)
    run, bundle = bundled(artifacts, small_data)
    assert (run.returncode, bundle) == (2, None)
    assert "the bundle does not verify: 64 of 320 outputs equal" in run.stderr


def test_a_header_of_the_c_that_was_changed_or_is_missing_is_not_packed(artifacts, small_data):
    header = artifacts / "native" / "lenet5_int8.h"
    for change in (lambda: header.write_text(header.read_text() + "\n"), header.unlink):
        change()
        run, bundle = bundled(artifacts, small_data)
        assert (run.returncode, bundle) == (2, None)
        assert f"{header}: missing or not of lenet5_int8.tflite" in run.stderr


def test_other_data_set_or_other_label_names_are_refused(artifacts, small_data, tmp_path):
    other = tmp_path / "renamed"
    other.mkdir()
    (other / "small.npz").symlink_to(small_data / "small.npz")
    (other / "labels.txt").write_text("\n".join("0125436789"))
    run, bundle = bundled(artifacts, other)
    assert (run.returncode, bundle) == (2, None)
    assert "not the data set that the model was trained on" in run.stderr
    for stage in ("export", "native", "parity"):
        run = run_stage(stage, "--data", other, "--out", artifacts)
        assert run.returncode == 2
        assert "not the data set that the model was trained on" in run.stderr


def test_label_names_are_the_data_sets_whatever_train_json_says(artifacts, small_data):
    path = artifacts / "train.json"
    training = {**json.loads(path.read_text()), "label_names": list("0125436789")}
    path.write_text(json.dumps(training))
    run, bundle = bundled(artifacts, small_data)
    assert run.returncode == 0, run.stderr
    with tarfile.open(bundle) as archive:
        name = next(n for n in archive.getnames() if n.endswith("/manifest.json"))
        assert json.load(archive.extractfile(name))["labels"] == list("0123456789")
