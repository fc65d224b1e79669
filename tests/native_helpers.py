"""Compile and run generated C, and get the reference's outputs, for the tests."""

import ctypes
import platform
import re
from pathlib import Path

import numpy as np
from helpers import ROOT, need, run_program
from random_models import random_inputs

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
NATIVE = ROOT / "device" / "native"

_REFERENCE = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
model, inputs, outputs = sys.argv[1:]
interpreter = Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
source = interpreter.get_input_details()[0]["index"]
result = interpreter.get_output_details()[0]["index"]
rows = []
for image in np.load(inputs):
    interpreter.set_tensor(source, image[None])
    interpreter.invoke()
    rows.append(interpreter.get_tensor(result).ravel())
np.save(outputs, np.array(rows))
"""


def reference_outputs(device_python, model, inputs):
    """Outputs of tflite-runtime's default kernels, (count, classes), from its own process."""
    given, wanted = model.with_suffix(".in.npy"), model.with_suffix(".out.npy")
    np.save(given, inputs)
    done = run_program(device_python, "-c", _REFERENCE, str(model), str(given), str(wanted))
    assert done.returncode == 0, done.stderr
    return np.load(wanted)


def random_images(count):
    """Noise of many kinds, uint8 (count, 28, 28)."""
    return random_inputs((28, 28, 1), 0, count)[..., 0].view(np.uint8) ^ 0x80


def as_inputs(images):
    """The int8 input of the model, (count, 32, 32, 1), for images."""
    return (np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None] ^ 0x80).view(np.int8)


def x86_kernels():
    """Kernel macros that this processor can run."""
    if platform.machine() != "x86_64":
        return ["PORTABLE"]
    flags = Path("/proc/cpuinfo").read_text()
    kernels = ["PORTABLE", "SSE2"]
    if " avx2" in flags:
        kernels.append("AVX2")
    if " avx512_vnni" in flags and " avx512vl" in flags:
        kernels.append("AVX512VNNI")
    return kernels


def compile_c(output, *arguments, compiler="gcc"):
    """Compile; a warning or error fails the test with the compiler's words."""
    done = run_program(need(compiler), *STRICT, *arguments, "-o", str(output))
    assert done.returncode == 0, done.stderr
    return output


def build_command(lenet5, path, *flags, compiler="gcc"):
    """The lenet5 command of a model."""
    sources = [NATIVE / "lenet5.c", NATIVE / "image_file.c", lenet5.source]
    flags = [*flags, "-I", str(lenet5.source.parent), *map(str, sources)]
    return compile_c(path, *flags, compiler=compiler)


def compiled_run(source, kernels, classes):
    """lenet5_int8_run_int8 (int8 input) or _run (uint8 input) on a batch, (count, classes).

    Scratch lies at an odd address between guard bytes, which must survive.
    """
    flags = (f"-DKERNELS_{kernels}", "-O1", "-shared", "-fPIC", str(source))
    library = compile_c(source.with_suffix(f".{kernels}.so"), *flags)
    loaded = ctypes.CDLL(str(library))
    scratch_bytes = re.search(r"SCRATCH_BYTES \((\d+)u \+", source.with_suffix(".h").read_text())
    assert scratch_bytes
    size = int(scratch_bytes[1]) + classes
    guard = b"\xa5" * 64

    def run(batch):
        suffix = "run" if batch.dtype == np.uint8 else "run_int8"
        function = getattr(loaded, f"lenet5_int8_{suffix}")
        outputs = np.zeros((len(batch), classes), np.int8)
        scratch = ctypes.create_string_buffer(guard + b"\x5a" * (size + 1) + guard)
        at = ctypes.byref(scratch, len(guard) + 1)
        for image, output in zip(np.ascontiguousarray(batch), outputs, strict=True):
            function(ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(output.ctypes.data), at)
        assert scratch.raw.startswith(guard + b"\x5a")
        assert scratch.raw.endswith(guard + b"\0")
        return outputs

    return run
