"""What the tests share: a small data set, and a tiny model trained and exported once a session."""

import contextlib
import fcntl
import functools
import io
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, settings

from pipeline import data, native
from pipeline.__main__ import main
from pipeline.artifacts import this_architecture
from pipeline.parity import binaries, c_layers

# A background shell starts its programs with Ctrl-C ignored, and they pass that on to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Timings depend on what else the machine does; they are no reason to fail.
settings.register_profile("default", deadline=None)
settings.register_profile(  # for mutants: a fault is to be found, not made small
    "quick",
    deadline=None,
    max_examples=20,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("default")

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
        return subprocess.run(command, capture_output=True, text=True, **kwargs)
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
    """Skip the test without these programs."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [program for program in programs if not shutil.which(program, path=path)]
    if missing:
        absent(f"not installed: {', '.join(missing)}")


def absent(message):
    """Skip the test, except in CI, where skipping would hide that nothing ran."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def mnist():
    return data.load(ROOT / "data" / "mnist")


@pytest.fixture(scope="session")
def small_data(mnist, tmp_path_factory):
    """A folder with the first 12,000 training and 1,000 test images of MNIST as .npz."""
    folder = tmp_path_factory.mktemp("small")
    np.savez(
        folder / "small.npz",
        x_train=mnist.train.images[:12_000],
        y_train=mnist.train.labels[:12_000],
        x_test=mnist.test.images[:1_000],
        y_test=mnist.test.labels[:1_000],
    )
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def exported(small_data, tiny_recipe, tmp_path_factory):
    """A folder with a tiny model and its artifacts, all at par. Read only.

    The test processes share it: the first that needs it makes it.
    """
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    made, out = root / "made", root / "unfinished" / "artifacts"
    stages = (["train", "--recipe", str(tiny_recipe)], ["export"], ["native"], ["parity"])
    stages += (["bundle", "--dist", str(out.with_name("dist"))],)
    code = "import sys; from pipeline.__main__ import main\n"
    for stage in stages:  # in one process, which imports TensorFlow once
        code += f"assert main([*{stage}, '--data', sys.argv[1], '--out', sys.argv[2]]) == 0\n"
    with (root / "made.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            command = [sys.executable, "-c", code, small_data, out]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
            out.parent.rename(made)
    return made / "artifacts"


@pytest.fixture(scope="session")
def packed(exported):
    """The bundle of these artifacts. Read only."""
    (path,) = (exported.parent / "dist").glob("*.tar.gz")
    return path


@pytest.fixture
def artifacts(exported, tmp_path):
    """A copy of `exported` that a test may break, or name as `--out`: one run at a time has it."""
    return Path(shutil.copytree(exported, tmp_path / "artifacts"))


def judge_only(monkeypatch, arch, *processors):
    """Compile and judge the C for one architecture; `exported` was judged on every processor."""
    monkeypatch.setattr(native, "TARGETS", {arch: native.TARGETS[arch]})
    monkeypatch.setattr(native, "BINARIES", [b for b in native.BINARIES if f"/{arch}/" in b])
    monkeypatch.setattr(native, "build", functools.partial(native.build, architectures=[arch]))
    for module in (binaries, c_layers):
        monkeypatch.setattr(module, "PROCESSORS", {arch: processors})
    monkeypatch.setattr(c_layers, "GENERATIONS", 2)


@pytest.fixture
def this_machine_alone(monkeypatch):
    judge_only(monkeypatch, this_architecture())


@pytest.fixture(scope="session")
def device_python():
    """The interpreter that has tflite-runtime."""
    if not HAS_TFLITE_RUNTIME:
        pytest.skip("tflite-runtime, the reference, has no wheel past Python 3.11")
    found = subprocess.run([DEVICE_PYTHON, "-c", "import tflite_runtime"], capture_output=True)
    assert found.returncode == 0, found.stderr
    return str(DEVICE_PYTHON)


@pytest.fixture
def bare_python(tmp_path):
    """An interpreter that has numpy and no runtime."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    (packages,) = (tmp_path / "bare").glob("lib/python*/site-packages")
    for path in DEVICE_PYTHON.parents[1].glob("lib/python*/site-packages/numpy*"):
        (packages / path.name).symlink_to(path)
    return tmp_path / "bare" / "bin" / "python"


@pytest.fixture(autouse=True)
def quiet_tensorflow(monkeypatch):
    monkeypatch.setitem(os.environ, "TF_CPP_MIN_LOG_LEVEL", "3")
