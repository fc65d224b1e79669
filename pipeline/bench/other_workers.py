"""What the runner has no part in, as subjects of the benchmark: Keras and WebAssembly.

Keras is what people start from. It is called as it advises for a small input, `model(x,
training=False)`; `model.predict`, made for large ones, takes many times as long for one image.
WebAssembly in wasmtime is near to what a browser does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.bench import worker
from device.runner import Predictions, answer, prepare
from pipeline import wasm
from pipeline.files import UserError


def import_runtime(model: Path, runtime: str) -> None:
    """Import "keras" or "wasmtime"."""
    import_module(runtime)


def load(path: Path, runtime: str, threads: int) -> worker.Loaded:
    """Load a model as `device/bench/worker.py` does."""
    is_wasm = runtime == wasm.RUNTIME
    classify, predict, invoke = load_wasm(path) if is_wasm else load_keras(path, threads)
    about = {"runtime_version": version(runtime), "size_bytes": path.stat().st_size}
    return worker.Loaded(classify, predict, invoke, lambda: about)


def load_keras(path: Path, threads: int) -> tuple[Any, Any, None]:
    """How to classify, to predict and to invoke, by TensorFlow with so many threads."""
    import tensorflow as tf

    from pipeline.data import preprocess
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

    return classify, predict, None


def load_wasm(path: Path) -> tuple[Any, Any, Any]:
    """The same by wasmtime, with one thread."""
    model = wasm.load(path)

    def predict(images: NDArray[np.uint8]) -> Predictions:
        return answer(model, model.run(prepare(images)))

    return model.classify, predict, model.invoke


def main(argv: Sequence[str], started_ns: int) -> int:
    """As `device/bench/worker.py`."""
    return worker.main(argv, started_ns, import_runtime, load)
