"""Classify images with one artifact on one runtime, in a process of its own.

    python -m pipeline.worker ARTIFACT RUNTIME IMAGES.npy OUTPUT.npz

Two runtimes in one process can corrupt each other (tflite-runtime and TensorFlow do), so parity
starts this once for each row, with the interpreter of the environment that has the runtime. The
artifact runs through `device/runner.py`, the code that ships. Only that and numpy are imported,
so that it works in `.venv-device` as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from device.runner import Classifier, InputError, runtime_version


def main(argv: Sequence[str] | None = None) -> int:
    """Write `probabilities` (N, classes), `classes` and `runtime_version` to OUTPUT.npz."""
    artifact, runtime, images_path, output = list(sys.argv[1:] if argv is None else argv)
    images = np.load(images_path, allow_pickle=False)  # uint8 (N, 28, 28)
    try:
        if runtime == "keras":
            from pipeline.train import load_model, predict

            probabilities = predict(load_model(Path(artifact)), images)
        else:
            probabilities = Classifier(artifact, runtime).predict(images).probabilities
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    np.savez(output, probabilities=probabilities, runtime_version=runtime_version(runtime))
    return 0


if __name__ == "__main__":
    sys.exit(main())
