"""The export stage: `lenet5.keras` in, one artifact out."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

from export import to_onnx, to_tflite
from pipeline.config import ExportConfig
from pipeline.data import Dataset, calibration_images
from pipeline.files import ROOT, UserError, atomic_path, read_json
from pipeline.train.training import MODEL_NAME, load_model

ARTIFACTS = (
    "lenet5_fp32.tflite",
    "lenet5_int8.tflite",
    "lenet5_fp32.onnx",
    "lenet5_int8.onnx",
)


def convert(name: str, folder: Path, data: Dataset, config: ExportConfig) -> Path:
    """Make one artifact from the float model.

    Args:
        name: One of `ARTIFACTS`.
        folder: It holds `lenet5.keras` and receives the artifact; `lenet5_int8.onnx` is made from
            `lenet5_fp32.onnx`.
        data: The data set; int8 is calibrated on its training split.
        config: The settings.

    Returns:
        The artifact's path.

    Raises:
        UserError: An input is missing or unreadable.
    """
    path = folder / name
    metadata = file_metadata(read_json(folder / "train.json", "label_names")["label_names"])
    with atomic_path(path) as temporary:
        if name == "lenet5_int8.onnx":
            source = folder / "lenet5_fp32.onnx"
            check_onnx(source)
            samples = calibration_images(data, config.calibration_images)
            to_onnx.write_int8(source, samples, temporary, metadata)
            return path
        model = load_model(folder / MODEL_NAME)
        if name == "lenet5_fp32.tflite":
            to_tflite.write_float32(model, temporary, metadata)
        elif name == "lenet5_int8.tflite":
            samples = calibration_images(data, config.calibration_images)
            to_tflite.write_int8(model, samples, temporary, metadata)
        else:
            to_onnx.write_float32(model, temporary, metadata)
    return path


def check_onnx(path: Path) -> None:
    """Refuse a missing or damaged ONNX file.

    Raises:
        UserError: It says so.
    """
    import onnx

    try:
        onnx.checker.check_model(path)
    except Exception:  # protobuf's errors, the checker's and the system's
        raise UserError(
            f"{path}: missing or damaged; run `python -m pipeline export {path.name}`"
        ) from None


def file_metadata(label_names: list[str]) -> dict[str, Any]:
    """What every artifact says of itself."""
    metadata = {
        "name": "lenet5-edge",
        "version": project_version(),
        "license": "MIT",
        "labels": label_names,
        "preprocessing": "grey image 28x28, white ink on black; pad by 2 with black to 32x32; "
        "divide by 255; int8 input: round(x / scale) + zero point",
    }
    commit = source_commit()
    return {**metadata, "source_commit": commit} if commit else metadata


def project_version() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def source_commit() -> str | None:
    """The commit of the source tree, with `-dirty` if it was changed; None outside git.

    A tree that was unpacked inside somebody else's repository has no commit of its own.
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
