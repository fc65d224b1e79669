"""The native stage: int8 TFLite -> C source, compiled, and the outputs that it must reproduce."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.quantized_lenet5 import UnsupportedModelError
from export.requantization import ArithmeticBoundError
from export.to_c import to_c
from pipeline.artifacts import (
    ARCHITECTURES,
    DEVICE_PYTHON,
    INT8_TFLITE,
    NATIVE_FOLDER,
    NATIVE_GOLDEN,
    ROOT,
    TRAIN_JSON,
    this_architecture,
)
from pipeline.classify import classify_apart
from pipeline.data import Dataset, Images, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import UserError, atomic_path, read_json

GOLDEN_MAGIC = b"LENET5G1"  # then 784 pixels and the int8 outputs of each image
MAKEFILE_FOLDER = ROOT / "device" / "native"
BINARIES = ("lenet5", "lenet5-dotprod", "lenet5_int8.so")  # of an architecture, those it has


def run(args: argparse.Namespace) -> int:
    """Write, compile and say what was made."""
    print("\n".join(generate(args.out, load_data(args.data))))
    return 0


def generate(folder: Path, data: Dataset, device_python: Path = DEVICE_PYTHON) -> list[str]:
    """Write the C source, compile it for this machine, and keep outputs that it must reproduce.

    The golden outputs are tflite-runtime's, default kernels (docs/adr/0007-native-reference.md);
    where that does not run, the compiled C's own; where there is no compiler either, none.

    Args:
        folder: It holds the int8 TFLite file; `native/` in it is written to.
        data: The data set; its test images go into the golden file.
        device_python: The interpreter of the device environment.

    Returns:
        What was made, or was not and why, a line each.

    Raises:
        UserError: The model is missing or not covered.
    """
    model = folder / INT8_TFLITE
    if not model.is_file():
        raise UserError(f"{model}: missing; run `make export`")
    require_trained_on(data, read_json(folder / TRAIN_JSON))
    shutil.rmtree(folder / NATIVE_FOLDER, ignore_errors=True)  # made from another model
    try:
        source = to_c(model, folder / NATIVE_FOLDER)
    except (UnsupportedModelError, ArithmeticBoundError) as error:
        raise UserError(f"{model}: {error}") from None
    lines = [f"{source}: {source.stat().st_size:,} bytes"]
    problem = build(folder / NATIVE_FOLDER, "library")
    lines.append(f"library: not compiled: {problem}" if problem else "library: compiled")
    outputs = classify_apart(model, "tflite-runtime", device_python, data.test.images)
    whose = "tflite-runtime"
    if isinstance(outputs, str):
        lines.append(f"golden outputs of tflite-runtime: none: {outputs}")
        outputs = classify_apart(source, "native", Path(sys.executable), data.test.images)
        whose = "the compiled C itself"
    if isinstance(outputs, str):
        return [*lines, f"golden outputs: none: {outputs}"]
    with atomic_path(folder / NATIVE_GOLDEN) as temporary:
        temporary.write_bytes(golden_file(data.test.images, outputs.raw.view(np.int8)))
    return [*lines, f"{folder / NATIVE_GOLDEN}: outputs of {whose} for {len(data.test):,} images"]


def golden_file(images: Images, outputs: NDArray[np.int8]) -> bytes:
    """What `lenet5 --verify` reads.

    Args:
        images: uint8 (N, 28, 28).
        outputs: int8 (N, classes).
    """
    pixels = images.reshape(len(images), -1)  # (N, 784)
    return GOLDEN_MAGIC + np.concatenate([pixels, outputs.view(np.uint8)], axis=1).tobytes()


def read_golden(path: Path, images: Images) -> NDArray[np.int8]:
    """The outputs in a golden file of these images, int8 (N, classes).

    Raises:
        UserError: It is missing, or of other images.
    """
    pixels = images.reshape(len(images), -1)
    records = path.read_bytes()[len(GOLDEN_MAGIC) :] if path.is_file() else b""
    if records and len(records) % len(pixels) == 0:
        table = np.frombuffer(records, np.uint8).reshape(len(pixels), -1)
        if np.array_equal(table[:, : pixels.shape[1]], pixels):
            return table[:, pixels.shape[1] :].view(np.int8)
    raise UserError(f"{path}: missing, damaged or of other images; delete it and run `make export`")


def build(folder: Path, goal: str, arch: str | None = None) -> str:
    """Compile the C source with device/native/Makefile into `folder/ARCH`.

    Args:
        folder: It holds `lenet5_int8.c` and `.h`.
        goal: "library" (what Python loads) or "native" (the static command as well).
        arch: One of `ARCHITECTURES`; None: this machine.

    Returns:
        Why it could not be compiled, in one line; empty when it could.
    """
    if not shutil.which("make"):
        return "no make here"
    # Relative: make splits absolute paths at spaces, and a clone may lie behind some.
    command = ["make", "--silent", "--no-print-directory", "-C", str(MAKEFILE_FOLDER)]
    command += [f"MODEL={os.path.relpath(folder, MAKEFILE_FOLDER)}"]
    command += [f"ARCH={arch}"] if arch else []
    # A make above this one hands down its flags, such as --question.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}

    def make(goal: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, goal], capture_output=True, text=True, env=environment)

    compiler = make("compiler")
    if compiler.returncode == 0 and not shutil.which(compiler.stdout.strip()):
        return f"no {compiler.stdout.strip()} here"
    made = compiler if compiler.returncode else make(goal)
    errors = [line for line in made.stderr.splitlines() if "error" in line.lower()]
    return (errors or [f"make: exit code {made.returncode}"])[0] if made.returncode else ""


def bundle_files(
    folder: Path, images: Images, chosen: NDArray[np.intp]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The native part of a bundle: the sources always, binaries for which there is a compiler.

    Args:
        folder: It holds the artifacts.
        images: uint8 (N, 28, 28), the test images.
        chosen: Indices of the golden ones.

    Returns:
        Contents by path inside the bundle, and what the manifest says: `binaries` (their paths by
        architecture) and `missing` (why there are none, by architecture).

    Raises:
        UserError: The golden outputs are damaged, or a binary does not reproduce them.
    """
    native = folder / NATIVE_FOLDER
    sources = [path for path in sorted(MAKEFILE_FOLDER.iterdir()) if path.is_file()]
    sources += [native / "lenet5_int8.c", native / "lenet5_int8.h"]
    files = {f"native/{path.name}": path.read_bytes() for path in sources}
    description: dict[str, Any] = {"binaries": {}, "missing": {}}
    if not (folder / NATIVE_GOLDEN).is_file():
        reason = "neither tflite-runtime nor a compiler to make golden outputs with"
        return files, {**description, "missing": dict.fromkeys(ARCHITECTURES, reason)}
    outputs = read_golden(folder / NATIVE_GOLDEN, images)
    files[NATIVE_GOLDEN] = golden_file(images[chosen], outputs[chosen])
    for arch in ARCHITECTURES:
        problem = build(native, "native", arch)
        if problem:
            description["missing"][arch] = problem
            continue
        if arch == this_architecture():
            verify(native / arch / "lenet5", folder / NATIVE_GOLDEN)
        names = [f"native/{arch}/{name}" for name in BINARIES if (native / arch / name).is_file()]
        files |= {name: (folder / name).read_bytes() for name in names}
        description["binaries"][arch] = names
    return files, description


def verify(command: Path, golden: Path) -> None:
    """Run `lenet5 --verify`.

    Raises:
        UserError: The outputs differ, or it does not run.
    """
    run = subprocess.run([command, "--verify", golden], capture_output=True, text=True)
    if run.returncode != 0:
        said = (run.stdout + run.stderr).strip() or f"exit code {run.returncode}"
        raise UserError(f"{command}: {said}")
