"""Ctrl-C, full disks, damaged files: one line, nothing half-written, and the next run works."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, TINY_RECIPE, as_nobody, mounted, run_program, run_stage

from pipeline.files import sha256

INTERRUPTED = "pipeline: interrupted; the same command goes on from here\n"


@pytest.fixture
def short_recipe(tmp_path):
    path = tmp_path / "short.toml"
    path.write_text(TINY_RECIPE.replace("steps = 200", "steps = 20"))
    return path


def start_stage(*arguments):
    """Start `python -m pipeline ...` in a process group of its own, as a terminal does."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)


def wait_for_line(process, start):
    for line in process.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line {start!r}: {process.stderr.read()}")


def interrupt(process):
    """Press Ctrl-C, which the whole group hears: the stage ends with one line."""
    os.killpg(process.pid, signal.SIGINT)
    stderr = process.communicate(timeout=60)[1]
    # Python itself may end by the signal, which a shell reports as 130 as well.
    assert process.returncode in (130, -signal.SIGINT)
    assert stderr == INTERRUPTED


def partial_files(folder):
    return list(folder.rglob(".partial-*"))


def assert_refused(run, *parts):
    """A stage ended with 2 and one line with these parts."""
    assert run.returncode == 2, run.stdout + run.stderr
    (line,) = run.stderr.splitlines()
    for part in ("pipeline: ", *parts):
        assert str(part) in line


# --- Ctrl-C -------------------------------------------------------------------------------------


def test_ctrl_c_while_tensorflow_is_imported_ends_the_stage_in_one_line(small_data, tmp_path):
    process = start_stage("train", "--data", small_data, "--out", tmp_path / "out")
    while not (tmp_path / "out").exists():
        assert process.poll() is None, process.stderr.read()
    time.sleep(1.0)
    interrupt(process)
    assert not partial_files(tmp_path)


def test_ctrl_c_in_the_callback_of_a_weak_reference_is_not_lost():
    code = (
        "import signal, sys, time, weakref; from pipeline import __main__ as m\n"
        "sys.unraisablehook = m.repeat_interrupt\n"
        "class Thing: pass\n"
        "thing = Thing()\n"
        "reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))\n"
        "del thing\n"
        "try: time.sleep(30)\n"
        "except KeyboardInterrupt: sys.exit(7)"
    )
    run = run_program(sys.executable, "-c", code, cwd=ROOT)
    assert (run.returncode, run.stderr) == (7, "")


def test_ctrl_c_during_training_keeps_the_old_model_and_the_next_run_works(
    small_data, short_recipe, artifacts, tmp_path
):
    recipe = tmp_path / "long.toml"
    recipe.write_text(TINY_RECIPE.replace("steps = 200", "steps = 1000000"))
    before = sha256(artifacts / "lenet5.keras")
    process = start_stage("train", "--recipe", recipe, "--data", small_data, "--out", artifacts)
    wait_for_line(process, "Epoch # 50.")
    interrupt(process)
    assert sha256(artifacts / "lenet5.keras") == before
    assert not partial_files(artifacts)
    run = run_stage("train", "--recipe", short_recipe, "--data", small_data, "--out", artifacts)
    assert run.returncode == 0, run.stderr
    assert json.loads((artifacts / "train.json").read_text())["recipe"] == "short"


def test_ctrl_c_during_export_leaves_whole_artifacts_and_the_next_run_works(
    small_data, artifacts, exported
):
    for path in artifacts.glob("lenet5_*"):
        path.unlink()
    process = start_stage("export", "--data", small_data, "--out", artifacts)
    wait_for_line(process, f"{artifacts / 'lenet5_fp32.tflite'}: ")
    time.sleep(0.2)
    interrupt(process)
    assert not partial_files(artifacts)
    assert [path.name for path in artifacts.glob("lenet5_*")] == ["lenet5_fp32.tflite"]
    name = "lenet5_int8.tflite"
    run = run_stage("export", name, "--data", small_data, "--out", artifacts, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert sha256(artifacts / name) == sha256(exported / name)


def test_ctrl_c_during_parity_keeps_the_old_result(small_data, artifacts):
    before = sha256(artifacts / "parity.json"), sha256(artifacts / "probabilities.npz")
    process = start_stage("parity", "--data", small_data, "--out", artifacts)
    wait_for_line(process, "parity 0/")
    time.sleep(0.5)
    interrupt(process)
    assert not partial_files(artifacts)
    assert before == (sha256(artifacts / "parity.json"), sha256(artifacts / "probabilities.npz"))


def test_what_a_killed_run_left_the_next_stage_removes(small_data, tmp_path):
    half_written = tmp_path / ".partial-killed" / "lenet5.keras"
    half_written.parent.mkdir()
    half_written.touch()
    assert run_stage("bundle", "--data", small_data, "--out", tmp_path).returncode == 2
    assert not partial_files(tmp_path)


# --- Disks --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A function that gives a folder with copies of some files, and room for `kib` more."""
    with contextlib.ExitStack() as cleanup:

        def make(kib, files=()):
            pages = sum(-(-path.stat().st_size // 4096) for path in files)
            options = ("-t", "tmpfs", "-o", f"size={4 * pages + kib}k", "tmpfs")
            folder = cleanup.enter_context(mounted(tmp_path / "disk", *options))
            for path in files:
                shutil.copy(path, folder)
            return folder

        yield make


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_full_disk_during_training_is_one_line(small_data, short_recipe, small_disk):
    out = small_disk(128)  # the model has 280 kB
    run = run_stage("train", "--recipe", short_recipe, "--data", small_data, "--out", out)
    assert_refused(run, out / "lenet5.keras", "cannot be written")
    assert names(out) == []


@pytest.mark.parametrize("name", ["lenet5_fp32.tflite", "lenet5_fp32.onnx", "lenet5_int8.onnx"])
def test_full_disk_during_export_is_one_line(small_data, exported, small_disk, name):
    inputs = ["lenet5.keras", "train.json"] + ["lenet5_fp32.onnx"] * ("int8" in name)
    out = small_disk(40, [exported / file for file in inputs])
    run = run_stage("export", name, "--data", small_data, "--out", out)
    assert_refused(run, out / name, "cannot be written")
    assert names(out) == sorted(inputs)


def test_full_disk_during_parity_is_one_line(small_data, exported, small_disk):
    inputs = [exported / "train.json", *exported.glob("lenet5*")]
    out = small_disk(100, inputs)
    run = run_stage("parity", "--data", small_data, "--out", out)
    assert_refused(run, "cannot be written")
    assert names(out) == sorted(path.name for path in inputs)


def test_full_disk_during_packing_is_one_line(small_data, artifacts, small_disk):
    dist = small_disk(128)
    run = run_stage("bundle", "--data", small_data, "--out", artifacts, "--dist", dist)
    assert_refused(run, dist, ".tar.gz: cannot be written (")
    assert names(dist) == []


def test_folder_that_cannot_be_written_to_is_refused_before_the_work(small_data):
    for stage in ("train", "export", "parity", "bundle"):
        with as_nobody():
            run = run_stage(stage, "--data", small_data, "--out", "/lenet5-edge-test")
        assert_refused(run, "/lenet5-edge-test: cannot be written to (Permission denied)")


# --- Damaged files ------------------------------------------------------------------------------

DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "altered": lambda path: path.write_bytes(
        path.read_bytes()[:-3000] + b"\xff" * 1500 + path.read_bytes()[-1500:]
    ),
    "another kind": lambda path: path.write_text('{"status": "pass"}'),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_model_is_refused_by_export_and_parity(small_data, artifacts, damage):
    DAMAGES[damage](artifacts / "lenet5.keras")
    name = "lenet5_fp32.tflite"
    before = sha256(artifacts / name)
    for stage in (["export", name], ["parity"]):
        run = run_stage(*stage, "--data", small_data, "--out", artifacts)
        assert_refused(run, artifacts / "lenet5.keras", "run `make export`")
    assert sha256(artifacts / name) == before
    assert not partial_files(artifacts)


def test_damaged_float_onnx_is_refused_by_the_quantizer(small_data, artifacts):
    DAMAGES["truncated"](artifacts / "lenet5_fp32.onnx")
    run = run_stage("export", "lenet5_int8.onnx", "--data", small_data, "--out", artifacts)
    assert_refused(run, artifacts / "lenet5_fp32.onnx")


@pytest.mark.parametrize("stage", ["export", "parity", "bundle"])
def test_damaged_train_json_is_refused(small_data, artifacts, stage):
    path = artifacts / "train.json"
    for content in (None, "", '{"recipe": "b', "[]", "{}", '{"seed": 3}'):
        path.unlink() if content is None else path.write_text(content)
        run = run_stage(stage, "--data", small_data, "--out", artifacts)
        assert_refused(run, "train.json")


@pytest.mark.parametrize("name", ["parity.json", "probabilities.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "another kind", "a folder"])
def test_damaged_results_of_parity_are_not_packed(small_data, artifacts, tmp_path, name, damage):
    DAMAGES[damage](artifacts / name)
    dist = tmp_path / "dist"
    run = run_stage("bundle", "--data", small_data, "--out", artifacts, "--dist", dist)
    assert_refused(run, artifacts / name)
    assert not dist.exists()


def test_damaged_timings_are_begun_anew(small_data, artifacts, tmp_path):
    (artifacts / "timings.json").write_text('{"train": ')
    dist = tmp_path / "dist"
    run = run_stage("bundle", "--data", small_data, "--out", artifacts, "--dist", dist)
    assert run.returncode == 0, run.stderr
    assert list(json.loads((artifacts / "timings.json").read_text())) == ["bundle"]


def test_unknown_artifact_is_refused_and_not_made(small_data, tmp_path):
    run = run_stage("export", "lenet5.tflite", "--data", small_data, "--out", tmp_path)
    assert_refused(run, "lenet5.tflite: no such artifact", "lenet5_int8.tflite")
    assert list(tmp_path.iterdir()) == []


# --- Where and how it is called -----------------------------------------------------------------


def test_bad_data_is_refused_before_tensorflow_is_imported(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3))
    code = (
        "import sys; from pipeline.__main__ import main\n"
        "code = main(['train', '--data', sys.argv[1], '--out', sys.argv[1]])\n"
        "assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    run = run_program(sys.executable, "-c", code, str(tmp_path), cwd=ROOT)
    assert_refused(run, tmp_path / "a.npz")


def test_reader_that_goes_away_ends_a_stage_without_a_word(small_data):
    command = f"{sys.executable} -u -m pipeline data --data {small_data} | true"
    run = run_program("bash", "-o", "pipefail", "-c", command, cwd=ROOT)
    assert run.returncode == 141  # 128 + SIGPIPE
    assert run.stderr == ""


def test_output_that_is_full_is_one_line(small_data):
    command = [sys.executable, "-m", "pipeline", "data", "--data", str(small_data)]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert "No space left on device" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_relative_folders_spaces_poor_locale_no_home_and_no_git_do_no_harm(
    small_data, exported, tmp_path
):
    shutil.copytree(small_data, tmp_path / "my data")
    shutil.copytree(exported, tmp_path / "my out")
    environment = {"PATH": "/nowhere", "HOME": "/nowhere", "PYTHONPATH": str(ROOT)}
    environment |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    arguments = ["bundle", "--data", "my data/", "--out", "./my out", "--dist", "my dist"]
    run = run_stage(*arguments, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "my dist").glob("*.tar.gz"))) == 1
