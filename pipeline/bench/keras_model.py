"""The float Keras model as a subject of the benchmark: what people start from.

It is called as Keras advises for a small input, `model(x, training=False)`; `model.predict`, made
for large ones, takes many times as long for one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device import bench
from device.runner import InputError, Predictions
from pipeline.data import preprocess
from pipeline.files import UserError


class KerasClassifier:
    """What `device/bench.py` calls of a `runner.Classifier`; it is its own session."""

    batch = 512
    uses_threads = True

    def __init__(self, model: Path) -> None:
        from pipeline.train.training import load_model

        try:
            self._model = load_model(model)
        except UserError as error:
            raise InputError(str(error)) from None  # what the benchmark expects
        self.session = self

    def predict(self, images: NDArray[Any]) -> Predictions:
        """Classify float32 (N, 32, 32, 1) as it is, or uint8 (N, 28, 28)."""
        given = images if images.ndim == 4 else self.prepare(images)
        return Predictions(self.run_batch(given), 0.0, 0)

    def prepare(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (N, 28, 28) -> float32 (N, 32, 32, 1), 0..1."""
        return preprocess(images)

    def run_batch(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 (N, 32, 32, 1) -> (N, classes)."""
        return np.asarray(self._model(images, training=False))


def import_only(model: Path, runtime: str) -> None:
    """Import Keras and TensorFlow."""
    import keras  # noqa: F401


def load(model: Path, runtime: str, threads: int) -> KerasClassifier:
    """Load the model, TensorFlow using so many threads."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return KerasClassifier(model)


def main(argv: Sequence[str], started_ns: int) -> int:
    """As `device/bench.py`."""
    return bench.main(argv, started_ns, import_only, load)
