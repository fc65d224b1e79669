"""Digits and what classifies them: the runner's command, its library and the generated C."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from deploy_helpers import SITE_PACKAGES, SSH_CONFIG, Board, Device, installed, make_fake_bundle
from drawings import write_pgm
from helpers import DEVICE_PYTHON, HAS_TFLITE_RUNTIME, need, run_runner, write_script
from native_helpers import as_inputs, compiled_run, random_images, reference_outputs
from numpy.typing import NDArray
from random_models import realistic_lenet5

from device.runner import Classifier
from export.to_c import to_c
from pipeline import native
from pipeline.artifacts import INT8_TFLITE, this_architecture


@dataclass(frozen=True)
class Lenet5:
    """Generated source of a LeNet-5, images (count, 28, 28) and their right outputs."""

    source: Path
    images: NDArray[np.uint8]
    outputs: NDArray[np.int8]


@pytest.fixture(scope="session")
def lenet5(mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lenet5")
    model = folder / "lenet5_int8.tflite"
    model.write_bytes(realistic_lenet5())
    images = np.concatenate([mnist.test.images[:300], random_images(300)])
    source = to_c(model, folder)
    if HAS_TFLITE_RUNTIME:
        outputs = reference_outputs(DEVICE_PYTHON, model, as_inputs(images))
    else:  # the plain C, for what is claimed of the other kernels, the command and the library
        outputs = compiled_run(source, "PORTABLE", 10)(as_inputs(images))
    return Lenet5(source, images, outputs)


@pytest.fixture(scope="session")
def golden(lenet5):
    """File for `lenet5 --verify`."""
    path = lenet5.source.with_name("golden.bin")
    path.write_bytes(native.golden_file(lenet5.images, lenet5.outputs))
    return path


@pytest.fixture(scope="session")
def compiled(lenet5):
    """A folder with what the bundle holds for this machine."""
    native.build(lenet5.source.parent, lenet5.source.parent, [this_architecture()])
    return lenet5.source.parent


@pytest.fixture(scope="session")
def int8(exported):
    return Classifier(exported / INT8_TFLITE)


@pytest.fixture(scope="session")
def digits(mnist, tmp_path_factory):
    """A folder with three test digits, as PGM, NPY and PGM of 32x32."""
    folder = tmp_path_factory.mktemp("digits")
    write_pgm(folder / "a.pgm", mnist.test.images[0])
    np.save(folder / "b.npy", mnist.test.images[1])
    write_pgm(folder / "c.pgm", np.pad(mnist.test.images[2], 2))
    return folder


@pytest.fixture
def run(exported):
    """Run the command with the int8 model, and what else is named."""
    return lambda *arguments, **how: run_runner("-m", exported / INT8_TFLITE, *arguments, **how)


# --- Devices to install a bundle on -------------------------------------------------------------


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Small bundles of version 1.0.0, 2.0.0 and 3.0.0."""
    folder = tmp_path_factory.mktemp("bundles")
    return [make_fake_bundle(folder, f"{n}.0.0") for n in (1, 2, 3)]


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "board")


@pytest.fixture(scope="session")
def used_home(bundles, tmp_path_factory):
    board = Board(tmp_path_factory.mktemp("used"))
    for bundle in bundles[:2]:
        installed(board, bundle)
    return board.home


@pytest.fixture
def used_board(board, used_home):
    """A board with version 1.0.0, and 2.0.0 in use."""
    shutil.copytree(used_home, board.home, symlinks=True)
    return board


@pytest.fixture
def real_pip(board):
    """A board whose operating system has the real pip."""
    shutil.rmtree(board.packages / "pip")
    (board.packages / "pip").symlink_to(SITE_PACKAGES / "pip")
    return board


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """A folder with a key pair, and an `ssh` that uses it."""
    need("sshd", "ssh", "ssh-keygen")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's, made at boot by its service
    folder = tmp_path_factory.mktemp("keys")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"]
    subprocess.run(command, check=True)
    (folder / "config").write_text(SSH_CONFIG.format(folder=folder))
    write_script(folder / "ssh", f'exec {shutil.which("ssh")} -F {folder}/config "$@"')
    return folder


@pytest.fixture
def make_device(keys, tmp_path):
    devices = []

    def make(name):
        device = Device(tmp_path / name, keys)
        devices.append(device)
        device.serve()
        return device

    yield make
    for device in devices:
        device.stop()


@pytest.fixture
def device(make_device):
    return make_device("device")
