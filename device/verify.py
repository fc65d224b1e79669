"""Is this device's answer the trained model's? Checks of an unpacked bundle, for `runner.py`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Mapping

import numpy as np


def check_hashes(folder: Path, hashes: Mapping[str, str]) -> list[str]:
    """What differs between the files of a bundle and its manifest.

    Args:
        folder: The unpacked bundle.
        hashes: SHA-256 in hexadecimal by file, as the manifest has it.

    Returns:
        One line a difference.
    """
    problems = []
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing; unpack the bundle again")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            problems.append(f"{name}: altered; its SHA-256 is not the manifest's")
    return problems


def check_golden(classifier: Any, folder: Path, name: str, tolerance: float) -> list[str]:
    """What differs between this device's outputs and the golden vectors of a model.

    Labels must be equal. Probabilities may differ by the tolerance: the kernels of two runtimes
    round the last bit differently.

    Args:
        classifier: A `runner.Classifier` of a model of the bundle.
        folder: The unpacked bundle.
        name: The model's, in the manifest.
        tolerance: The manifest's, for this model, 0..1.

    Returns:
        One line a difference.
    """
    with np.load(folder / "golden.npz", allow_pickle=False) as golden:
        images = golden["images"]  # uint8 (256, 28, 28)
        expected = golden[name]  # float32 (256, classes)
    got = classifier.predict(images).probabilities
    problems = [
        f"{name}: golden image {i} is {got[i].argmax()}, not {expected[i].argmax()}"
        for i in np.flatnonzero(got.argmax(axis=1) != expected.argmax(axis=1))
    ]
    greatest = float(np.abs(got - expected).max())
    if not greatest <= tolerance:  # NaN is over it as well
        problems.append(f"{name}: probabilities differ by {greatest:.2g}, over {tolerance:.2g}")
    return problems
