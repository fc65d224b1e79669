"""The export stage: the float model in, TFLite and ONNX files out."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export import to_onnx, to_tflite
from pipeline import artifacts
from pipeline.data import Dataset, calibration_images, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import UserError, atomic_path, read_json
from pipeline.train.lenet5 import import_tensorflow
from pipeline.train.training import load_model


def run(args: argparse.Namespace) -> int:
    known = artifacts.CONVERTED
    for name in args.artifacts:
        if name not in known:
            raise UserError(f"{name}: no such artifact; there are: {', '.join(known)}")
    data = load_data(args.data)
    for name in args.artifacts or known:
        path = convert(name, args.out, data)
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def convert(name: str, folder: Path, data: Dataset) -> Path:
    """Make one of `CONVERTED` from the float model in the folder; returns its path.

    The int8 ONNX file is made from the float one. int8 is calibrated on the training split.

    Raises:
        UserError: An input is missing or unreadable.
    """
    path = folder / name
    require_trained_on(data, read_json(folder / artifacts.TRAIN_JSON, "data_sha256"))
    import_tensorflow()  # takes seconds
    metadata = file_metadata(data.label_names)
    with atomic_path(path) as temporary:
        if name == artifacts.FP32_TFLITE:
            to_tflite.write_float32(load_model(folder / artifacts.FLOAT_MODEL), temporary, metadata)
        elif name == artifacts.INT8_TFLITE:
            model, samples = load_model(folder / artifacts.FLOAT_MODEL), calibration_images(data)
            to_tflite.write_int8(model, samples, temporary, metadata)
        elif name == artifacts.FP32_ONNX:
            to_onnx.write_float32(load_model(folder / artifacts.FLOAT_MODEL), temporary, metadata)
        else:
            source = checked_onnx(folder / artifacts.FP32_ONNX)
            to_onnx.write_int8(source, calibration_images(data), temporary, metadata)
    return path


def checked_onnx(path: Path) -> Path:
    """The path of an ONNX file; UserError if it is missing or damaged."""
    import onnx

    try:
        onnx.checker.check_model(path)
    except Exception:  # protobuf's errors, the checker's and the system's
        again = f"run `python -m pipeline export {path.name}`"
        raise UserError(f"{path}: missing or damaged; {again}") from None
    return path


def file_metadata(label_names: Sequence[str]) -> dict[str, Any]:
    """What every artifact says of itself."""
    metadata = {
        "name": artifacts.PROJECT,
        "version": artifacts.project_version(),
        "license": "MIT",
        "labels": label_names,
        "preprocessing": "grey image 28x28, white ink on black; pad by 2 with black to 32x32; "
        "divide by 255; int8 input: round(x / scale) + zero point",
        "source_commit": source_commit(),
    }
    return {key: value for key, value in metadata.items() if value}


def source_commit() -> str | None:
    """The commit of the source tree, with `-dirty` if it was changed; None outside git.

    A tree that was unpacked inside another repository has no commit of its own.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != artifacts.ROOT:
            return None
        commit = _git("rev-parse", "HEAD")
        return commit + "-dirty" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(artifacts.ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
