"""The bundle stage: what passed parity, with all that a device needs to run and verify it."""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import bundle, to_onnx, to_tflite
from pipeline import artifacts, native
from pipeline.bundle import wheels
from pipeline.data import Dataset, Probabilities, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import UserError, atomic_path, read_json, remove_partial_files, sha256
from pipeline.parity.check import one_runtime_each, read_probabilities

GOLDEN_IMAGES = 256
GOLDEN_EXCITING = 64  # besides, of the images that parity made to excite
PASSED_ONLY = "only what passed is packed: run `make export`"
GOLDEN_SEED = 256
# How far a device's probability may be from the golden one. Float kernels differ in the order of
# their sums; int8 kernels by a unit in the last place of some layer (docs/adr/0004-parity.md).
TOLERANCE = {"fp32": 1e-4, "int8": 0.0625, "native": 0.0}  # C gives the same bits everywhere


def run(args: argparse.Namespace) -> int:
    remove_partial_files(args.dist)
    path = pack(args.out, args.dist, load_data(args.data), args.wheels)
    print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def pack(folder: Path, dist: Path, data: Dataset, target: str | None = None) -> Path:
    """Write `dist/lenet5-edge-<version>.tar.gz`, or `...-<version>-<target>.tar.gz` with wheels.

    `folder` holds the artifacts and what parity found, `target` is a key of `wheels.TARGETS`.

    Raises:
        UserError: Parity did not pass, an artifact or the float model changed since, the data set
            is another one, or there are no such wheels.
    """
    parity = read_json(folder / artifacts.PARITY_JSON, "status", "reference", "rows", "binaries")
    check_may_be_packed(folder, parity)
    require_trained_on(data, read_json(folder / artifacts.TRAIN_JSON, "data_sha256"))
    built = to_tflite.read_metadata(folder / artifacts.INT8_TFLITE)
    probabilities = one_runtime_each(read_probabilities(folder / artifacts.PROBABILITIES))
    probabilities.pop(artifacts.NATIVE_WASM, None)  # no runtime of a device reads it
    chosen = choose_golden(probabilities)
    exciting = choose_exciting(read_probabilities(folder / artifacts.EXCITING), list(probabilities))
    files = {name: (folder / name).read_bytes() for name in probabilities}
    files |= device_files() | wheels.files(target, folder / "wheels")
    files["example.pgm"] = example_picture(data, probabilities)
    files["golden.npz"] = golden_archive(data, probabilities, chosen, exciting)
    files |= native.bundle_files(folder, data.test.images, chosen, exciting)
    manifest = {
        "schema_version": 1,
        "name": artifacts.PROJECT,
        "version": artifacts.project_version(),
        "source_commit": built.get("source_commit"),  # of the artifacts, not of the packing
        "labels": list(data.label_names),
        "training": training_summary(folder),
        "models": {name: describe_model(folder / name, parity) for name in probabilities},
        "native": describe_binaries(parity["binaries"], files[artifacts.NATIVE_SOURCE].decode()),
        "golden": {"images": len(chosen), "test_indices": chosen.tolist()},
        "tools": artifacts.tool_versions(),
    }
    path = dist / f"{artifacts.bundle_name(target)}.tar.gz"
    with atomic_path(path) as temporary:
        bundle.write_bundle(files, manifest, artifacts.bundle_name(), temporary)
        verify_packed(temporary)
    return path


def example_picture(data: Dataset, probabilities: Mapping[str, Probabilities]) -> bytes:
    """The first test image that every model reads right, as PGM: it needs no decoder."""
    answers = np.array([values.argmax(axis=1) for values in probabilities.values()])  # (models, N)
    first = int((answers == data.test.labels).all(axis=0).argmax())
    return b"P5 28 28 255\n" + data.test.images[first].tobytes()


def describe_binaries(rows: Sequence[Mapping[str, Any]], source: str) -> dict[str, Any]:
    """The manifest's `native`, of `binaries` in `parity.json` and the C, which names its kernels.

    Returns:
        `judged`: the kernels by file; `not_judged`: the files that did not run, and the kernels
        that no file ran with.
    """
    judged: dict[str, list[str]] = {row["file"]: [] for row in rows}
    for row in rows:
        if row["status"] == "pass":
            judged[row["file"]].append(row["kernels"])
    ran = {name for kernels in judged.values() for name in kernels}
    return {
        "judged": {file: sorted(set(kernels)) for file, kernels in judged.items() if kernels},
        "not_judged": {
            "files": [file for file, kernels in judged.items() if not kernels],
            "kernels": sorted(set(re.findall(r'"(\w+)", network_', source)) - ran),
        },
    }


def verify_packed(archive: Path) -> None:
    """Unpack a bundle elsewhere and let it verify itself, as on a device, or UserError."""
    with tempfile.TemporaryDirectory() as elsewhere:
        bundle.unpack_bundle(archive, Path(elsewhere))
        unpacked = Path(elsewhere, artifacts.bundle_name())
        verify = ("-E", "-s", "-B", "runner.py", "verify", "--all")
        for python in (artifacts.DEVICE_PYTHON, Path(sys.executable)):
            if python.is_file():  # parity has judged whether it may be missing
                run_checked([str(python), *verify], unpacked)
        command = unpacked / "native" / artifacts.this_architecture() / native.COMMAND
        if command.is_file():
            run_checked([str(command), "--verify", artifacts.NATIVE_GOLDEN], unpacked)


def run_checked(command: Sequence[str], folder: Path) -> None:
    """Run a command of an unpacked bundle; UserError with what it said if it fails."""
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode != 0:
        said = (run.stdout + run.stderr).strip().splitlines()
        wrong = [line for line in said if not line.startswith(("ok ", "not run ", "FAIL"))]
        raise UserError(
            f"the bundle does not verify: {(wrong or said or ['no output'])[0]}; run `make export`"
        )


def device_files() -> dict[str, bytes]:
    """The device's folder, as it is."""
    folder = artifacts.ROOT / "device"
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    hidden = (".", "__pycache__")
    names = [name for name in names if not any(part.startswith(hidden) for part in name.parts)]
    return {str(name): (folder / name).read_bytes() for name in names}


def check_may_be_packed(folder: Path, parity: dict[str, Any]) -> None:
    """Raise UserError for a file that has not passed parity as it is now."""
    path = folder / artifacts.PARITY_JSON
    if parity.get("status") != "pass":
        raise UserError(f"{path}: parity is {parity.get('status')!r}; {PASSED_ONLY}")
    failed = [row["artifact"] for row in parity["rows"] if row["status"] == "fail"]
    if failed:
        raise UserError(f"{path}: {failed[0]} failed; {PASSED_ONLY}")
    checked = {row["artifact"]: row["sha256"] for row in parity["rows"] if row["status"] == "pass"}
    checked[parity["reference"]["artifact"]] = parity["reference"]["sha256"]
    for row in parity["rows"]:
        if row["artifact"] not in checked and not row["allowed"]:
            raise UserError(f"{path}: {row['artifact']} passed on no runtime; run `make export`")
    checked |= {row["file"]: row["sha256"] for row in parity["binaries"]}
    for name in native.BINARIES:
        if name not in checked:
            raise UserError(f"{path}: says nothing of {name}; run `make export`")
    for name, digest in checked.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise UserError(f"{folder / name}: changed since parity; run `make export`")


def choose_golden(
    probabilities: dict[str, NDArray[np.float32]], count: int = GOLDEN_IMAGES
) -> NDArray[np.intp]:
    """Indices of random images whose label no tolerated difference can change, ascending."""
    decided = np.ones(len(next(iter(probabilities.values()))), bool)
    for name, values in probabilities.items():
        ordered = np.sort(values, axis=1)
        decided &= ordered[:, -1] - ordered[:, -2] > 2 * tolerance(name)
    candidates = np.flatnonzero(decided)
    chosen = np.random.default_rng(GOLDEN_SEED).permutation(candidates)[:count]
    return np.sort(chosen)


def choose_exciting(
    archive: Mapping[str, NDArray[Any]], models: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Some of the images that parity made to excite, and the answers to them.

    Args:
        archive: `images`, the C's own `outputs`, and probabilities by "artifact@runtime".
        models: What the bundle holds.

    Returns:
        `images`, `outputs`, and probabilities by model.
    """
    of_all = one_runtime_each(dict(archive))
    answers = {name: of_all[name] for name in models}
    chosen = choose_golden(answers, GOLDEN_EXCITING)
    taken = {"images": archive["images"], "outputs": archive["outputs"], **answers}
    return {name: values[chosen] for name, values in taken.items()}


def golden_archive(
    data: Dataset,
    probabilities: dict[str, NDArray[np.float32]],
    chosen: NDArray[np.intp],
    exciting: Mapping[str, NDArray[Any]],
) -> bytes:
    """The golden vectors as .npz: images, labels, and each model's probabilities by its name.

    The exciting images follow the test images. They have no labels.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {
        name: np.concatenate([values[chosen], exciting[name]])
        for name, values in probabilities.items()
    }
    images = np.concatenate([data.test.images[chosen], exciting["images"]])
    np.savez(stream, images=images, labels=data.test.labels[chosen], **arrays)
    return stream.getvalue()


def tolerance(artifact: str) -> float:
    """How far a device's probabilities may be from the golden ones, 0..1."""
    return TOLERANCE[next(kind for kind in ("native", "int8", "fp32") if kind in artifact)]


def training_summary(folder: Path) -> dict[str, Any]:
    """The part of train.json that identifies the float model."""
    keys = ["recipe", "seed", "parameters", "val_accuracy", "test_accuracy"]
    keys += ["confidence", "model_sha256"]
    training = read_json(folder / artifacts.TRAIN_JSON, *keys)
    return {key: training[key] for key in keys}


def describe_model(path: Path, parity: dict[str, Any]) -> dict[str, Any]:
    """A model's part of the manifest: its input and output contract, accuracy and tolerance."""
    artifact = artifacts.NATIVE_SOURCE if path.suffix == ".c" else path.name
    row = next(r for r in parity["rows"] if r["artifact"] == artifact and r["status"] == "pass")
    description: dict[str, Any] = {
        "accuracy": row["accuracy"],
        "agreement": row["agreement"],
        "golden_runtime": f"{row['runtime']} {row['runtime_version']}",
        "tolerance": tolerance(artifact),
    }
    if path.suffix == ".onnx":
        return description | to_onnx.describe(path)
    if path.suffix == ".tflite":
        return description | to_tflite.describe(path)
    description["bit_identical"] = row["bit_identical"]
    return description | to_tflite.describe(path.parents[1] / artifacts.INT8_TFLITE)
