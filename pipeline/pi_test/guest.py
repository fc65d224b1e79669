"""Classify images on the emulated Pi; `run.py` starts this where the bundle is installed.

    python guest.py MODEL RUNTIME IMAGES.npy OUTPUT.npz

Only the bundle's own runner is imported.
"""

import platform
import sys

import numpy as np


def main() -> None:
    """Write `probabilities` (n, classes) and the versions to OUTPUT.npz."""
    model, runtime, images, output = sys.argv[1:]  # images: uint8 (n, 28, 28)
    sys.path.insert(0, ".")
    from info import runtime_version
    from runner import Classifier

    np.savez(
        output,
        probabilities=Classifier(model, runtime).predict(np.load(images)).probabilities,
        runtime_version=runtime_version(runtime),
        python=platform.python_version(),
    )


if __name__ == "__main__":
    main()
