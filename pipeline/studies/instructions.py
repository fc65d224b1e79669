"""How many instructions an image takes in each kernel set, counted under qemu.

    make instructions    # docs/instructions.json and the table of docs/native.md

The emulator counts every instruction of a program that verifies 300 images, and of one that
verifies 100; the difference is that of 200 images. The counts are exact and the same on every
machine. They do not say how many instructions a processor finishes in a cycle.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from export.to_c import to_c
from pipeline import native
from pipeline.artifacts import DOCS, INT8_TFLITE, NATIVE_GOLDEN, NATIVE_SOURCE, this_architecture
from pipeline.files import UserError, write_bytes, write_json
from pipeline.microcontroller.build import CHIPS, build_program, emulate
from pipeline.table import insert_generated, markdown_table

INSTRUCTIONS_JSON, PAGE = DOCS / "instructions.json", DOCS / "native.md"
PLUGIN = Path(__file__).with_suffix(".c")
FEW, MANY = 100, 300  # images


@dataclass(frozen=True)
class Board:
    """A processor, and how to run a command on it."""

    architecture: str  # of `native.TARGETS`
    processor: str  # as qemu calls it
    boards: str  # that have it


BOARDS = (
    Board("aarch64", "cortex-a53", "Pi 3, Zero 2 W"),
    Board("aarch64", "cortex-a72", "Pi 4"),
    Board("aarch64", "cortex-a76", "Pi 5"),
    Board("armv7", "cortex-a7", "Pi 2 and later, 32-bit system"),
    Board("armv6", "arm1176", "Pi 1, Zero"),
)


BOARD_NAMES = {board.processor: board.boards for board in BOARDS} | {
    chip.processor: chip.boards for chip in CHIPS.values()
}


@dataclass(frozen=True)
class Count:
    """Instructions that one image takes."""

    kernels: str
    artifact: str
    processor: str
    instructions: int


def run(args: argparse.Namespace) -> int:
    model, golden = args.out / INT8_TFLITE, args.out / NATIVE_GOLDEN
    for path in (model, golden):
        if not path.is_file():
            raise UserError(f"{path}: missing; run `make export`")
    with tempfile.TemporaryDirectory() as folder:
        source = to_c(model, Path(folder))
        native.build(source.parent, source.parent, {board.architecture for board in BOARDS})
        rows = count_all(source, golden.read_bytes())
    write_json(INSTRUCTIONS_JSON, {"rows": [asdict(row) for row in rows]})
    table = format_counts(rows)
    page = insert_generated(PAGE.read_text("utf-8"), table, "make instructions", str(PAGE))
    write_bytes(PAGE, page.encode())
    print(table)
    return 0


def format_counts(rows: list[Count]) -> str:
    """A Markdown table."""
    return markdown_table(
        ("kernels", "boards", "processor", "instructions an image"),
        [(r.kernels, BOARD_NAMES[r.processor], r.processor, f"{r.instructions:,}") for r in rows],
    )


def count_all(source: Path, golden: bytes) -> list[Count]:
    """Count on every processor of `BOARDS` and `CHIPS`.

    Args:
        source: `lenet5_int8.c`, where `native.build` left the commands by architecture.
        golden: Contents of a golden file of at least 300 images.

    Raises:
        UserError: An emulator is missing, or a program failed in it.
    """
    classes = re.findall(r"_CLASSES (\d+)u", source.with_suffix(".h").read_text("utf-8"))
    record = 28 * 28 + int(classes[0])
    parts = [golden[: len(native.GOLDEN_MAGIC) + images * record] for images in (FEW, MANY)]
    with tempfile.TemporaryDirectory() as name:
        plugin = Path(name) / "count.so"
        target = native.TARGETS[this_architecture()]
        link = ("-shared", *native.LINK)
        native.build_program(target, [PLUGIN], native.COMPILE, link, plugin)
        rows = []
        for board in BOARDS:
            command = source.parent / board.architecture / native.COMMAND
            runs = [_verify(board, command, part, plugin) for part in parts]
            rows.append(_difference(board.processor, *runs))
        for arch, chip in CHIPS.items():
            program = build_program(source, arch)
            runs = [emulate(arch, program, part, ("-plugin", str(plugin))) for part in parts]
            rows.append(_difference(chip.processor, *runs))
    return rows


def _verify(
    board: Board, command: Path, golden: bytes, plugin: Path
) -> subprocess.CompletedProcess[str]:
    qemu = native.EMULATORS[board.architecture]
    emulator = shutil.which(qemu)
    if emulator is None:
        raise UserError(f"{qemu}: not installed (Debian: apt install qemu-user)")
    with tempfile.NamedTemporaryFile() as file:
        file.write(golden)
        file.flush()
        words = [emulator, "-cpu", board.processor, "-plugin", str(plugin)]
        words += [str(command), "--verify", file.name]
        return subprocess.run(words, capture_output=True, text=True)


def _difference(
    processor: str, few: subprocess.CompletedProcess[str], many: subprocess.CompletedProcess[str]
) -> Count:
    totals = []
    for done in (few, many):
        printed = done.stdout + done.stderr
        kernels = re.search(r"\((\w+) kernels\)", printed)
        total = re.search(r"instructions: (\d+)", printed)
        if done.returncode != 0 or total is None or kernels is None:
            said = printed.strip().splitlines() or ["it printed nothing"]
            raise UserError(f"{processor}: {said[-1]}")
        totals.append(int(total[1]))
        name = kernels[1]
    return Count(name, NATIVE_SOURCE, processor, round((totals[1] - totals[0]) / (MANY - FEW)))
