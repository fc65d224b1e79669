"""Classify the test images on the emulated Pi; `run.py` starts this in the unpacked bundle.

    python guest.py MODEL RUNTIME IMAGES.npy OUTPUT.npz SECONDS

Only the bundle's own runner is imported. It stops at the first multiple of `STEP` images after
SECONDS of processor time, so that a slow machine classifies fewer.
"""

from __future__ import annotations

import importlib
import platform
import sys
import time

import numpy as np

STEP = 512  # as many as the runner gives onnxruntime at once


def main() -> None:
    """Write `probabilities` (n, classes) and the versions to OUTPUT.npz."""
    model, runtime, images_path, output, seconds = sys.argv[1:]
    sys.path.insert(0, ".")
    runner = importlib.import_module("runner")
    images = np.load(images_path)  # uint8 (N, 28, 28)
    classifier = runner.Classifier(model, runtime)
    probabilities = []
    for start in range(0, len(images), STEP):
        probabilities.append(classifier.predict(images[start : start + STEP]).probabilities)
        if time.process_time() > float(seconds):
            break
    np.savez(
        output,
        probabilities=np.concatenate(probabilities),
        runtime_version=runner.runtime_version(runtime),
        python=platform.python_version(),
        numpy=np.__version__,
    )


if __name__ == "__main__":
    main()
