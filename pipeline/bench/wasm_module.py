"""The WebAssembly module in wasmtime as a subject of the benchmark: near to what a browser does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.bench import worker
from device.runner import Predictions, answer, prepare
from pipeline import wasm


def import_runtime(model: Path, runtime: str) -> None:
    """Import wasmtime."""
    import wasmtime  # noqa: F401


def load(path: Path, runtime: str, threads: int) -> worker.Loaded:
    """Load the module; it has one thread."""
    model = wasm.load(path)

    def predict(images: NDArray[np.uint8]) -> Predictions:
        return answer(model, model.run(prepare(images)))

    about = {"runtime_version": version(runtime), "size_bytes": path.stat().st_size}
    return worker.Loaded(model.classify, predict, model.invoke, lambda: about)


def main(argv: Sequence[str], started_ns: int) -> int:
    """As `device/bench/worker.py`."""
    return worker.main(argv, started_ns, import_runtime, load)
