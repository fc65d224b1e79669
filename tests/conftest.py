"""What the tests share: a small data set, and a tiny model trained and exported once a session."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from pipeline import data

# A background shell starts its programs with Ctrl-C ignored, and they pass that on to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Timings depend on what else the machine does; they are no reason to fail.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

ROOT = Path(__file__).resolve().parents[1]
DEVICE_PYTHON = ROOT / ".venv-device" / "bin" / "python"

TINY_RECIPE = """
kind = "cookbook"
seed = 7
steps = 200
batch_size = 100
evaluate_every = 50
evaluation_size = 100
learning_rate = 0.003
"""


def run_stage(*arguments, cwd=ROOT, **kwargs):
    """Run `python -m pipeline ...` as a user does."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **kwargs)


def run_runner(*arguments, python=sys.executable, runner=ROOT / "device" / "runner.py", **kwargs):
    """Run `runner.py ...` as a user does."""
    command = [str(python), str(runner), *map(str, arguments)]
    kwargs.setdefault("text", True)
    return subprocess.run(command, capture_output=True, **kwargs)


@contextlib.contextmanager
def as_nobody():
    """Run the block without root's right to read and write everything."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


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
    out, unfinished = root / "exported", root / "unfinished"
    with (root / "exported.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            for stage in (["train", "--recipe", tiny_recipe], ["export"], ["native"], ["parity"]):
                run = run_stage(*stage, "--data", small_data, "--out", unfinished)
                assert run.returncode == 0, run.stdout + run.stderr
            unfinished.rename(out)
    return out


@pytest.fixture
def artifacts(exported, tmp_path):
    """A copy of `exported` that a test may break."""
    return Path(shutil.copytree(exported, tmp_path / "artifacts"))


@pytest.fixture(scope="session")
def device_python():
    """The interpreter that has tflite-runtime."""
    found = subprocess.run([DEVICE_PYTHON, "-c", "import tflite_runtime"], capture_output=True)
    if found.returncode and sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime, the reference, has no wheel past Python 3.11")
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
