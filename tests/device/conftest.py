"""Digits and what classifies them: the runner's command, its library and the generated C."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from drawings import write_pgm
from helpers import DEVICE_PYTHON, HAS_TFLITE_RUNTIME, run_runner
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
