"""How many instructions an image takes in our C and in every other runtime, counted under qemu.

    make instructions    # docs/instructions.json and the tables of docs/native.md

The emulator counts every instruction of a program that verifies 300 images, and of one that
verifies 100; the difference is that of 200 images. The counts are exact and the same on every
machine. They do not say how many instructions a processor finishes in a cycle.

Other runtimes run in Python on an emulated Pi: `invoke` alone, after a few calls that warm it up.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from device.runner import RUNTIMES
from export.to_c import to_c
from pipeline import artifacts, native
from pipeline.bundle import wheels
from pipeline.files import UserError, write_bytes, write_json
from pipeline.microcontroller.build import CHIPS, build_program, emulate
from pipeline.pi_test import system
from pipeline.pi_test.run import SYSTEMS
from pipeline.table import insert_generated, markdown_table

INSTRUCTIONS_JSON, PAGE = artifacts.DOCS / "instructions.json", artifacts.DOCS / "native.md"
PLUGIN = Path(__file__).with_suffix(".c")
FEW, MANY = 100, 300  # images
WARM_UP, CALLS = 10, 20  # of another runtime
# At `getppid` the plugin prints its count.
GUEST = f"""
import os, sys
import numpy as np
from runner import Classifier
classifier = Classifier(*sys.argv[1:])
classifier.classify(np.full((28, 28), 100, np.uint8))
invoke = classifier.model.invoke
for calls in ({WARM_UP}, {CALLS}):
    for _ in range(calls):
        invoke()
    os.getppid()
"""


@dataclass(frozen=True)
class Board:
    """A processor, and how to run a command on it."""

    architecture: str  # of `native.TARGETS`
    processor: str  # as qemu calls it
    boards: str  # that have it
    part: str = ""  # its number in /proc/cpuinfo


BOARDS = (
    Board("aarch64", "cortex-a53", "Pi 3, Zero 2 W", "0xd03"),
    Board("aarch64", "cortex-a72", "Pi 4", "0xd08"),
    Board("aarch64", "cortex-a76", "Pi 5", "0xd0b"),
    Board("armv7", "cortex-a7", "Pi 2 and later, 32-bit system"),
    Board("armv6", "arm1176", "Pi 1, Zero"),
)
BOARD_NAMES = {
    **{board.processor: board.boards for board in BOARDS},
    **{chip.processor: chip.boards for chip in CHIPS.values()},
}


@dataclass(frozen=True)
class Count:
    """Instructions that one image takes in our C."""

    kernels: str
    artifact: str
    processor: str
    instructions: int


@dataclass(frozen=True)
class RuntimeCount:
    """Instructions that `invoke` takes for one image in another runtime."""

    runtime: str
    artifact: str
    processor: str
    instructions: int


def run(args: argparse.Namespace) -> int:
    model, golden = args.out / artifacts.INT8_TFLITE, args.out / artifacts.NATIVE_GOLDEN
    for path in (*(args.out / name for name in artifacts.CONVERTED), golden):
        if not path.is_file():
            raise UserError(f"{path}: missing; run `make export`")
    with tempfile.TemporaryDirectory() as folder:
        source = to_c(model, Path(folder))
        native.build(source.parent, source.parent, {board.architecture for board in BOARDS})
        rows = count_all(source, golden.read_bytes())
    others = count_runtimes(args.out)
    write_json(INSTRUCTIONS_JSON, {"rows": [*map(asdict, rows), *map(asdict, others)]})
    table = format_tables(rows, others)
    page = insert_generated(PAGE.read_text("utf-8"), table, "make instructions", str(PAGE))
    write_bytes(PAGE, page.encode())
    print(table)
    return 0


def format_tables(rows: list[Count], others: list[RuntimeCount]) -> str:
    """Two Markdown tables: our C on every processor, and all runtimes on those of `others`."""
    table = markdown_table(
        ("kernels", "boards", "processor", "instructions an image"),
        [(r.kernels, BOARD_NAMES[r.processor], r.processor, f"{r.instructions:,}") for r in rows],
    )
    processors = {other.processor for other in others}
    ours = {r.processor: r.instructions for r in rows if r.processor in processors}
    counts: dict[tuple[str, str], list[int]] = {}
    for other in others:
        counts.setdefault((other.runtime, other.artifact), []).append(other.instructions)
    lines = [("our C", artifacts.NATIVE_SOURCE, *(f"{count:,}" for count in ours.values()))]
    lines += [(*names, *(f"{count:,}" for count in row)) for names, row in counts.items()]
    best = [min(column) for column in zip(*counts.values(), strict=True)]
    times = [f"{least / count:.1f} x" for least, count in zip(best, ours.values(), strict=True)]
    lines.append(("the fewest of them", "times our C's", *times))
    header = ("runtime", "artifact", *(f"{name} ({BOARD_NAMES[name]})" for name in ours))
    return f"{table}\n\n{markdown_table(header, lines)}"


def count_runtimes(folder: Path) -> list[RuntimeCount]:
    """Count every other runtime with the models in `folder`, on every 64-bit processor of `BOARDS`.

    Raises:
        UserError: A program, a package or the network is missing, or a runtime failed.
    """
    pi = SYSTEMS[0]  # the one for which every runtime has a wheel
    assert pi.wheels
    try:
        system.check_tools()
        tree = system.make_tree(pi, system.cache_folder())
    except system.EmulationError as error:
        raise UserError(str(error)) from None
    files = wheels.fetch(pi.wheels, folder / "wheels" / pi.wheels)
    boards = [board for board in BOARDS if board.part]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("usr", "lib", "etc"):
            (root / part).symlink_to(tree / part)
        (root / "proc").mkdir()
        for file in files:
            zipfile.ZipFile(file).extractall(root / "site")
        plugin = _compile_plugin(root)
        return [
            RuntimeCount(
                runtime,
                artifact,
                board.processor,
                _invoke(board, [str(folder / artifact), runtime], root, plugin),
            )
            for runtime in pi.runtimes
            for artifact in artifacts.CONVERTED
            if runtime in RUNTIMES[Path(artifact).suffix]
            for board in boards
        ]


def _invoke(board: Board, words: list[str], root: Path, plugin: Path) -> int:
    """Instructions that one call of `invoke` takes."""
    # Runtimes choose their kernels by /proc/cpuinfo, and crash if it is this machine's.
    core = (
        "CPU implementer : 0x41\nCPU architecture: 8\nCPU variant : 0x0\n"
        f"CPU part : {board.part}\nCPU revision : 3\n\n"
    )
    cores = "".join(f"processor : {index}\n{core}" for index in range(4))
    (root / "proc" / "cpuinfo").write_text(cores, "utf-8")
    python = ["-L", str(root), str(root / "usr/bin/python3"), "-c", GUEST]
    environment = {
        "PYTHONHOME": str(root / "usr"),
        "PYTHONPATH": f"{artifacts.ROOT / 'device'}:{root / 'site'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [*_emulator(board, plugin), *python, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    marks = [int(mark) for mark in re.findall(r"^so far: (\d+)$", done.stderr, re.MULTILINE)]
    if done.returncode != 0 or len(marks) != 2:
        raise UserError(f"{' '.join(words)} on {board.processor}: {_last_line(done.stderr)}")
    return round((marks[1] - marks[0]) / CALLS)


def count_all(source: Path, golden: bytes) -> list[Count]:
    """Count on every processor of `BOARDS` and `CHIPS`, over a golden file of 300 images or more.

    `native.build` has left the commands beside the C, by architecture.

    Raises:
        UserError: An emulator is missing, or a program failed in it.
    """
    classes = re.findall(r"_CLASSES (\d+)u", source.with_suffix(".h").read_text("utf-8"))
    record = 28 * 28 + int(classes[0])
    parts = [golden[: len(native.GOLDEN_MAGIC) + images * record] for images in (FEW, MANY)]
    with tempfile.TemporaryDirectory() as name:
        plugin, file = _compile_plugin(Path(name)), Path(name, "golden.bin")
        rows = []
        for board in BOARDS:
            command = source.parent / board.architecture / native.COMMAND
            words, runs = [*_emulator(board, plugin), str(command), "--verify", str(file)], []
            for part in parts:
                file.write_bytes(part)
                runs.append(subprocess.run(words, capture_output=True, text=True))
            rows.append(_difference(board.processor, runs))
        for arch, chip in CHIPS.items():
            program = build_program(source, arch)
            runs = [emulate(arch, program, part, ("-plugin", str(plugin))) for part in parts]
            rows.append(_difference(chip.processor, runs))
    return rows


def _compile_plugin(folder: Path) -> Path:
    plugin = folder / "count.so"
    target, link = native.TARGETS[artifacts.this_architecture()], ("-shared", *native.LINK)
    native.build_program(target, [PLUGIN], native.COMPILE, link, plugin)
    return plugin


def _emulator(board: Board, plugin: Path) -> list[str]:
    """The words that run a command on a board and count."""
    words = native.emulator(board.architecture, board.processor)
    if "-plugin" not in subprocess.run([words[0], "--help"], capture_output=True, text=True).stdout:
        raise UserError(f"{words[0]}: takes no plugins, as in Debian 13; take Debian 12's")
    return [*words, "-plugin", str(plugin)]


def _difference(processor: str, runs: list[subprocess.CompletedProcess[str]]) -> Count:
    totals = []
    for done in runs:
        printed = done.stdout + done.stderr
        kernels = re.search(r"\((\w+) kernels\)", printed)
        total = re.search(r"instructions: (\d+)", printed)
        if done.returncode != 0 or total is None or kernels is None:
            raise UserError(f"{processor}: {_last_line(printed)}")
        totals.append(int(total[1]))
        name = kernels[1]
    an_image = round((totals[1] - totals[0]) / (MANY - FEW))
    return Count(name, artifacts.NATIVE_SOURCE, processor, an_image)


def _last_line(printed: str) -> str:
    """The last line that is not the plugin's."""
    lines = re.sub(r"(instructions|so far): \d+", "", printed).strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
