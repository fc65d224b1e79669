"""The WebAssembly module in wasmtime: the parity judge of what browsers run.

wasmtime comes as a Python package with all it needs, so that the module is judged on every
machine; that a browser answers alike is a test of the report's page.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device.runner import InputError, Model, one_at_a_time
from pipeline.files import first_line

RUNTIME = "wasmtime"


def load(path: Path) -> Model:
    """Load the module (device/native/web.c says what it exports), as the runner loads the others.

    Raises:
        InputError: The file is not this module.
    """
    wasmtime = import_module(RUNTIME)  # here: the device's environment does not have it

    try:
        store = wasmtime.Store()
        module = wasmtime.Module.from_file(store.engine, str(path))
        exports = wasmtime.Instance(store, module, []).exports(store)
        image_at, output_at, classes = (
            exports[name](store) for name in ("image", "outputs", "classes")
        )
        memory = np.frombuffer(exports["memory"].get_buffer_ptr(store), np.uint8)
        compiled = exports["run"]
    except (wasmtime.WasmtimeError, KeyError) as error:
        raise InputError(f"{path}: {RUNTIME} refuses it: {first_line(error)}") from None
    pixels, row = memory[image_at : image_at + 784], memory[output_at : output_at + classes]

    def invoke() -> None:
        compiled(store)

    def ask(image: NDArray[np.uint8]) -> list[int]:  # (28, 28) -> the outputs
        pixels[:] = image.ravel()
        invoke()
        return row.view(np.int8).tolist()

    return one_at_a_time(path, np.int8, ask, invoke)
