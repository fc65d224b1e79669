"""The generated C on every instruction set, the lenet5 command and the Python binding."""

from __future__ import annotations

import ctypes
import gzip
import json
import shutil
import struct
import subprocess
import sysconfig
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    DEVICE_PYTHON,
    HAS_TFLITE_RUNTIME,
    TINY_RECIPE,
    absent,
    idx_bytes,
    run_stage,
)
from hypothesis import given
from hypothesis import strategies as st
from native_helpers import (
    NATIVE,
    compile_c,
    compiled_run,
    reference_outputs,
    require,
    x86_kernels,
)
from numpy.typing import NDArray
from random_models import random_inputs, random_lenet5, realistic_lenet5

from device.runner import Classifier, InputError, native_library
from export.to_c import to_c
from pipeline import native
from pipeline.artifacts import DOCS, this_architecture
from pipeline.files import UserError
from pipeline.studies import instructions

COMMAND = [str(NATIVE / "lenet5.c"), str(NATIVE / "image_file.c")]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Lenet5:
    """Generated source of a LeNet-5, images (count, 28, 28) and their right outputs."""

    source: Path
    images: NDArray[np.uint8]
    outputs: NDArray[np.int8]


@pytest.fixture(scope="session")
def lenet5(mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lenet5")
    model = folder / "lenet5_int8.tflite"
    model.write_bytes(realistic_lenet5())
    images = np.concatenate([mnist.test.images[:300], random_images(300)])
    source = to_c(model, folder)
    if HAS_TFLITE_RUNTIME:
        outputs = reference_outputs(DEVICE_PYTHON, model, as_inputs(images))
    else:  # the plain C, for what is claimed of the other kernels, the command and the library
        outputs = compiled_run(source, "PORTABLE", 10)(as_inputs(images))
    return Lenet5(source, images, outputs)


def random_images(count):
    """Noise of many kinds, uint8 (count, 28, 28)."""
    return random_inputs((28, 28, 1), 0, count)[..., 0].view(np.uint8) ^ 0x80


def as_inputs(images):
    """The int8 input of the model, (count, 32, 32, 1), for images."""
    return (np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None] ^ 0x80).view(np.int8)


@pytest.fixture(scope="session")
def golden(lenet5):
    """File for `lenet5 --verify`."""
    path = lenet5.source.with_name("golden.bin")
    path.write_bytes(native.golden_file(lenet5.images, lenet5.outputs))
    return path


def build_command(lenet5, path, *flags, compiler="gcc"):
    """The lenet5 command of that model."""
    sources = ["-I", str(lenet5.source.parent), *COMMAND, str(lenet5.source)]
    return compile_c(path, *flags, *sources, compiler=compiler)


@pytest.fixture(scope="session")
def command(lenet5):
    """The lenet5 command for this machine, with sanitizers."""
    return build_command(lenet5, lenet5.source.with_name("lenet5"), "-O2", *SANITIZERS)


def _run(*arguments):
    words = [str(argument) for argument in arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


# Of seven numbers of classes; the odd ones quantize their input in other ways.
@pytest.mark.parametrize("seed", [0, 5, 6, 7, 9, 11, 14])
def test_random_lenet5_is_bit_exact_on_every_instruction_set(seed, tmp_path, device_python):
    path = tmp_path / "model.tflite"
    path.write_bytes(random_lenet5(seed))
    inputs = random_inputs((32, 32, 1), seed, 64)
    expected = reference_outputs(device_python, path, inputs)
    assert len(np.unique(expected)) > 5, "saturated: the test would see nothing"
    source = to_c(path, tmp_path)
    for kernels in x86_kernels():
        run = compiled_run(source, kernels, expected.shape[1])
        np.testing.assert_array_equal(run(inputs), expected, kernels)


@pytest.mark.parametrize("kernels", x86_kernels())
def test_no_address_is_wrong_and_no_integer_wraps_or_loses_bits_unmeant(
    kernels, lenet5, golden, tmp_path
):
    flags = ("-O1", *SANITIZERS, "-fsanitize=integer,implicit-conversion")
    path, compiler = tmp_path / "lenet5", require("clang")
    binary = build_command(lenet5, path, f"-DKERNELS_{kernels}", *flags, compiler=compiler)
    (tmp_path / "digits.idx").write_bytes(idx_bytes(lenet5.images[:3]))
    runs = [["--verify", golden], [tmp_path / "digits.idx"]]
    if kernels == x86_kernels()[-1]:
        runs.append(["--bench"])  # thousands of images, slow with all these checks
    for arguments in runs:
        done = _run(binary, *arguments)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="session")
def binaries(lenet5):
    """A folder with what the bundle holds for this machine."""
    native.build(lenet5.source.parent, lenet5.source.parent, [this_architecture()])
    return lenet5.source.parent


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
        command = [require(native.EMULATORS[board.architecture]), "-cpu", board.processor]
        lenet5 = tmp_path / board.architecture / "lenet5"
        done = _run(*command, lenet5, "--verify", tmp_path / "golden.bin")
        said = f"64 of 64 outputs equal ({KERNELS[board.processor]} kernels)\n"
        assert (done.returncode, done.stdout, done.stderr) == (0, said, ""), board


def test_no_kernel_set_needs_more_instructions_than_committed(exported):
    require("qemu-aarch64")
    require("qemu-arm")
    require("qemu-system-arm")
    if "-plugin" not in _run("qemu-aarch64", "--help").stdout:
        absent("qemu-aarch64 takes no plugins")
    rows = json.loads(instructions.INSTRUCTIONS_JSON.read_text())["rows"]
    committed = [row for row in rows if "kernels" in row]  # the others are not ours
    golden = (exported / "native" / "golden.bin").read_bytes()
    now = instructions.count_all(exported / "native" / "lenet5_int8.c", golden)
    assert {row["processor"] for row in committed} == {count.processor for count in now}
    for count, row in zip(now, committed, strict=True):
        assert count.instructions <= row["instructions"] * 1.03, row


def test_pages_show_the_committed_counts_of_our_c_and_of_every_runtime():
    rows = json.loads(instructions.INSTRUCTIONS_JSON.read_text())["rows"]
    ours = [instructions.Count(**row) for row in rows if "kernels" in row]
    others = [instructions.RuntimeCount(**row) for row in rows if "runtime" in row]
    assert instructions.format_tables(ours, others) in instructions.PAGE.read_text("utf-8")
    boards = (DOCS / "deploy.md").read_text("utf-8")
    assert [count for count in ours if f"| {count.instructions:,} |" not in boards] == []


def test_command_for_this_machine_chooses_the_best_kernels_it_has(binaries, golden):
    done = _run(binaries / this_architecture() / "lenet5", "--verify", golden)
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
    require(compiler)
    require(emulator[0])
    binary = build_command(lenet5, tmp_path / "lenet5", "-O2", "-static", compiler=compiler)
    done = _run(*emulator, binary, "--verify", golden)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"600 of 600 outputs equal ({name} kernels)\n"


def _pgm(image):
    return b"P5\n# a comment\n28 28\n255\n" + image.tobytes()


@pytest.mark.parametrize("kind", ["pgm", "raw", "idx"])
def test_command_prints_label_and_probability(kind, command, lenet5, tmp_path):
    images = lenet5.images[: 1 if kind == "pgm" else 3]
    contents = {"pgm": _pgm(images[0]), "raw": images.tobytes(), "idx": idx_bytes(images)}
    path = tmp_path / f"digits.{kind}"
    path.write_bytes(contents[kind])
    done = _run(command, path)
    expected = [
        f"{path}\t{index}\t{output.argmax()}\t{(int(output.max()) + 128) / 256:.4f}"
        for index, output in enumerate(lenet5.outputs[: len(images)])
    ]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected)


def test_command_writes_what_would_steer_a_terminal_as_escapes(command, lenet5, tmp_path):
    path = tmp_path / "a\n\x1b[2J\x9b\u00fc"
    path.write_bytes(_pgm(lenet5.images[0]))
    for name, said in ((path, "stdout"), (path.with_name(path.name + "b"), "stderr")):
        text = getattr(_run(command, name), said)
        assert text.startswith(f"{tmp_path}/a\\x0a\\x1b[2J\\xc2\\x9b\u00fc")
        assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (b"", "empty"),
        (b"P5\n28 28\n255\n" + b"x" * 783, "cut short"),
        (b"P5\n28 28\n255\n" + b"x" * 785, "followed by more"),
        (b"P5\n32 32\n255\n" + b"x" * 1024, "wrong size"),
        (b"P5\n28 28\n65535\n" + b"x" * 1568, "not 255"),
        (b"P5\n28 28", "damaged PGM"),
        (b"P2\n28 28\n255\n", "neither"),
        (idx_bytes(np.zeros((2, 28, 28), np.uint8))[:-1], "does not match"),
        (struct.pack(">IIII", 0x803, 1, 27, 28) + b"x" * 756, "wrong size"),
        (struct.pack(">I", 0x803), "cut short"),
        (gzip.compress(b"x", mtime=0), "gunzip"),
    ],
)
def test_bad_image_is_one_line_and_exit_code_2(contents, problem, command, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(contents)
    done = _run(command, path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"{path}: ")
    assert problem in done.stderr


def test_missing_image_and_bad_usage_are_exit_code_2(command):
    for arguments in (["none"], [], ["--verify"], ["--unknown"], ["--bench", "a", "b"]):
        done = _run(command, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_verify_tells_a_changed_output_by_exit_code_1(command, golden, tmp_path):
    changed = bytearray(golden.read_bytes())
    changed[-1] ^= 1
    path = tmp_path / "changed.bin"
    path.write_bytes(changed)
    done = _run(command, "--verify", path)
    assert done.returncode == 1
    assert done.stdout.startswith("599 of 600 outputs equal")
    path.write_bytes(changed[:-1])
    assert _run(command, "--verify", path).returncode == 2


def test_bench_reports_latency_as_json(binaries):
    result = json.loads(_run(binaries / this_architecture() / "lenet5", "--bench").stdout)
    assert set(result) == {"kernels", "n", "latency_us", "throughput_ips"}
    assert 0 < result["latency_us"]["min"] <= result["latency_us"]["p50"]


class _Images(ctypes.Structure):
    _fields_ = [("pixels", ctypes.c_void_p), ("count", ctypes.c_size_t)]


@pytest.fixture(scope="session")
def find_images(tmp_path_factory):
    output = tmp_path_factory.mktemp("parser") / "image_file.so"
    library = compile_c(output, "-O1", "-shared", "-fPIC", str(NATIVE / "image_file.c"))
    function = ctypes.CDLL(str(library)).find_images
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_char_p, *[ctypes.c_size_t] * 3, ctypes.POINTER(_Images)]
    return function


HEADER = struct.pack(">IIII", 0x803, 1, 3, 4)
STARTS = (b"", b"P5", b"P5 4 3 255\n", b"P5#", HEADER[:4], HEADER)


@given(st.sampled_from(STARTS), st.binary(max_size=40))
def test_parser_never_promises_pixels_outside_the_file(find_images, start, rest):
    data, found = start + rest, _Images()
    buffer = ctypes.create_string_buffer(data, len(data) + 1)
    problem = find_images(buffer, len(data), 3, 4, ctypes.byref(found))
    if problem is None:
        start = found.pixels - ctypes.addressof(buffer)
        assert start >= 0
        assert start + found.count * 12 == len(data)
    else:
        assert b"\n" not in problem


@pytest.fixture(scope="session")
def library(lenet5, binaries):
    """What Python loads on this machine."""
    assert (binaries / this_architecture() / "lenet5_int8.so").is_file()
    return native_library(lenet5.source)


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
        (bytes(784), bytearray(9)),
        (bytes(1568), bytearray(10)),
        (np.zeros(98, object), bytearray(10)),
        (bytes(784 * 8), np.zeros(10, object)),
        (np.zeros(196, np.int32), bytearray(10)),
    ],
)
def test_binding_refuses_wrong_sizes_and_kinds(binding, image, output):
    with pytest.raises(ValueError, match=r"not single bytes|bytes of outputs for"):
        binding.run(image, output)


def test_binding_refuses_read_only_outputs(binding):
    with pytest.raises(BufferError):
        binding.run(bytes(784), bytes(10))


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
        done = _run(require("gcc"), f'-DHEADER="{header}"', "-I", folder, source, "-o", program)
        assert done.returncode == 0, done.stderr
        printed.append(_run(program).stdout)
    assert printed[0] == printed[1] != ""


# --- The runtime `native` -----------------------------------------------------------------------


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


@pytest.fixture
def copied(source, library):
    """A copy of the library, beside a C file; the test may damage it."""
    native_library(source).parent.mkdir()
    return Path(shutil.copy(library, native_library(source)))


def assert_refused(source, why):
    with pytest.raises(InputError, match=why) as caught:
        Classifier(source)
    assert "\n" not in str(caught.value)


DAMAGES = {
    "truncated": lambda content: content[: len(content) // 2],
    "altered": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "unsealed": lambda content: content[:-8],
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_library_is_refused_before_it_is_loaded(damage, source, copied):
    copied.write_bytes(damage(copied.read_bytes()))
    assert_refused(source, "damaged")


def test_library_of_another_machine_is_one_line(exported, source, copied):
    arch = "armv7" if this_architecture() != "armv7" else "aarch64"
    shutil.copy(exported / "native" / arch / "lenet5_int8.so", copied)
    assert_refused(source, "native: not usable")


def test_c_that_is_not_compiled_says_what_to_do(source):
    assert_refused(source, "not compiled for this machine: make -C native")


# --- Compiling ----------------------------------------------------------------------------------


def test_same_source_gives_the_same_binaries_wherever_it_lies(
    source, binaries, tmp_path, monkeypatch
):
    monkeypatch.setattr(native, "C_FOLDER", Path(shutil.copytree(NATIVE, tmp_path / "sources")))
    folder, arch = source.parent, this_architecture()
    native.build(folder, folder, [arch])
    for name in ("lenet5", "lenet5_int8.so"):
        made = (folder / arch / name).read_bytes()
        assert made == (binaries / arch / name).read_bytes()
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
    require("gcc")
    folder = shutil.copytree(NATIVE, source.parent, dirs_exist_ok=True)
    done = _run("make", "--silent", "-C", folder, "CC=gcc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    command = folder / this_architecture() / "lenet5"
    assert _run(command, "--verify", golden).returncode == 0
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
    done = _run(folder / this_architecture() / "lenet5", "--verify", folder / "golden.bin")
    assert (done.returncode, done.stdout.split(" (")[0]) == (0, "240 of 240 outputs equal")
