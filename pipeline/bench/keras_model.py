"""The float Keras model as a subject of the benchmark: what people start from.

It is called as Keras advises for a small input, `model(x, training=False)`; `model.predict`, made
for large ones, takes many times as long for one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.bench import worker
from pipeline.data import preprocess
from pipeline.files import UserError


def import_runtime(model: Path, runtime: str) -> None:
    """Import Keras and TensorFlow."""
    import keras  # noqa: F401


def load(path: Path, runtime: str, threads: int) -> worker.Loaded:
    """Load the model, TensorFlow using so many threads."""
    import tensorflow as tf

    from pipeline.train.training import load_model

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    try:
        model = load_model(path)
    except UserError as error:
        raise ValueError(str(error)) from None  # what the benchmark expects

    def predict(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        probabilities = np.asarray(model(preprocess(images), training=False))
        return probabilities.argmax(axis=1), probabilities

    def classify(image: NDArray[np.uint8]) -> tuple[int, float]:
        labels, probabilities = predict(image[np.newaxis])
        return int(labels[0]), float(probabilities[0, labels[0]])

    about = {"runtime_version": version("keras"), "size_bytes": path.stat().st_size}
    return worker.Loaded(classify, predict, None, lambda: about)


def main(argv: Sequence[str], started_ns: int) -> int:
    """As `device/bench/worker.py`."""
    return worker.main(argv, started_ns, import_runtime, load)
