"""The WebAssembly module: reproducible, without imports, and refused in one line if damaged.

That it answers bit for bit as tflite-runtime is a row of parity (parity/test_parity.py).
"""

import numpy as np
import pytest
import wasmtime

from device.runner import InputError
from pipeline import native, wasm
from pipeline.artifacts import NATIVE_GOLDEN, NATIVE_SOURCE, NATIVE_WASM


def test_same_source_gives_the_same_module_wherever_it_lies(artifacts, exported):
    path = artifacts / NATIVE_WASM
    with (artifacts / NATIVE_SOURCE).open("a") as source:
        source.write("/* not the file that the compiler remembers */\n")
    path.unlink()
    native.build_wasm(artifacts)
    assert path.read_bytes() == (exported / NATIVE_WASM).read_bytes()
    assert wasmtime.Module.from_file(wasmtime.Engine(), str(path)).imports == []


@pytest.mark.parametrize("content", ["cut off", b"\0asm\1\0\0\0"])  # the second is empty
def test_a_damaged_or_another_module_is_refused_by_name_in_one_line(exported, tmp_path, content):
    path = tmp_path / "lenet5_int8.wasm"
    whole = (exported / NATIVE_WASM).read_bytes()
    path.write_bytes(whole[:-1000] if content == "cut off" else content)
    with pytest.raises(InputError, match=r"lenet5_int8\.wasm: wasmtime refuses it: .") as caught:
        wasm.load(path)
    assert "\n" not in str(caught.value)


def test_one_image_is_answered_as_in_a_batch(exported, mnist):
    model = wasm.load(exported / NATIVE_WASM)
    images = mnist.test.images[:1000]
    rows = model.run(images[:3])
    np.testing.assert_array_equal(rows, native.read_golden(exported / NATIVE_GOLDEN, images)[:3])
    row = rows[0].astype(int) + 128
    assert model.classify(images[0]) == (row.argmax(), pytest.approx(row.max() / row.sum()))
