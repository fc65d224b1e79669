"""The native stage: int8 TFLite -> C, compiled for boards and browsers, and what it must answer.

The compiler is that of the Python package `ziglang` (clang), which compiles for every Pi, so that
no compiler of the system is needed. The binaries hold all they need: the command has no C library
in it (device/native/static_linux.c says why), and the Python library takes nothing from outside but
Python and, on AArch64, getauxval. So both run on systems with glibc and with musl, and the same
source gives the same bytes on any machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.quantized_lenet5 import UnsupportedModelError
from export.requantization import ArithmeticBoundError
from export.to_c import to_c
from pipeline.artifacts import (
    DEVICE_PYTHON,
    INT8_TFLITE,
    NATIVE_FOLDER,
    NATIVE_GOLDEN,
    NATIVE_LIBRARY,
    NATIVE_SOURCE,
    NATIVE_WASM,
    ROOT,
    TRAIN_JSON,
)
from pipeline.classify import classify_apart
from pipeline.data import Dataset, Images, require_trained_on
from pipeline.data import load as load_data
from pipeline.files import PARTIAL, UserError, read_json, write_bytes

GOLDEN_MAGIC = b"LENET5G1"  # then 784 pixels and the int8 outputs of each image
C_FOLDER = ROOT / "device" / "native"

# What zig calls each architecture: target and processor, the least of those that are meant.
TARGETS = {
    "x86_64": ("x86_64-linux-musl", "x86_64"),
    "aarch64": ("aarch64-linux-musl", "generic"),  # Pi 3, 4, 5, Zero 2 W
    "armv7": ("arm-linux-musleabihf", "cortex_a7"),  # Pi 2 and later with a 32-bit system
    "armv6": ("arm-linux-musleabihf", "arm1176jzf_s"),  # Pi 1, Zero
}
EMULATORS = {  # qemu's user mode, which runs a command of another processor
    "x86_64": "qemu-x86_64",
    "aarch64": "qemu-aarch64",
    "armv7": "qemu-arm",
    "armv6": "qemu-arm",
}
COMMAND = "lenet5"
BINARIES = tuple(f"native/{arch}/{name}" for arch in TARGETS for name in (COMMAND, NATIVE_LIBRARY))
COMMAND_SOURCES = ("lenet5.c", "image_file.c", "static_linux.c")
LIBRARY_SOURCES = ("binding.c",)
COMPILE = (
    *("-c", "-std=c11", "-O3", "-fPIC", "-fomit-frame-pointer"),
    *("-fno-unwind-tables", "-fno-asynchronous-unwind-tables"),
)
# -fPIC: one runtime library for both, where zig would compile two.
LINK = ("-fPIC", "-nostdlib", "-rtlib=compiler-rt", "-s", "-Wl,--gc-sections")
# Every browser since 2023 has simd128, which has kernels of its own.
# WASI lends its string.h alone: the module imports nothing.
WASM_TARGET = ("wasm32-wasi", "generic+simd128")
WASM_COMPILE = ("-c", "-std=c11", "-O3")
WASM_LINK = ("-nostdlib", "-rtlib=compiler-rt", "-s", "-Wl,--no-entry", "-Wl,--gc-sections")
WEB_FOLDER = "web"  # in the bundle: what a browser needs


def run(args: argparse.Namespace) -> int:
    """Write, compile and say what was made."""
    print("\n".join(generate(args.out, load_data(args.data))))
    return 0


def generate(folder: Path, data: Dataset) -> list[str]:
    """Write the C source, compile it for every Pi, and keep outputs that it must reproduce.

    The golden outputs are tflite-runtime's, default kernels (docs/adr/0007-native-reference.md);
    where that does not run, the compiled C's own. They are written last: where they lie, nothing
    is missing.

    Returns:
        What was made, a line each.

    Raises:
        UserError: The model is missing or not covered, or the C does not compile or run here.
    """
    model, into, wasm = folder / INT8_TFLITE, folder / NATIVE_FOLDER, folder / NATIVE_WASM
    if not model.is_file():
        raise UserError(f"{model}: missing; run `make export`")
    require_trained_on(data, read_json(folder / TRAIN_JSON, "data_sha256"))
    shutil.rmtree(into, ignore_errors=True)  # made from another model
    try:
        source = to_c(model, into)
    except (UnsupportedModelError, ArithmeticBoundError) as error:
        raise UserError(f"{model}: no C for it: {error}; run `make export`") from None
    build(into, into)
    build_wasm(folder)
    lines = [
        f"{source}: {source.stat().st_size:,} bytes",
        f"{into}: a command and a Python library for {', '.join(TARGETS)}",
        f"{wasm}: {wasm.stat().st_size:,} bytes, for browsers",
    ]
    outputs = classify_apart(model, "tflite-runtime", DEVICE_PYTHON, data.test.images)
    whose = "tflite-runtime"
    if isinstance(outputs, str):
        lines.append(f"golden outputs of tflite-runtime: none: {outputs}")
        outputs = classify_apart(source, "native", Path(sys.executable), data.test.images)
        whose = "the compiled C itself"
    if isinstance(outputs, str):
        raise UserError(f"{source}: it does not run here: {outputs}; make it again: `make native`")
    golden = golden_file(data.test.images, outputs.raw.view(np.int8))
    write_bytes(folder / NATIVE_GOLDEN, golden)
    return [*lines, f"{folder / NATIVE_GOLDEN}: outputs of {whose} for {len(data.test):,} images"]


def golden_file(images: Images, outputs: NDArray[np.int8]) -> bytes:
    """What `lenet5 --verify` reads, of uint8 (N, 28, 28) and int8 (N, classes)."""
    pixels = images.reshape(len(images), -1)  # (N, 784)
    return GOLDEN_MAGIC + np.concatenate([pixels, outputs.view(np.uint8)], axis=1).tobytes()


def read_golden(path: Path, images: Images) -> NDArray[np.int8]:
    """The outputs in a golden file of these images, int8 (N, classes).

    Raises:
        UserError: It is missing, or of other images.
    """
    pixels = images.reshape(len(images), -1)
    records = path.read_bytes()[len(GOLDEN_MAGIC) :] if path.is_file() else b""
    if records and len(records) % len(pixels) == 0:
        table = np.frombuffer(records, np.uint8).reshape(len(pixels), -1)
        if np.array_equal(table[:, : pixels.shape[1]], pixels):
            return table[:, pixels.shape[1] :].view(np.int8)
    raise UserError(f"{path}: missing, damaged or of other images; delete it and run `make export`")


def bundle_files(
    folder: Path,
    images: Images,
    chosen: NDArray[np.intp],
    exciting: Mapping[str, NDArray[Any]],
) -> dict[str, bytes]:
    """The native part of a bundle, by path inside it: the sources, and what was compiled.

    Args:
        folder: The artifacts.
        images: uint8 (N, 28, 28), the test images.
        chosen: Indices of the golden ones.
        exciting: More golden `images` and the `outputs` for them, int8 (M, classes).

    Raises:
        UserError: The C's header or the golden outputs are missing or not of the model.
    """
    source, wasm = folder / NATIVE_SOURCE, folder / NATIVE_WASM
    header = source.with_suffix(".h")  # the one file here that parity has no hash of
    with tempfile.TemporaryDirectory() as name:
        again = to_c(folder / INT8_TFLITE, Path(name)).with_suffix(".h").read_bytes()
    if not header.is_file() or header.read_bytes() != again:
        raise UserError(f"{header}: missing or not of {INT8_TFLITE}; run `make export`")
    sources = [path for path in sorted(C_FOLDER.iterdir()) if path.is_file()]
    sources += [source, header]
    files = {f"native/{path.name}": path.read_bytes() for path in sources}
    outputs = read_golden(folder / NATIVE_GOLDEN, images)
    files[NATIVE_GOLDEN] = golden_file(
        np.concatenate([images[chosen], exciting["images"]]),
        np.concatenate([outputs[chosen], exciting["outputs"]]),
    )
    files[f"{WEB_FOLDER}/{wasm.name}"] = wasm.read_bytes()
    return files | {name: (folder / name).read_bytes() for name in BINARIES}


# --- The compiler -------------------------------------------------------------------------------


def build(source: Path, into: Path, architectures: Iterable[str] = TARGETS) -> None:
    """Compile `lenet5_int8.c` in a folder to command and library, in `into/ARCHITECTURE`.

    The first time, zig compiles a runtime library of its own too: some seconds an architecture.

    Raises:
        UserError: The compiler failed. So do the others here.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda arch: _build(source.resolve(), into, arch), architectures))


def build_wasm(folder: Path) -> None:
    """Compile the C in a folder of artifacts to the WebAssembly module."""
    wasm = folder.resolve() / NATIVE_WASM
    sources = (C_FOLDER / "web.c", wasm.with_suffix(".c"))
    build_program(WASM_TARGET, sources, [*WASM_COMPILE, f"-I{wasm.parent}"], WASM_LINK, wasm)


def build_program(
    target: tuple[str, str],
    sources: Iterable[Path],
    compile_flags: Iterable[str],
    link_flags: Iterable[str],
    result: Path,
) -> None:
    """Compile C files and link them into one.

    Args:
        target: System and processor, as in `TARGETS`.
        sources: C files of different names.
        compile_flags: For each of them.
        link_flags: For all together.
        result: The program, library or object.
    """
    with tempfile.TemporaryDirectory(dir=result.parent, prefix=PARTIAL) as name:
        work = Path(name)
        objects = _compile(target, sources, compile_flags, work, result)
        _zig(target, [*link_flags, *objects, "-o", f"{result.name}.new"], work, result)
        (work / f"{result.name}.new").replace(result)


def emulator(architecture: str, processor: str) -> list[str]:
    """The words that run a command of an architecture on a processor, as qemu calls it.

    Raises:
        UserError: That qemu is not installed.
    """
    program = shutil.which(EMULATORS[architecture])
    if program is None:
        raise UserError(f"no {EMULATORS[architecture]} here: apt install qemu-user")
    return [program, "-cpu", processor]


def _compile(
    target: tuple[str, str],
    sources: Iterable[Path],
    flags: Iterable[str],
    folder: Path,
    result: Path,
) -> list[str]:
    """Compile C files of different names in a folder; the names of the objects."""
    paths = [source.resolve() for source in sources]
    for path in paths:  # one at a time: of several, zig keeps the first object
        _zig(target, [*flags, str(path)], folder, result)
    return [f"{path.stem}.o" for path in paths]


def _build(source: Path, into: Path, arch: str) -> None:
    target, model = TARGETS[arch], source / "lenet5_int8.c"
    with tempfile.TemporaryDirectory(dir=into, prefix=PARTIAL) as name:
        work = Path(name)
        sources = [C_FOLDER / file for file in (*COMMAND_SOURCES, *LIBRARY_SOURCES)]
        _compile(target, [*sources, model], [*COMPILE, f"-I{source}"], work, into / arch)
        for kind, parts, result in (
            (("-static", "-no-pie"), COMMAND_SOURCES, COMMAND),
            (("-shared",), LIBRARY_SOURCES, NATIVE_LIBRARY),
        ):
            objects = [part.replace(".c", ".o") for part in (*parts, model.name)]
            _zig(target, [*kind, *LINK, *objects, "-o", result], work, into / arch)
        library = (work / NATIVE_LIBRARY).read_bytes()
        # What `device/runner.py` checks first: the CRC-32 and the size, four bytes each.
        seal = struct.pack("<II", zlib.crc32(library), len(library))
        (work / NATIVE_LIBRARY).write_bytes(library + seal)
        (into / arch).mkdir(exist_ok=True)
        for result in (COMMAND, NATIVE_LIBRARY):
            (work / result).replace(into / arch / result)


def _zig(target: tuple[str, str], arguments: list[str], folder: Path, result: Path) -> None:
    """Run `zig cc` in a folder; raise UserError with the result and the first error it prints."""
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target[0], f"-mcpu={target[1]}"]
    # Its cache lies in .venv, which can be written where HOME cannot. Nothing else comes from this
    # process's environment, where compilers look for flags and folders.
    cache = str(Path(sys.prefix) / "zig-cache")
    environment = {"PATH": os.environ.get("PATH", os.defpath)}
    environment |= {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        errors = [line for line in said if "error" in line.lower()]
        raise UserError(f"{result}: compiling failed: {(errors or said[-1:])[0].strip()}")
