"""The receipt: what proved itself here is timed, the fastest is used, and only here."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from helpers import run_runner, write_script

from export.bundle import unpack_bundle
from pipeline.files import sha256


@pytest.fixture(scope="module")
def bundle(packed, tmp_path_factory):
    """The bundle of the tiny model, unpacked, with its receipt; and what was said."""
    dist = tmp_path_factory.mktemp("dist")
    unpack_bundle(packed, dist)
    (folder,) = dist.iterdir()
    return folder, receipt_of(folder)


def receipt_of(folder):
    run = run_runner("receipt", runner=folder / "runner.py")
    assert (run.returncode, run.stderr) == (0, ""), run.stdout + run.stderr
    return run.stdout


def test_every_model_proves_itself_on_every_runtime_and_the_fastest_is_used(bundle):
    folder, said = bundle
    receipt = json.loads((folder / "device.json").read_text())
    rows = {(row["artifact"], row["runtime"]): row for row in receipt["rows"]}
    assert ("lenet5_int8.tflite", "ai-edge-litert") in rows
    assert ("lenet5_fp32.onnx", "onnxruntime") in rows
    assert all(row["verified"] and row["latency_us"] > 0 for row in rows.values())
    assert all(row["sha256"] == sha256(folder / row["artifact"]) for row in receipt["rows"])
    fastest = min(rows, key=lambda key: rows[key]["latency_us"])
    assert tuple(receipt["choice"].values()) == fastest
    assert f"chosen: {fastest[0]} on {fastest[1]}\nPASS\n" in said
    assert not list(folder.glob("device.new"))


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle[0], tmp_path / "bundle")


def test_the_choice_is_used_unless_a_runtime_is_named(copy):
    path = copy / "device.json"
    choice = {"artifact": "lenet5_fp32.onnx", "runtime": "onnxruntime"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "choice": choice}))
    run = run_runner("info", runner=copy / "runner.py")
    assert "runtime  onnxruntime" in run.stdout
    run = run_runner("info", "--runtime", "ai-edge-litert", runner=copy / "runner.py")
    assert "runtime  ai-edge-litert" in run.stdout


def alter_golden(bundle, name):
    """One probability of a model is another; the manifest has the new file's hash."""
    with np.load(bundle / "golden.npz") as archive:
        arrays = dict(archive)
    arrays[name][-1, 0] += 0.01
    np.savez(bundle / "golden.npz", **arrays)
    manifest = json.loads((bundle / "manifest.json").read_text())
    digest = hashlib.sha256((bundle / "golden.npz").read_bytes()).hexdigest()
    manifest["files"]["golden.npz"]["sha256"] = digest
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_what_crashes_cannot_run_or_answers_otherwise_is_not_used_and_a_throttled_board_says_so(
    copy, tmp_path, monkeypatch
):
    alter_golden(copy, "lenet5_fp32.tflite")
    crash = "import os\nos.kill(os.getpid(), 4)"
    (copy / "onnxruntime.py").write_text(crash)  # found before the real one
    (copy / "tflite_runtime.py").touch()  # it needs numpy 1
    write_script(tmp_path / "vcgencmd", "echo throttled=0x5")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    said = receipt_of(copy)
    assert "while it was timed, this machine had: under-voltage, throttled\n" in said
    for why in (
        "crashed (signal 4)",
        "tflite-runtime needs numpy 1",
        "probabilities differ by 0.01",
    ):
        assert f"not used: {why}" in said
    receipt = json.loads((copy / "device.json").read_text())
    assert receipt["throttled"] == "under-voltage, throttled"
    assert [row["verified"] for row in receipt["rows"]] == [
        row["runtime"] in ("ai-edge-litert", "native") and "fp32" not in row["artifact"]
        for row in receipt["rows"]
    ]
    assert receipt["choice"]["artifact"] in ("lenet5_int8.tflite", "native/lenet5_int8.c")
