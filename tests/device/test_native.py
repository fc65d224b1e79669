"""The generated C: bit-exact by every set of kernels, from Python, and by whatever compiles it."""

import ctypes
import shutil
import sys
import sysconfig
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY_RECIPE, absent, idx_bytes, need, run_program, run_stage
from native_helpers import (
    NATIVE,
    SANITIZERS,
    as_inputs,
    build_command,
    compile_c,
    compiled_run,
    random_images,
    reference_outputs,
    x86_kernels,
)
from random_models import random_inputs, random_lenet5

from device.runner import Classifier, InputError, native_library
from export.c_tables import quantize_pixels
from export.quantized_lenet5 import read_lenet5
from export.to_c import to_c
from pipeline import native
from pipeline.artifacts import this_architecture
from pipeline.files import UserError
from pipeline.studies import instructions

# --- Kernels ------------------------------------------------------------------------------------


# Of seven numbers of classes; the odd ones quantize their input in other ways.
@pytest.mark.parametrize("seed", [0, 5, 6, 7, 9, 11, 14])
def test_random_lenet5_is_bit_exact_on_every_instruction_set(seed, tmp_path, device_python):
    path = tmp_path / "model.tflite"
    path.write_bytes(random_lenet5(seed))
    inputs = random_inputs((32, 32, 1), seed, 64)
    expected = reference_outputs(device_python, path, inputs)
    assert len(np.unique(expected)) > 5, "saturated: the test would see nothing"
    source = to_c(path, tmp_path)
    images = random_images(16)
    levels = quantize_pixels(read_lenet5(path).image)  # int8 (256,)
    as_int8 = levels[np.pad(images, ((0, 0), (2, 2), (2, 2)))][..., np.newaxis]
    for kernels in x86_kernels():
        run = compiled_run(source, kernels, expected.shape[1])
        np.testing.assert_array_equal(run(inputs), expected, kernels)
        np.testing.assert_array_equal(run(images), run(as_int8), kernels)


def test_probabilities_are_the_outputs_in_steps_of_a_256th(lenet5, tmp_path):
    flags = ("-DKERNELS_PORTABLE", "-shared", "-fPIC", str(lenet5.source))
    library = ctypes.CDLL(str(compile_c(tmp_path / "model.so", *flags)))
    got, scratch = np.zeros(10, np.float32), ctypes.create_string_buffer(8192)
    for image, output in zip(lenet5.images[:3], lenet5.outputs, strict=False):
        addresses = (ctypes.c_void_p(array.ctypes.data) for array in (image, got))
        library.lenet5_int8_probabilities(*addresses, scratch)
        np.testing.assert_array_equal(got, (output.astype(np.float32) + 128) / 256)


@pytest.mark.parametrize("kernels", x86_kernels())
def test_no_address_is_wrong_and_no_integer_wraps_or_loses_bits_unmeant(
    kernels, lenet5, golden, tmp_path
):
    flags = ("-O1", *SANITIZERS, "-fsanitize=integer,implicit-conversion")
    path, compiler = tmp_path / "lenet5", need("clang")
    binary = build_command(lenet5, path, f"-DKERNELS_{kernels}", *flags, compiler=compiler)
    (tmp_path / "digits.idx").write_bytes(idx_bytes(lenet5.images[:3]))
    runs = [["--verify", golden], [tmp_path / "digits.idx"]]
    if kernels == x86_kernels()[-1]:
        runs.append(["--bench"])  # thousands of images, slow with all these checks
    for arguments in runs:
        done = run_program(binary, *arguments)
        assert (done.returncode, done.stderr) == (0, "")


KERNELS = {
    "cortex-a53": "neon",
    "cortex-a72": "neon",
    "cortex-a76": "neondot",
    "cortex-a7": "neon",
    "arm1176": "dsp",
}


def test_random_lenet5_is_bit_exact_on_every_pi_by_the_kernels_for_it(tmp_path, device_python):
    path = tmp_path / "model.tflite"
    path.write_bytes(random_lenet5(0))
    images = random_images(64)
    expected = reference_outputs(device_python, path, as_inputs(images))
    (tmp_path / "golden.bin").write_bytes(native.golden_file(images, expected))
    to_c(path, tmp_path)
    native.build(tmp_path, tmp_path, {board.architecture for board in instructions.BOARDS})
    for board in instructions.BOARDS:
        command = [need(native.EMULATORS[board.architecture]), "-cpu", board.processor]
        lenet5 = tmp_path / board.architecture / "lenet5"
        done = run_program(*command, lenet5, "--verify", tmp_path / "golden.bin")
        said = f"64 of 64 outputs equal ({KERNELS[board.processor]} kernels)\n"
        assert (done.returncode, done.stdout, done.stderr) == (0, said, ""), board


def test_command_for_this_machine_chooses_the_best_kernels_it_has(compiled, golden):
    done = run_program(compiled / this_architecture() / "lenet5", "--verify", golden)
    if this_architecture() == "x86_64":
        assert f"({x86_kernels()[-1].lower()} kernels)" in done.stdout
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("compiler", "emulator", "name"),
    [
        ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-cpu", "cortex-a72"], "neon"),
        ("aarch64-linux-gnu-gcc", ["qemu-aarch64", "-cpu", "cortex-a76"], "neondot"),
        ("arm-linux-gnueabihf-gcc", ["qemu-arm"], "dsp"),  # without NEON, as Debian's armhf
        ("s390x-linux-gnu-gcc", ["qemu-s390x"], "portable"),  # big-endian
    ],
)
def test_command_of_another_compiler_is_bit_exact_under_qemu(
    compiler, emulator, name, lenet5, golden, tmp_path
):
    need(compiler)
    need(emulator[0])
    binary = build_command(lenet5, tmp_path / "lenet5", "-O2", "-static", compiler=compiler)
    done = run_program(*emulator, binary, "--verify", golden)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"600 of 600 outputs equal ({name} kernels)\n"


# --- The runtime `native` -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def library(compiled):
    """What Python loads on this machine."""
    return compiled / this_architecture() / "lenet5_int8.so"


@pytest.fixture(scope="session")
def binding(library):
    """The library as a Python module."""
    loader = ExtensionFileLoader("lenet5_int8", str(library))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("image", "output"),
    [
        (bytes(783), bytearray(10)),
        (bytes(785), bytearray(10)),
        (bytes(784), bytearray(20)),
        (bytes(784), bytearray(9)),
        (bytes(1568), bytearray(10)),
        (np.zeros(98, object), bytearray(10)),
        (bytes(784 * 8), np.zeros(10, object)),
        (np.zeros(196, np.int32), bytearray(10)),
        (bytes(784), bytes(10)),
    ],
)
def test_binding_refuses_wrong_sizes_and_kinds_and_read_only_outputs(binding, image, output):
    said = "not single bytes|bytes of outputs for|not writable"
    with pytest.raises((ValueError, BufferError), match=said):
        binding.run(image, output)


def test_binding_keeps_nothing_of_what_it_was_given_whatever_came_of_it(binding):
    images, outputs = [bytearray(784), bytearray(783)], [bytearray(10), bytearray(9)]
    nones = sys.getrefcount(None)
    for _ in range(1000):
        binding.run(images[0], outputs[0])
    assert sys.getrefcount(None) > nones - 500
    for image, output in ((images[0], outputs[1]), (images[1], outputs[0])):
        with pytest.raises(ValueError):
            binding.run(image, output)
    binding.classify(images[0])
    for no_image in (images[1], b""):
        with pytest.raises(ValueError):
            binding.classify(no_image)
    with pytest.raises(TypeError, match=r"expected \(images, outputs\)"):
        binding.run(images[0], outputs[0], outputs[0])
    for argument in (*images, *outputs):
        argument.append(0)  # refused while something holds its memory


_LAYOUT = """
#include <stddef.h>
#include <stdio.h>
#include HEADER
#define AT(type, field) printf(#type "." #field " %zu\\n", offsetof(type, field))
int main(void)
{
    printf("%zu %zu %zu %zu %zu\\n", sizeof(PyObject), sizeof(Py_buffer), sizeof(PyMethodDef),
           sizeof(PyModuleDef), sizeof(Py_ssize_t));
    AT(Py_buffer, buf); AT(Py_buffer, len); AT(Py_buffer, internal);
    AT(PyMethodDef, ml_meth); AT(PyMethodDef, ml_flags); AT(PyMethodDef, ml_doc);
    AT(PyModuleDef, m_name); AT(PyModuleDef, m_doc); AT(PyModuleDef, m_methods);
    printf("%d %d %d %d %d\\n", PyBUF_SIMPLE, PyBUF_WRITABLE, METH_NOARGS, METH_FASTCALL,
           PYTHON_ABI_VERSION);
    return 0;
}
"""


def test_declared_part_of_the_stable_abi_is_pythons_own(tmp_path):
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        absent("Python.h is not installed")
    source = tmp_path / "layout.c"
    source.write_text(_LAYOUT)
    printed = []
    for header, folder in (("python_abi.h", NATIVE), ("Python.h", headers)):
        program = tmp_path / f"{header}.out"
        done = run_program(need("gcc"), f'-DHEADER="{header}"', "-I", folder, source, "-o", program)
        assert done.returncode == 0, done.stderr
        printed.append(run_program(program).stdout)
    assert printed[0] == printed[1] != ""


def test_classifier_runs_the_compiled_c_and_is_bit_exact(library, lenet5):
    classifier = Classifier(lenet5.source)
    assert classifier.runtime == "native"
    np.testing.assert_array_equal(classifier.model.run(lenet5.images), lenet5.outputs)
    for image, output in zip(lenet5.images[:50], lenet5.outputs, strict=False):
        steps = output.astype(int) + 128
        assert classifier.classify(image) == (steps.argmax(), steps.max() / steps.sum())


@pytest.fixture
def source(lenet5, tmp_path):
    """A copy of the C file and its header, alone in a folder."""
    (tmp_path / "native").mkdir()
    shutil.copy(lenet5.source.with_suffix(".h"), tmp_path / "native")
    return Path(shutil.copy(lenet5.source, tmp_path / "native"))


def test_library_that_is_missing_damaged_or_of_another_machine_is_one_line(
    exported, source, library
):
    content = library.read_bytes()
    arch = "armv7" if this_architecture() != "armv7" else "aarch64"
    foreign = (exported / "native" / arch / "lenet5_int8.so").read_bytes()
    native_library(source).parent.mkdir()
    for there, why in (
        (None, "not compiled for this machine: make -C native"),
        (content[:5000] + bytes([content[5000] ^ 1]) + content[5001:], "damaged"),
        (foreign, "native: not usable"),
    ):
        if there is not None:
            native_library(source).write_bytes(there)
        with pytest.raises(InputError, match=why) as caught:
            Classifier(source)
        assert "\n" not in str(caught.value)


# --- Compiling ----------------------------------------------------------------------------------


def test_same_source_gives_the_same_binaries_wherever_it_lies(
    source, compiled, tmp_path, monkeypatch
):
    monkeypatch.setattr(native, "C_FOLDER", Path(shutil.copytree(NATIVE, tmp_path / "sources")))
    folder, arch = source.parent, this_architecture()
    native.build(folder, folder, [arch])
    for name in ("lenet5", "lenet5_int8.so"):
        made = (folder / arch / name).read_bytes()
        assert made == (compiled / arch / name).read_bytes()
        assert str(tmp_path).encode() not in made


def test_compiling_needs_no_compiler_of_the_system_and_no_home(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", "/proc/none")
    monkeypatch.setenv("CPATH", str(tmp_path / "other-headers"))
    native.build(source.parent, source.parent, [this_architecture()])
    made = {path.name for path in (source.parent / this_architecture()).iterdir()}
    assert made == {"lenet5", "lenet5_int8.so"}


def test_what_does_not_compile_is_one_line_and_leaves_the_old_binaries(source):
    old = source.parent / "aarch64" / "lenet5"
    old.parent.mkdir()
    old.write_bytes(b"of an earlier run")
    with source.open("a") as text:
        text.write("int broken(void) { return missing; }\n")
    with pytest.raises(UserError, match=r"aarch64: compiling failed: .*error.*'missing'") as caught:
        native.build(source.parent, source.parent, ["aarch64"])
    assert "\n" not in str(caught.value)
    assert old.read_bytes() == b"of an earlier run"
    left = sorted(path.name for path in source.parent.iterdir())
    assert left == ["aarch64", "lenet5_int8.c", "lenet5_int8.h"]


def test_makefile_compiles_command_and_library_with_the_devices_own_compiler(
    source, lenet5, golden
):
    need("gcc")
    folder = shutil.copytree(NATIVE, source.parent, dirs_exist_ok=True)
    done = run_program("make", "--silent", "-C", folder, "CC=gcc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    command = folder / this_architecture() / "lenet5"
    assert run_program(command, "--verify", golden).returncode == 0
    np.testing.assert_array_equal(Classifier(source).model.run(lenet5.images), lenet5.outputs)


def test_a_model_of_six_classes_is_made_from_other_data_compiled_and_verifies(
    mnist, tmp_path, this_machine_alone
):
    arrays = {}
    for part, split, count in (("train", mnist.train, 600), ("test", mnist.test, 240)):
        few = np.flatnonzero(split.labels < 6)[:count]
        arrays |= {f"x_{part}": split.images[few], f"y_{part}": split.labels[few]}
    np.savez(tmp_path / "six.npz", **arrays)
    recipe = tmp_path / "moment.toml"
    recipe.write_text(TINY_RECIPE.replace("steps = 200", "steps = 20"))
    for stage in (["train", "--recipe", recipe], ["export", "lenet5_int8.tflite"], ["native"]):
        run = run_stage(*stage, "--data", tmp_path, "--out", tmp_path / "out")
        assert run.returncode == 0, run.stdout + run.stderr
    folder = tmp_path / "out" / "native"
    done = run_program(folder / this_architecture() / "lenet5", "--verify", folder / "golden.bin")
    assert (done.returncode, done.stdout.split(" (")[0]) == (0, "240 of 240 outputs equal")
