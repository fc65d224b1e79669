"""The generated C on every instruction set, the lenet5 command and the Python binding."""

from __future__ import annotations

import ctypes
import gzip
import importlib.util
import json
import struct
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from native_helpers import (
    NATIVE,
    compile_c,
    compiled_run,
    lenet5_model,
    reference_outputs,
    require,
    x86_kernels,
)
from numpy.typing import NDArray
from random_models import random_inputs, random_model

from export.to_c import to_c

MNIST = Path(__file__).parent.parent / "data" / "mnist" / "t10k-images-idx3-ubyte.gz"
COMMAND = [str(NATIVE / "lenet5.c"), str(NATIVE / "image_file.c")]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Lenet5:
    """Generated source of a LeNet-5, images (count, 28, 28) and the reference's outputs."""

    source: Path
    images: NDArray[np.uint8]
    outputs: NDArray[np.int8]


@pytest.fixture(scope="session")
def lenet5(tmp_path_factory: pytest.TempPathFactory, device_python: str) -> Lenet5:
    folder = tmp_path_factory.mktemp("lenet5")
    model = folder / "lenet5_int8.tflite"
    model.write_bytes(lenet5_model())
    with gzip.open(MNIST) as file:
        digits = np.frombuffer(file.read(16 + 300 * 784), np.uint8, offset=16)
    noise = random_inputs((28, 28, 1), 0, 300)[..., 0].view(np.uint8) ^ 0x80
    images = np.concatenate([digits.reshape(-1, 28, 28), noise])
    inputs = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None] ^ 0x80
    outputs = reference_outputs(device_python, model, inputs.view(np.int8))
    return Lenet5(to_c(model, folder).source, images, outputs)


@pytest.fixture(scope="session")
def golden(lenet5: Lenet5) -> Path:
    """File for `lenet5 --verify`."""
    path = lenet5.source.with_name("golden.bin")
    records = np.concatenate(
        [lenet5.images.reshape(-1, 784), lenet5.outputs.view(np.uint8)], axis=1
    )
    path.write_bytes(b"LENET5G1" + records.tobytes())
    return path


@pytest.fixture(scope="session")
def command(lenet5: Lenet5) -> Path:
    """The lenet5 command for this machine, with sanitizers."""
    include = ["-I", str(lenet5.source.parent)]
    return compile_c(
        lenet5.source.with_name("lenet5"),
        "-O2",
        *SANITIZERS,
        *include,
        *COMMAND,
        str(lenet5.source),
    )


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kernels", x86_kernels())
def test_every_instruction_set_is_bit_exact_with_tflite(kernels: str, lenet5: Lenet5) -> None:
    run = compiled_run(lenet5.source, kernels, 10, "-O2")
    np.testing.assert_array_equal(run(lenet5.images), lenet5.outputs)


@pytest.mark.parametrize("kernels", x86_kernels()[1:])
@pytest.mark.parametrize("seed", [0, 3, 7, 15, 18])
def test_random_model_is_bit_exact_on_every_instruction_set(
    kernels: str, seed: int, tmp_path: Path, device_python: str
) -> None:
    data, shape = random_model(seed)
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    inputs = random_inputs(shape, seed, 48)
    expected = reference_outputs(device_python, path, inputs)
    run = compiled_run(to_c(path, tmp_path, "model").source, kernels, expected.shape[1])
    np.testing.assert_array_equal(run(inputs), expected)


@pytest.mark.parametrize("kernels", x86_kernels())
def test_kernels_are_clean_under_address_and_undefined_sanitizers(
    kernels: str, lenet5: Lenet5, golden: Path
) -> None:
    binary = lenet5.source.with_name(f"sanitized_{kernels}")
    compile_c(
        binary,
        f"-DKERNELS_{kernels}",
        "-O1",
        *SANITIZERS,
        "-I",
        str(lenet5.source.parent),
        *COMMAND,
        str(lenet5.source),
    )
    done = _run(binary, "--verify", golden)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("600 of 600 outputs equal")


@pytest.mark.parametrize(
    ("compiler", "flags", "emulator", "name"),
    [
        ("aarch64-linux-gnu-gcc", [], ["qemu-aarch64", "-cpu", "cortex-a53"], "neon"),
        ("aarch64-linux-gnu-gcc", [], ["qemu-aarch64", "-cpu", "cortex-a72"], "neon"),
        (
            "aarch64-linux-gnu-gcc",
            ["-march=armv8.2-a+dotprod"],
            ["qemu-aarch64", "-cpu", "max"],
            "neondot",
        ),
        (
            "arm-linux-gnueabihf-gcc",
            ["-march=armv7-a", "-mfpu=neon-vfpv4"],
            ["qemu-arm", "-cpu", "cortex-a7"],
            "neon",
        ),
        (
            "arm-linux-gnueabi-gcc",
            ["-march=armv6", "-marm", "-mfloat-abi=soft"],
            ["qemu-arm", "-cpu", "arm1176"],
            "portable",
        ),
    ],
)
def test_arm_binary_is_bit_exact_under_qemu(
    compiler: str,
    flags: list[str],
    emulator: list[str],
    name: str,
    lenet5: Lenet5,
    golden: Path,
    tmp_path: Path,
) -> None:
    require(compiler)
    require(emulator[0])
    binary = compile_c(
        tmp_path / "lenet5",
        "-O2",
        "-static",
        *flags,
        "-I",
        str(lenet5.source.parent),
        *COMMAND,
        str(lenet5.source),
        compiler=compiler,
    )
    done = _run(*emulator, binary, "--verify", golden)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"600 of 600 outputs equal ({name} kernels)\n"


def _pgm(image: NDArray[np.uint8]) -> bytes:
    return b"P5\n# a comment\n28 28\n255\n" + image.tobytes()


def _idx(images: NDArray[np.uint8]) -> bytes:
    return struct.pack(">IIII", 0x803, len(images), 28, 28) + images.tobytes()


@pytest.mark.parametrize("kind", ["pgm", "raw", "idx"])
def test_command_prints_label_and_probability(
    kind: str, command: Path, lenet5: Lenet5, tmp_path: Path
) -> None:
    images = lenet5.images[: 1 if kind == "pgm" else 3]
    contents = {"pgm": _pgm(images[0]), "raw": images.tobytes(), "idx": _idx(images)}
    path = tmp_path / f"digits.{kind}"
    path.write_bytes(contents[kind])
    done = _run(command, path)
    expected = [
        f"{path}\t{index}\t{output.argmax()}\t{(int(output.max()) + 128) / 256:.4f}"
        for index, output in enumerate(lenet5.outputs[: len(images)])
    ]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected)


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
        (_idx(np.zeros((2, 28, 28), np.uint8))[:-1], "does not match"),
        (struct.pack(">IIII", 0x803, 1, 27, 28) + b"x" * 756, "wrong size"),
        (struct.pack(">I", 0x803), "cut short"),
        (gzip.compress(b"x"), "gunzip"),
    ],
)
def test_bad_image_is_one_line_and_exit_code_2(
    contents: bytes, problem: str, command: Path, tmp_path: Path
) -> None:
    path = tmp_path / "bad"
    path.write_bytes(contents)
    done = _run(command, path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"{path}: ")
    assert problem in done.stderr


def test_missing_image_and_bad_usage_are_exit_code_2(command: Path, tmp_path: Path) -> None:
    for arguments in (["none"], [], ["--verify"], ["--unknown"], ["--bench", "a", "b"]):
        done = _run(command, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_verify_tells_a_changed_output_by_exit_code_1(
    command: Path, golden: Path, tmp_path: Path
) -> None:
    changed = bytearray(golden.read_bytes())
    changed[-1] ^= 1
    path = tmp_path / "changed.bin"
    path.write_bytes(changed)
    done = _run(command, "--verify", path)
    assert done.returncode == 1
    assert done.stdout.startswith("599 of 600 outputs equal")
    path.write_bytes(changed[:-1])
    assert _run(command, "--verify", path).returncode == 2


def test_bench_reports_latency_as_json(lenet5: Lenet5, tmp_path: Path) -> None:
    binary = compile_c(
        tmp_path / "lenet5", "-O2", "-I", str(lenet5.source.parent), *COMMAND, str(lenet5.source)
    )
    result = json.loads(_run(binary, "--bench").stdout)
    assert set(result) == {"kernels", "n", "latency_us", "throughput_ips"}
    assert 0 < result["latency_us"]["min"] <= result["latency_us"]["p50"]


class _Images(ctypes.Structure):
    _fields_ = [("pixels", ctypes.c_void_p), ("count", ctypes.c_size_t)]


@pytest.fixture(scope="session")
def find_images(tmp_path_factory: pytest.TempPathFactory) -> Any:
    library = compile_c(
        tmp_path_factory.mktemp("parser") / "image_file.so",
        "-O1",
        "-shared",
        "-fPIC",
        str(NATIVE / "image_file.c"),
    )
    function = ctypes.CDLL(str(library)).find_images
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_char_p, *[ctypes.c_size_t] * 3, ctypes.POINTER(_Images)]
    return function


@given(
    st.binary(max_size=40)
    | st.tuples(
        st.sampled_from(
            [b"P5", b"P5 4 3 255\n", b"P5#", b"\0\0\x08\x03", struct.pack(">IIII", 0x803, 1, 3, 4)]
        ),
        st.binary(max_size=40),
    ).map(b"".join)
)
def test_parser_never_promises_pixels_outside_the_file(find_images: Any, data: bytes) -> None:
    found = _Images()
    buffer = ctypes.create_string_buffer(data, len(data) + 1)
    problem = find_images(buffer, len(data), 3, 4, ctypes.byref(found))
    if problem is None:
        start = found.pixels - ctypes.addressof(buffer)
        assert start >= 0
        assert start + found.count * 12 == len(data)
    else:
        assert b"\n" not in problem


@pytest.fixture(scope="session")
def binding(lenet5: Lenet5) -> ModuleType:
    path = lenet5.source.with_name("lenet5_int8.abi3.so")
    compile_c(
        path,
        "-O2",
        "-shared",
        "-fPIC",
        "-I",
        str(lenet5.source.parent),
        "-I",
        sysconfig.get_path("include"),
        str(NATIVE / "binding.c"),
        str(lenet5.source),
    )
    spec = importlib.util.spec_from_file_location("lenet5_int8", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_binding_runs_one_image_and_a_batch(binding: ModuleType, lenet5: Lenet5) -> None:
    one = np.empty(10, np.int8)
    binding.run(lenet5.images[0], one)
    np.testing.assert_array_equal(one, lenet5.outputs[0])
    batch = np.empty_like(lenet5.outputs)
    binding.run(lenet5.images, batch)
    np.testing.assert_array_equal(batch, lenet5.outputs)
    inputs = (np.pad(lenet5.images, ((0, 0), (2, 2), (2, 2))) ^ 0x80).view(np.int8)
    batch[:] = 0
    binding.run_int8(inputs, batch)
    np.testing.assert_array_equal(batch, lenet5.outputs)


def test_binding_describes_the_model(binding: ModuleType) -> None:
    assert (binding.OUTPUT_SCALE, binding.OUTPUT_ZERO_POINT) == (1 / 256, -128)
    assert (binding.IMAGE_BYTES, binding.INPUT_BYTES, binding.CLASSES) == (784, 1024, 10)
    assert binding.kernels() in {"portable", "sse2", "avx2", "avx512vnni", "neon", "neondot"}


@pytest.mark.parametrize(
    ("image", "output"),
    [(bytes(783), bytearray(10)), (bytes(784), bytearray(9)), (bytes(1568), bytearray(10))],
)
def test_binding_refuses_wrong_sizes(binding: ModuleType, image: bytes, output: bytearray) -> None:
    with pytest.raises(ValueError, match="each item takes"):
        binding.run(image, output)


def test_binding_refuses_read_only_outputs(binding: ModuleType) -> None:
    with pytest.raises(BufferError):
        binding.run(bytes(784), bytes(10))
