"""The float Keras model as a subject of the benchmark: what people start from.

It is called as Keras advises for a small input, `model(x, training=False)`; `model.predict`, made
for large ones, takes many times as long for one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from device.bench import worker
from pipeline.data import preprocess
from pipeline.files import UserError


class KerasLoader(worker.Loader):
    """Loads the model; it has no call beside the one that an application makes."""

    def import_runtime(self) -> None:
        """Import Keras and TensorFlow."""
        import keras  # noqa: F401

    def load(self, threads: int) -> worker.Loaded:
        """Load the model, TensorFlow using so many threads."""
        import tensorflow as tf

        from pipeline.train.training import load_model

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        try:
            model = load_model(self.model)
        except UserError as error:
            raise ValueError(str(error)) from None  # what the benchmark expects

        def predict(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            probabilities = np.asarray(model(preprocess(images), training=False))
            return probabilities.argmax(axis=1), probabilities

        def classify(image: NDArray[np.uint8]) -> tuple[int, float]:
            labels, probabilities = predict(image[np.newaxis])
            return int(labels[0]), float(probabilities[0, labels[0]])

        return worker.Loaded(classify, predict, invoke=None)

    def version(self) -> str:
        """The version of Keras."""
        return version("keras")


def main(argv: Sequence[str], started_ns: int) -> int:
    """As `device/bench/worker.py`."""
    return worker.main(argv, started_ns, KerasLoader)
