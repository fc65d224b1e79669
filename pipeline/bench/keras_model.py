"""The float Keras model as a subject of the benchmark: what people start from.

It is called as Keras advises for a small input, `model(x, training=False)`; `model.predict`, made
for large ones, takes many times as long for one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.bench import worker
from device.runner import InputError, Predictions
from pipeline.data import preprocess
from pipeline.files import UserError


class KerasClassifier:
    """What `device/bench/worker.py` calls of a `runner.Classifier`; it is its own model."""

    def __init__(self, path: Path) -> None:
        from pipeline.train.training import load_model

        try:
            self._model = load_model(path)
        except UserError as error:
            raise InputError(str(error)) from None  # what the benchmark expects
        self.model = self
        self._black = preprocess(np.zeros((1, 28, 28), np.uint8))

    def invoke(self) -> None:
        """The model's own call, on a black image."""
        np.asarray(self._model(self._black, training=False))

    def classify(self, image: NDArray[np.uint8]) -> tuple[int, float]:
        """uint8 (28, 28) -> (label, probability)."""
        labels, probabilities = self.predict(image[np.newaxis])
        return int(labels[0]), float(probabilities[0, labels[0]])

    def predict(self, images: NDArray[np.uint8]) -> Predictions:
        """uint8 (N, 28, 28) -> labels (N,), probabilities (N, classes)."""
        probabilities = np.asarray(self._model(preprocess(images), training=False))
        return Predictions(probabilities.argmax(axis=1), probabilities)


def import_runtime(model: Path, runtime: str) -> None:
    """Import Keras and TensorFlow."""
    import keras  # noqa: F401


def load(model: Path, runtime: str, threads: int) -> KerasClassifier:
    """Load the model, TensorFlow using so many threads."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return KerasClassifier(model)


def describe(model: Path, runtime: str) -> dict[str, Any]:
    """The version of Keras, and the size of the model's file."""
    return {"runtime_version": version("keras"), "size_bytes": model.stat().st_size}


def main(argv: Sequence[str], started_ns: int) -> int:
    """As `device/bench/worker.py`."""
    return worker.main(argv, started_ns, import_runtime, load, describe)
