"""`make pi-test`: what is run on an emulated Pi, how it is judged, and what is not a pass.

The emulation itself is not run here: `make pi-test` is that test.
"""

import json
import os
import subprocess
from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers import run_stage, write_script

from pipeline.bundle import wheels
from pipeline.pi_test import matrix as pi_matrix
from pipeline.pi_test import run as pi_test
from pipeline.pi_test import system as pi_tree
from pipeline.pi_test.matrix import PiCell, PiReference
from pipeline.pi_test.run import SYSTEMS

BUDGET = {"float_min_agreement": 1.0, "int8_min_agreement": 0.999}
SYSTEM = ("bookworm", "arm64", "cortex-a76", "3.11")
INT8, FLOAT = "lenet5_int8.tflite", "lenet5_fp32.tflite"
CELL = PiCell(*SYSTEM, "tflite-runtime", "", INT8, loads=True)
N = 10_000


@pytest.fixture
def reference():
    """Ten thousand images with label 3, all answered so with p = 0.9."""
    keys = (f"{INT8}@tflite-runtime", f"{FLOAT}@tflite-runtime")
    images = np.zeros((N, 28, 28), np.uint8)
    return PiReference(images, np.full(N, 3, np.uint8), dict.fromkeys(keys, outputs(0)), BUDGET)


def outputs(flips, change_of_p=0.0):
    """Outputs of which some have another label, and one probability is another."""
    probabilities = np.full((N, 10), 0.01, np.float32)
    probabilities[:, 3] = 0.9
    probabilities[:flips, 5] = 0.95
    probabilities[17, 3] += change_of_p
    return probabilities


# --- Judging ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("artifact", "flips", "change_of_p", "status", "bit_identical"),
    [
        (INT8, 0, 0.0, "pass", True),
        (INT8, 0, 1e-7, "pass", False),
        (INT8, 10, 0.0, "pass", False),
        (INT8, 11, 0.0, "fail", False),
        (INT8, 0, np.nan, "fail", False),
        (FLOAT, 0, 0.0, "pass", True),
        (FLOAT, 1, 0.0, "fail", False),
    ],
)
def test_a_cell_may_differ_in_as_many_labels_as_its_budget_says(
    reference, artifact, flips, change_of_p, status, bit_identical
):
    cell = replace(CELL, artifact=artifact)
    cell = pi_matrix.judge(cell, outputs(flips, change_of_p), reference)
    assert (cell.status, bool(cell.bit_identical)) == (status, bit_identical)


def test_a_cell_tells_how_much_of_the_images_that_were_run_is_right_and_equal(reference):
    cell = pi_matrix.judge(CELL, outputs(10)[:500], reference)
    assert (cell.n, cell.accuracy, cell.agreement) == (500, 0.98, 0.98)
    assert cell.max_abs_dp == pytest.approx(0.94)


def test_nothing_to_compare_with_is_not_a_pass(reference):
    cell = pi_matrix.judge(replace(CELL, runtime="onnxruntime"), outputs(0), reference)
    assert cell.status == "not_run"
    assert "nothing to compare" in cell.reason


@pytest.mark.parametrize(
    ("statuses", "overall"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "fail"], "fail"),
        (["pass", "not_run"], "not_run"),
        (["not_run", "fail"], "fail"),
    ],
)
def test_one_cell_that_did_not_pass_decides_the_whole(statuses, overall):
    assert pi_matrix.worst(statuses) == overall


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "reason"),
    [
        (1, "ok x\ndiffers  a\ndiffers  b\nFAIL\n", "", "differs  a"),
        (2, "", "warning\nrunner.py: no such model\n", "runner.py: no such model"),
        (32, "", "mount: /proc denied\n  dmesg(1) may have more\n", "mount: /proc denied"),
        (-11, "half a li", "", "exit code -11"),
        (1, "", "", "exit code 1"),
    ],
)
def test_a_failed_command_is_told_in_one_line(code, stdout, stderr, reason):
    assert pi_test.failure(subprocess.CompletedProcess([], code, stdout, stderr)) == reason


# --- What is run --------------------------------------------------------------------------------


def test_every_system_of_a_pi_runs_every_runtime_that_can_be_installed_there():
    cells = pi_test.blank_cells
    models = (INT8, "native/lenet5_int8.c", "lenet5_int8.onnx")
    tested = {(c.os, c.arch, c.cpu, c.runtime) for s in SYSTEMS for c in cells(s, models, True)}
    for suite in ("bookworm", "trixie"):
        for processor in ("cortex-a53", "cortex-a72", "cortex-a76"):
            for runtime in ("ai-edge-litert", "onnxruntime", "native"):
                assert (suite, "arm64", processor, runtime) in tested
        for processor in ("cortex-a7", "max"):
            assert (suite, "armhf", processor, "native") in tested
    assert ("bookworm", "arm64", "cortex-a72", "tflite-runtime") in tested
    assert ("bookworm", "armel", "arm1176", "native") in tested


def test_each_runtime_is_in_the_bundle_of_its_system():
    for system in SYSTEMS:
        bundled = {"native"}
        if system.wheels:
            target = wheels.TARGETS[system.wheels]
            assert target.python == pi_tree.PYTHONS[system.suite]
            lines = wheels.select(target).splitlines()
            bundled |= {line.partition("==")[0] for line in lines}
        assert set(system.runtimes) <= bundled


def test_the_installed_bundle_is_the_one_that_make_bundle_writes(packed, tmp_path):
    pi_test.read_bundle(packed).write(None, tmp_path, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == packed.read_bytes()


def test_a_digit_that_is_read_otherwise_is_a_failure(reference):
    pi_test.check_digit("d.png  3  99 %", reference)
    with pytest.raises(pi_test.GuestError, match="of a 3"):
        pi_test.check_digit("d.png  5  93 %", reference)


FAKE_MMDEBSTRAP = """
for archive; do :; done
mkdir -p usr/bin && touch usr/bin/qemu-arm usr/bin/qemu-aarch64 && tar -cf "$archive" ./usr
"""


def test_each_emulator_is_taken_once_and_kept(monkeypatch, tmp_path):
    program = tmp_path / "bin" / "mmdebstrap"
    write_script(program, FAKE_MMDEBSTRAP)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    folder = pi_tree.make_emulator(tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["qemu-aarch64", "qemu-arm"]
    assert list(folder.parent.iterdir()) == [folder]
    program.unlink()
    assert pi_tree.make_emulator(tmp_path / "cache") == folder


def test_a_guest_gets_no_variable_of_this_machine(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    environment = pi_tree.guest_environment("cortex-a76")
    assert "PYTHONPATH" not in environment
    assert environment["QEMU_CPU"] == "cortex-a76"


# --- The stage ----------------------------------------------------------------------------------


def test_without_mmdebstrap_every_cell_is_not_run_with_the_reason(
    artifacts, packed, small_data, tmp_path
):
    where = (packed, "--data", small_data, "--out", artifacts)
    run = run_stage("pi-test", *where, env={"PATH": str(tmp_path), "HOME": str(tmp_path)})
    assert run.returncode == 1, run.stderr
    matrix = json.loads((artifacts / "pi-matrix.json").read_text())
    assert matrix["status"] == "not_run"
    assert len(matrix["cells"]) == 17
    for cell in matrix["cells"]:
        assert (cell["status"], cell["loads"], cell["accuracy"]) == ("not_run", None, None)
        assert "apt install mmdebstrap" in cell["reason"]


def test_a_bundle_of_other_models_is_refused(artifacts, packed, small_data):
    parity = json.loads((artifacts / "parity.json").read_text())
    parity["rows"][0]["sha256"] = "0" * 64  # of one of the two runtimes that ran this file
    (artifacts / "parity.json").write_text(json.dumps(parity))
    run = run_stage("pi-test", packed, "--data", small_data, "--out", artifacts)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "not what parity judged" in run.stderr


@pytest.mark.parametrize("content", [None, b"", b"not a tar file"])
def test_a_missing_or_damaged_bundle_is_one_line(content, artifacts, small_data, tmp_path):
    bundle = tmp_path / "bundle.tar.gz"
    if content is not None:
        bundle.write_bytes(content)
    run = run_stage("pi-test", bundle, "--data", small_data, "--out", artifacts)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert f"{bundle}: {'missing' if content is None else 'damaged'}" in run.stderr


# --- The matrix ---------------------------------------------------------------------------------


def test_matrix_has_a_row_an_artifact_and_runtime_and_a_column_a_system():
    parity = {"rows": [{"artifact": "a.tflite", "runtime": "r", "status": "pass"}]}
    cell = replace(CELL, artifact="a.tflite", runtime="r", status="pass")
    cells = [
        replace(cell, python="3.11.2", bit_identical=True, max_abs_dp=0.0),
        replace(cell, os="trixie", python="3.13.5", bit_identical=False, max_abs_dp=0.004),
        replace(cell, artifact="b.onnx", status="not_run"),
    ]
    table = pi_matrix.format_matrix({"cells": [asdict(c) for c in cells]}, parity)
    rows = [[c.strip() for c in line.split(" | ")] for line in table.splitlines()]
    assert rows[0][2:] == ["bookworm arm64", "trixie arm64 |"]
    assert rows[2][2:] == ["same bits", "4.0e-03 |"]
    assert rows[3][2:] == ["not_run", "- |"]


def test_a_system_says_the_worst_of_its_processors():
    cell = asdict(replace(CELL, status="pass", bit_identical=True, max_abs_dp=0.0))
    other = {**cell, "cpu": "cortex-a53", "bit_identical": False, "max_abs_dp": 0.25}
    assert pi_matrix.describe([cell, cell]) == "pass, same bits"
    assert pi_matrix.describe([cell, other]) == "pass, max |dp| 2.5e-01"
    assert pi_matrix.describe([cell, {**other, "status": "fail"}]).startswith("fail")
