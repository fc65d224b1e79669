"""Classify images with one artifact on one runtime, in a process of its own.

    python -m pipeline.classify ARTIFACT RUNTIME IMAGES.npy OUTPUT.npz

Two runtimes in one process can corrupt each other (tflite-runtime and TensorFlow do), so parity
starts this once for each row, with the interpreter of the environment that has the runtime. The
artifact runs through `device/runner.py`, the code that ships. Only that and numpy are imported,
so that it works in `.venv-device` as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.runner import Classifier, InputError, Model, answer, prepare
from pipeline import wasm
from pipeline.artifacts import DEVICE_PYTHON, FLOAT_MODEL, INT8_TFLITE, ROOT
from pipeline.files import UserError


@dataclass(frozen=True)
class Outputs:
    """What an artifact gave for N images."""

    probabilities: NDArray[np.float32]  # (N, classes), 0..1
    raw: NDArray[np.generic]  # (N, classes), as the artifact gave them: int8 or float32
    runtime_version: str


def classify_apart(
    artifact: Path, runtime: str, python: Path, images: NDArray[np.uint8]
) -> Outputs | str:
    """Classify images in a process of its own.

    Args:
        artifact: The file.
        runtime: "keras" or a runtime of `device/runner.py`.
        python: The interpreter of the environment that has the runtime.
        images: uint8 (N, 28, 28).

    Returns:
        The outputs, or one line that says why there are none.
    """
    if not artifact.is_file():
        return f"{artifact}: missing"
    with tempfile.TemporaryDirectory() as folder:
        given, output = Path(folder, "images.npy"), Path(folder, "output.npz")
        np.save(given, images)
        wrong = run_apart(python, "classify", artifact.resolve(), runtime, given, output)
        if wrong:
            return wrong
        with np.load(output, allow_pickle=False) as result:
            return Outputs(result["probabilities"], result["raw"], str(result["runtime_version"]))


def run_apart(python: Path, module: str, *arguments: object) -> str:
    """Run a module of the pipeline by an interpreter; one line on why it failed, or ""."""
    if not python.is_file():
        return f"{python}: missing; run `make .venv-device/.installed`"
    command = [str(python), "-m", f"pipeline.{module}", *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}  # the same on every machine
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    if child.returncode == 0:
        return ""
    if child.returncode < 0:
        return f"crashed (signal {-child.returncode})"
    return (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]


def classify_float_and_int8(
    folder: Path, images: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """Probabilities (N, classes) of the "float" model and of the "int8" TFLite file.

    int8 runs on tflite-runtime, as on a device; where that is missing (Python 3.12 and later), on
    ai-edge-litert.

    Raises:
        UserError: One of them cannot run.
    """
    here, int8 = Path(sys.executable), folder / INT8_TFLITE
    of_float = classify_apart(folder / FLOAT_MODEL, "keras", here, images)
    of_int8 = classify_apart(int8, "tflite-runtime", DEVICE_PYTHON, images)
    if isinstance(of_int8, str):
        of_int8 = classify_apart(int8, "ai-edge-litert", here, images)
    probabilities = {}
    for kind, outputs in (("float", of_float), ("int8", of_int8)):
        if isinstance(outputs, str):
            raise UserError(outputs)
        probabilities[kind] = outputs.probabilities
    return probabilities


def main() -> int:
    """Write the fields of `Outputs` to OUTPUT.npz."""
    artifact, runtime, images_path, output = sys.argv[1:]
    path, images = Path(artifact), np.load(images_path, allow_pickle=False)  # uint8 (N, 28, 28)
    try:
        if runtime == "keras":
            from pipeline.train.training import load_model, predict

            raw = probabilities = predict(load_model(path), images)
            runtime_version = version("keras")
        else:
            in_wasm = runtime == wasm.RUNTIME
            model = wasm.load(path) if in_wasm else Classifier(path, runtime).model
            raw = model.run(prepare(images))
            probabilities = answer(model, raw).probabilities
            check_one_by_one(model, images, probabilities)
            native = runtime == "native"
            runtime_version = sys.modules["lenet5_int8"].kernels() if native else version(runtime)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    np.savez(output, probabilities=probabilities, raw=raw, runtime_version=runtime_version)
    return 0


def check_one_by_one(
    model: Model, images: NDArray[np.uint8], probabilities: NDArray[np.float32]
) -> None:
    """A device asks for one image at a time, and must get what a batch gets, or InputError."""
    different = 0
    for image, row in zip(images, probabilities, strict=True):
        label, probability = model.classify(image)
        different += label != row.argmax() or not abs(probability - row[label]) < 1e-5
    if different:
        raise InputError(f"{different} images are answered otherwise one at a time than in a batch")


if __name__ == "__main__":
    sys.exit(main())
