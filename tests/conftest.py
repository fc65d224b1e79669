"""What the tests share: a small data set, and a tiny model trained and exported once a session."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import DEVICE_PYTHON, HAS_TFLITE_RUNTIME, ROOT, TINY_RECIPE, judge_only, run_program
from hypothesis import Phase, settings

from pipeline import data
from pipeline.artifacts import this_architecture

# A background shell starts its programs with Ctrl-C ignored, and they pass that on to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("PYTHONUNBUFFERED", None)  # a full disk is found late, as on a user's machine

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
            run = run_program(sys.executable, "-c", code, small_data, out, cwd=ROOT)
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


@pytest.fixture(autouse=True)
def quiet_tensorflow(monkeypatch):
    monkeypatch.setitem(os.environ, "TF_CPP_MIN_LOG_LEVEL", "3")
