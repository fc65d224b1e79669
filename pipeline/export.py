"""The export stage: the float model in, TFLite and ONNX files out."""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export import to_onnx, to_tflite
from pipeline.artifacts import (
    CONVERTED,
    FLOAT_MODEL,
    FP32_ONNX,
    FP32_TFLITE,
    INT8_ONNX,
    INT8_TFLITE,
    PROJECT,
    ROOT,
    TRAIN_JSON,
    project_version,
)
from pipeline.data import Dataset, calibration_images, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import UserError, atomic_path, read_json
from pipeline.train.lenet5 import import_tensorflow
from pipeline.train.training import load_model


def run(args: argparse.Namespace) -> int:
    for name in args.artifacts:
        if name not in CONVERTED:
            raise UserError(f"{name}: no such artifact; there are: {', '.join(CONVERTED)}")
    data = load_data(args.data)
    import_tensorflow()
    for name in args.artifacts or CONVERTED:
        path = convert(name, args.out, data)
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


def convert(name: str, folder: Path, data: Dataset) -> Path:
    """Make one artifact from the float model.

    Args:
        name: One of `CONVERTED`.
        folder: It holds the float model and receives the artifact. The int8 ONNX file is made
            from the float one.
        data: The data set; int8 is calibrated on its training split.

    Returns:
        The artifact's path.

    Raises:
        UserError: An input is missing or unreadable.
    """
    path = folder / name
    require_trained_on(data, read_json(folder / TRAIN_JSON, "data_sha256"))
    metadata = file_metadata(data.label_names)
    with atomic_path(path) as temporary:
        if name == INT8_ONNX:
            source = folder / FP32_ONNX
            check_onnx(source)
            to_onnx.write_int8(source, calibration_images(data), temporary, metadata)
            return path
        model = load_model(folder / FLOAT_MODEL)
        if name == FP32_TFLITE:
            to_tflite.write_float32(model, temporary, metadata)
        elif name == INT8_TFLITE:
            to_tflite.write_int8(model, calibration_images(data), temporary, metadata)
        else:
            to_onnx.write_float32(model, temporary, metadata)
    return path


def check_onnx(path: Path) -> None:
    """Raise UserError for a missing or damaged ONNX file."""
    import onnx

    try:
        onnx.checker.check_model(path)
    except Exception:  # protobuf's errors, the checker's and the system's
        raise UserError(
            f"{path}: missing or damaged; run `python -m pipeline export {path.name}`"
        ) from None


def file_metadata(label_names: Sequence[str]) -> dict[str, Any]:
    """What every artifact says of itself."""
    metadata = {
        "name": PROJECT,
        "version": project_version(),
        "license": "MIT",
        "labels": label_names,
        "preprocessing": "grey image 28x28, white ink on black; pad by 2 with black to 32x32; "
        "divide by 255; int8 input: round(x / scale) + zero point",
    }
    commit = source_commit()
    return {**metadata, "source_commit": commit} if commit else metadata


def source_commit() -> str | None:
    """The commit of the source tree, with `-dirty` if it was changed; None outside git.

    A tree that was unpacked inside another repository has no commit of its own.
    """
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return None
        commit = _git("rev-parse", "HEAD")
        return commit + "-dirty" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
