"""The float model and the int8 TFLite file on the same images, side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.classify import Outputs, classify_apart
from pipeline.data import Images
from pipeline.files import UserError
from pipeline.parity.check import DEVICE_PYTHON, REFERENCE

INT8 = "lenet5_int8.tflite"


def classify(folder: Path, images: Images) -> dict[str, NDArray[np.float32]]:
    """Probabilities of both.

    int8 runs in tflite-runtime through the runner, as on a device; in ai-edge-litert where there
    is no tflite-runtime (Python 3.12 and later).

    Args:
        folder: It holds the float model and the TFLite file.
        images: uint8 (N, 28, 28).

    Returns:
        "float" and "int8": float32 (N, classes).

    Raises:
        UserError: One of them cannot run.
    """
    here = Path(sys.executable)
    reference = _require(classify_apart(folder / REFERENCE, "keras", here, images))
    int8 = classify_apart(folder / INT8, "tflite-runtime", DEVICE_PYTHON, images)
    if not isinstance(int8, Outputs):
        int8 = classify_apart(folder / INT8, "ai-edge-litert", here, images)
    return {"float": reference.probabilities, "int8": _require(int8).probabilities}


def _require(got: Outputs | str) -> Outputs:
    if isinstance(got, str):
        raise UserError(got)
    return got
