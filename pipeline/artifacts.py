"""The names, paths and versions of all files in artifacts/ and dist/, and what runs each of them.

Every other module takes them from here. Only the standard library is imported, so that every
environment can read this file.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PROJECT = "lenet5-edge"
ROOT = Path(__file__).resolve().parents[1]
DEVICE_PYTHON = ROOT / ".venv-device" / "bin" / "python"
TOOLS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")

# --- Files in artifacts/, in the order of the stages that write them ----------------------------

FLOAT_MODEL, TRAIN_JSON = "lenet5.keras", "train.json"
FP32_TFLITE, INT8_TFLITE = "lenet5_fp32.tflite", "lenet5_int8.tflite"
FP32_ONNX, INT8_ONNX = "lenet5_fp32.onnx", "lenet5_int8.onnx"
CONVERTED = (FP32_TFLITE, INT8_TFLITE, FP32_ONNX, INT8_ONNX)
NATIVE_FOLDER = "native"
NATIVE_SOURCE, NATIVE_GOLDEN = "native/lenet5_int8.c", "native/golden.bin"
NATIVE_WASM = "native/lenet5_int8.wasm"  # the same C for browsers
NATIVE_LIBRARY = "lenet5_int8.so"  # in native/ARCHITECTURE
PARITY_JSON, PROBABILITIES = "parity.json", "probabilities.npz"
EXCITING = "exciting.npz"  # images that parity found by search, and every answer to them
BENCH_JSON, BENCH_PI_JSON = "bench.json", "bench-pi.json"
PHOTOS_JSON, ROBUSTNESS_JSON = "photos.json", "robustness.json"
PI_MATRIX_JSON = "pi-matrix.json"
DEVICES_FOLDER = "devices"  # a receipt a device, HOST.json
REPORT_HTML, MODEL_CARD = "report.html", "MODEL_CARD.md"
MISREAD_PNG = "figures/misread.png"  # of the model card
TIMINGS_JSON = "timings.json"  # seconds of each stage's last run

DOCS = ROOT / "docs"
ACCURACY_JSON, ACCURACY_MD = DOCS / "accuracy.json", DOCS / "accuracy.md"


@dataclass(frozen=True)
class Subject:
    """One artifact on one runtime."""

    artifact: str  # the name of its file
    runtime: str  # as `device/runner.py` knows it
    python: Path  # of the environment that has the runtime
    is_float: bool  # False: int8


def subjects() -> tuple[Subject, ...]:
    """Every artifact on every runtime that reads it."""
    here = Path(sys.executable)
    return (
        Subject(FP32_TFLITE, "tflite-runtime", DEVICE_PYTHON, True),
        Subject(FP32_TFLITE, "ai-edge-litert", here, True),
        Subject(INT8_TFLITE, "tflite-runtime", DEVICE_PYTHON, False),
        Subject(INT8_TFLITE, "ai-edge-litert", here, False),
        Subject(NATIVE_SOURCE, "native", here, False),
        Subject(NATIVE_WASM, "wasmtime", here, False),
        Subject(FP32_ONNX, "onnxruntime", here, True),
        Subject(INT8_ONNX, "onnxruntime", here, False),
    )


# --- Versions and machines ----------------------------------------------------------------------


def project_version() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def tool_versions() -> dict[str, str]:
    """The installed version of each of `TOOLS`."""
    return {tool: version(tool) for tool in TOOLS}


def bundle_name(wheels: str | None = None) -> str:
    """Such as "lenet5-edge-0.1.0"; with wheels, their target follows."""
    return "-".join(filter(None, [PROJECT, project_version(), wheels]))


def this_architecture() -> str:
    """The name of this machine's architecture, as `native/` has a folder for it."""
    return re.sub(r"^armv(\d)l$", r"armv\1", platform.machine())


def describe_machine() -> str:
    """One line on this machine: processor, cores, system, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.*)$", cpuinfo.read_text("utf-8"), re.MULTILINE)
        model = found[1].strip() if found else model
    cores = f"{os.cpu_count()} cores"
    return f"{model}, {cores}, {platform.system()}, Python {platform.python_version()}"
