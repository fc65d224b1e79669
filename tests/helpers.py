"""What the tests call: the pipeline, the runner, and what of this machine they need."""

import contextlib
import functools
import io
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from pipeline import native
from pipeline.__main__ import main
from pipeline.parity import binaries, c_layers

ROOT = Path(__file__).resolve().parents[1]
DEVICE_PYTHON = ROOT / ".venv-device" / "bin" / "python"
HAS_TFLITE_RUNTIME = sys.version_info < (3, 12)  # its last release has no wheel past Python 3.11

TINY_RECIPE = """
kind = "cookbook"
seed = 7
steps = 200
batch_size = 100
evaluate_every = 50
evaluation_size = 100
learning_rate = 0.003
"""


def run_stage(*arguments, **kwargs):
    """Run `python -m pipeline ...`: in this process, which imports TensorFlow once for all tests.

    With options for `subprocess.run` such as `env`, in a process of its own: where the claim is
    that another run gives the same bytes, for one.
    """
    words = [str(argument) for argument in arguments]
    if kwargs:
        command, kwargs = [sys.executable, "-m", "pipeline", *words], {"cwd": ROOT, **kwargs}
        return run_program(*command, **kwargs)
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        contextlib.chdir(ROOT),
        warnings.catch_warnings(action="ignore"),
    ):
        try:
            code = main(words)
        except SystemExit as end:  # argparse's
            code = end.code
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


def run_program(*words, **options):
    """Run a program to its end, and keep what it says."""
    return subprocess.run([*map(str, words)], capture_output=True, text=True, **options)


def run_runner(*arguments, python=sys.executable, runner=ROOT / "device" / "runner.py", **kwargs):
    """Run `runner.py ...` as a user does."""
    command = [str(python), str(runner), *map(str, arguments)]
    kwargs.setdefault("text", True)
    return subprocess.run(command, capture_output=True, **kwargs)


def write_script(path, text):
    """Write a shell script that can be run, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def idx_bytes(array):
    """An array of uint8 as an IDX file, by the format's description and not by our reader."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


@contextlib.contextmanager
def as_nobody():
    """Run the block without root's right to read and write everything."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


def need(*programs):
    """The first of these programs; the test is skipped if one of them is not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if missing:
        absent(f"not installed: {', '.join(missing)}")
    return programs[0]


def absent(message):
    """Skip the test, except in CI, where skipping would hide that nothing ran."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def mounted(folder, *options):
    """Make a folder and mount a file system there; skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    run = run_program("mount", *options, folder)
    if run.returncode:
        absent(f"nothing can be mounted here: {run.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def judge_only(monkeypatch, arch, *processors):
    """Compile and judge the C for one architecture; `exported` was judged on every processor."""
    monkeypatch.setattr(native, "TARGETS", {arch: native.TARGETS[arch]})
    monkeypatch.setattr(native, "BINARIES", [b for b in native.BINARIES if f"/{arch}/" in b])
    monkeypatch.setattr(native, "build", functools.partial(native.build, architectures=[arch]))
    for module in (binaries, c_layers):
        monkeypatch.setattr(module, "PROCESSORS", {arch: processors})
    monkeypatch.setattr(c_layers, "GENERATIONS", 2)
