"""The microcontroller stage: the C model as an object file, proven on an emulated chip.

    make native ARCH=cortex-m33    # Raspberry Pi Pico 2; cortex-m0plus: Pico

The object needs no C library but memcpy, memset and what the compiler brings for floats.
`examples/pico` compiles the C itself, by the Pico's own SDK.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from export.to_c import to_c
from pipeline import native
from pipeline.artifacts import INT8_TFLITE, NATIVE_FOLDER, NATIVE_GOLDEN
from pipeline.files import UserError, make_folder, write_bytes

PROGRAM = Path(__file__).with_name("emulated.c")
COMPILE = ("-c", "-std=c11", "-O3", "-ffreestanding", "-fomit-frame-pointer")
LINK = ("-nostdlib", "-rtlib=compiler-rt", "-static", "-Wl,--gc-sections")
STACK_BYTES = 1024
LINKER_SCRIPT = """
ENTRY(vectors)
SECTIONS {{
    . = {flash:#x};
    .text : {{ KEEP(*(.vectors)) *(.text*) *(.rodata*) }}
    .ARM.exidx : {{ *(.ARM.exidx*) }}
    . = {ram:#x};
    .bss (NOLOAD) : {{ . += {stack}; end_of_stack = .; *(.bss*) }}
}}
"""


@dataclass(frozen=True)
class Chip:
    """A kind of processor, and what qemu has with it."""

    compiled_for: str  # as the compiler calls it
    machine: str
    processor: str  # as qemu calls it
    flash: int  # address
    ram: int  # address
    boards: str

    @property
    def target(self) -> tuple[str, str]:
        """As in `native.TARGETS`."""
        return "thumb-freestanding-eabi", self.compiled_for


CHIPS = {
    "cortex-m0plus": Chip("cortex_m0plus", "microbit", "cortex-m0", 0, 0x2000_0000, "Pico"),
    "cortex-m33": Chip(
        "cortex_m33+dsp", "mps2-an505", "cortex-m33", 0x1000_0000, 0x3800_0000, "Pico 2"
    ),
}


def run(args: argparse.Namespace) -> int:
    """Compile, run on all test images in the emulator, and say what it took."""
    model, golden = args.out / INT8_TFLITE, args.out / NATIVE_GOLDEN
    for path in (model, golden):
        if not path.is_file():
            raise UserError(f"{path}: missing; run `make export`")
    folder = args.out / NATIVE_FOLDER / args.arch
    make_folder(folder)
    with tempfile.TemporaryDirectory() as name:
        source = to_c(model, Path(name))
        target = CHIPS[args.arch].target
        result = folder / "lenet5_int8.o"
        native.build_program(target, [source], COMPILE, ("-r",), result)
        sizes = f"{flash_size(result):,} bytes of flash, {scratch_size(source):,} of scratch memory"
        program = build_program(source, args.arch)
        done = emulate(args.arch, program, golden.read_bytes())
    print(f"{result}: {sizes}")
    print(done.stderr.strip())
    return done.returncode


def build_program(source: Path, arch: str) -> Path:
    """Compile the program that compares outputs for one of `CHIPS`, beside the generated C."""
    chip, result = CHIPS[arch], source.with_name(f"{arch}.elf")
    script = source.with_name(f"{arch}.ld")
    script.write_text(LINKER_SCRIPT.format(flash=chip.flash, ram=chip.ram, stack=STACK_BYTES))
    flags, link = (*COMPILE, f"-I{source.parent}"), (*LINK, "-T", str(script))
    native.build_program(chip.target, [PROGRAM, source], flags, link, result)
    return result


def emulate(
    arch: str, program: Path, golden: bytes, flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run what `build_program` made on a golden file's content, with more of qemu's flags.

    Returns:
        What it printed, in stderr; exit code 1: some outputs differ.

    Raises:
        UserError: The emulator is missing.
    """
    emulator = shutil.which("qemu-system-arm")
    if emulator is None:
        raise UserError("qemu-system-arm: not installed (Debian: apt install qemu-system-arm)")
    command = [emulator, "-machine", CHIPS[arch].machine, "-display", "none", "-serial", "none"]
    command += ["-monitor", "none", "-semihosting-config", "enable=on,target=native", *flags]
    with tempfile.TemporaryDirectory() as folder:  # the program opens golden.bin
        write_bytes(Path(folder) / "golden.bin", golden)
        return subprocess.run(
            [*command, "-kernel", program.resolve()], cwd=folder, capture_output=True, text=True
        )


def scratch_size(source: Path) -> int:
    """Bytes of memory that a call needs."""
    header = source.with_suffix(".h").read_text("utf-8")
    return sum(map(int, re.findall(r"(?:SCRATCH_BYTES \(|_CLASSES )(\d+)u", header)))


def flash_size(file: Path) -> int:
    """Bytes of code and constants in a 32-bit ELF file."""
    content = file.read_bytes()
    (table,) = struct.unpack_from("<I", content, 0x20)
    entry_bytes, count = struct.unpack_from("<HH", content, 0x2E)
    sections = [
        struct.unpack_from("<6I", content, table + i * entry_bytes) for i in range(count)
    ]  # name, type, flags, address, offset, size
    return sum(size for _, kind, flags, *_, size in sections if kind == 1 and flags & 2)
