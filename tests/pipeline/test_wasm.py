"""The WebAssembly module: reproducible, without imports, and refused in one line if damaged.

That it answers bit for bit as tflite-runtime, one image at a time as in a batch, is a row of parity
(parity/test_parity.py).
"""

import pytest
import wasmtime

from device.runner import InputError
from pipeline import native, wasm
from pipeline.artifacts import NATIVE_SOURCE, NATIVE_WASM


def test_same_source_gives_the_same_module_wherever_it_lies(artifacts, exported):
    path = artifacts / NATIVE_WASM
    with (artifacts / NATIVE_SOURCE).open("a") as source:
        source.write("/* not the file that the compiler remembers */\n")
    path.unlink()
    native.build_wasm(artifacts)
    assert path.read_bytes() == (exported / NATIVE_WASM).read_bytes()
    assert wasmtime.Module.from_file(wasmtime.Engine(), str(path)).imports == []


def test_a_damaged_module_is_refused_by_name_in_one_line(artifacts):
    path = artifacts / NATIVE_WASM
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"lenet5_int8\.wasm: wasmtime refuses it: .") as caught:
        wasm.load(path)
    assert "\n" not in str(caught.value)
