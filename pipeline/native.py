"""The native stage: int8 TFLite -> C source, and the outputs that its binaries must reproduce."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.requantization import ArithmeticBoundError
from export.tflite_graph import UnsupportedModelError
from export.to_c import to_c
from pipeline.data import Dataset, require_trained_on
from pipeline.files import UserError, atomic_path, read_json
from pipeline.parity import DEVICE_PYTHON
from pipeline.worker import classify_apart

MODEL = "lenet5_int8.tflite"
GOLDEN_MAGIC = b"LENET5G1"  # then 784 pixels and the int8 outputs of each image


def generate(folder: Path, data: Dataset, device_python: Path = DEVICE_PYTHON) -> Path:
    """Write `native/lenet5_int8.c`, `.h` and `golden.bin` of all test images.

    The golden outputs are tflite-runtime's, default kernels (docs/adr/0007-native-reference.md).

    Args:
        folder: It holds the int8 TFLite file.
        data: The data set; its test images go into the golden file.
        device_python: The interpreter of the device environment.

    Returns:
        The C file's path.

    Raises:
        UserError: The model is missing or not covered, or tflite-runtime cannot run.
    """
    model = folder / MODEL
    if not model.is_file():
        raise UserError(f"{model}: missing; run `make export`")
    require_trained_on(data, read_json(folder / "train.json"))
    reference = classify_apart(model, "tflite-runtime", device_python, data.test.images)
    if isinstance(reference, str):
        raise UserError(f"{model}: no reference to be bit-exact with: {reference}")
    native = folder / "native"
    native.mkdir(exist_ok=True)
    try:
        source = to_c(model, native).source
    except (UnsupportedModelError, ArithmeticBoundError) as error:
        raise UserError(f"{model}: {error}") from None
    pixels = data.test.images.reshape(len(data.test), -1)  # uint8 (N, 784)
    records = np.concatenate([pixels, reference.raw.view(np.uint8)], axis=1)
    with atomic_path(native / "golden.bin") as temporary:
        temporary.write_bytes(GOLDEN_MAGIC + records.tobytes())
    return source
