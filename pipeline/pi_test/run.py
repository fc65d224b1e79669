"""The bundle on emulated Raspberry Pis: installed by its own install.sh, verified and compared.

Each system installs the bundle once, without a network. Then each of its processors reads a digit,
verifies, and classifies the test images with every artifact on every runtime.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from device.runner import RUNTIMES
from export.bundle import MANIFEST, unpack_bundle, write_bundle
from pipeline import artifacts
from pipeline.bundle import wheels
from pipeline.data import Dataset
from pipeline.data import load as load_data
from pipeline.files import UserError, read_json, sha256, write_json
from pipeline.parity.check import read_probabilities
from pipeline.pi_test import system
from pipeline.pi_test.matrix import (
    PiCell,
    PiMatrix,
    PiReference,
    format_cells,
    judge,
    worst,
)
from pipeline.pi_test.system import HOME, EmulationError, System

GUEST_SCRIPT = Path(__file__).with_name("guest.py")
MAX_STEP_S = 1800.0  # of wall-clock time: a step that takes longer hangs
FEW_IMAGES = 1000  # for float models, without --full: they are the slow ones under emulation
INSTALLED = f"{HOME}/lenet5-edge/current"
PYTHON = ".venv/bin/python"

# The first processor of each is the one that runs without --full.
CORTEX_A = ("cortex-a72", "cortex-a53", "cortex-a76")  # Pi 4; Pi 3, Zero 2 W; Pi 5
FROM_APT = ("python3-numpy", "python3-pil")
WITH_WHEELS = ("ai-edge-litert", "onnxruntime", "native")
SYSTEMS = (
    System("bookworm", "arm64", CORTEX_A, ("tflite-runtime", *WITH_WHEELS), "aarch64-cp311"),
    System("trixie", "arm64", CORTEX_A[::-1], WITH_WHEELS, "aarch64-cp313"),
    System(
        "bookworm",
        "armhf",
        ("cortex-a7", "max"),  # Pi 2; all that qemu-arm knows, as it has no 32-bit Cortex-A72
        ("tflite-runtime", "native"),
        "armv7l-cp311",
        FROM_APT,
    ),
    System("trixie", "armhf", ("max", "cortex-a7"), ("native",), packages=FROM_APT),
    # Pi 1 and Zero. Debian has no hard-float ARMv6 as Raspberry Pi OS is: its soft-float Python
    # runs install.sh, but cannot load the library. The command is static.
    System("bookworm", "armel", ("arm1176",), ("native",)),
)
COMMANDS = {"arm64": "native/aarch64/lenet5", "armhf": "native/armv7/lenet5"}


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle, and what to compare it with."""

    path: Path
    root: str  # the folder that everything lies in
    files: dict[str, bytes]  # by path in that folder, without the manifest
    manifest: dict[str, Any]  # without its `files`

    def write(self, target: str | None, cache: Path, path: Path) -> None:
        """Write it as `make bundle WHEELS=target` does, with wheels, or UserError."""
        files = self.files | wheels.files(target, cache)
        write_bundle(files, self.manifest, self.root, path)


@dataclass(frozen=True)
class Guest:
    """An emulated Pi."""

    prefix: tuple[str, ...]  # the words that run a command in it
    home: Path  # its home folder, seen from here

    def check(self, processor: str, folder: str, *command: str) -> str:
        """What a command in a folder there prints that must succeed, or GuestError."""
        try:
            run = subprocess.run(
                [*self.prefix, "/bin/sh", "-c", 'cd "$0" && exec "$@"', folder, *command],
                env=system.guest_environment(processor),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=MAX_STEP_S,
            )
        except subprocess.TimeoutExpired:
            raise GuestError(f"{command[-1]}: no end after {MAX_STEP_S:.0f} s") from None
        if run.returncode != 0:
            raise GuestError(failure(run))
        return run.stdout


class GuestError(Exception):
    """A command failed on the emulated Pi; the message is its last line."""


def failure(run: subprocess.CompletedProcess[str]) -> str:
    """Why a command failed, in one line: what differs, its last error, or its signal."""
    differs = [line for line in run.stdout.splitlines() if line.startswith("differs")]
    errors = [line for line in run.stderr.splitlines() if line.strip() and "dmesg" not in line]
    lines = differs[:1] or errors[-1:] or run.stdout.splitlines()[-1:]
    if run.returncode < 0 or not lines:
        return f"exit code {run.returncode}"
    return lines[0]


def run(args: argparse.Namespace) -> int:
    """Test the bundle on every Pi; 1 if a cell failed or did not run."""
    matrix = run_matrix(args.out, args.bundle, load_data(args.data), args.full)
    print(format_cells(matrix))
    print(f"pi-test: {matrix.status}")
    return 0 if matrix.status == "pass" else 1


def run_matrix(folder: Path, path: Path, data: Dataset, full: bool) -> PiMatrix:
    """Install, verify and compare the bundle on every system, and write `pi-matrix.json`.

    `full`: on all processors, and with all test images.

    Raises:
        UserError: The bundle or what parity found is missing, damaged, or of different models.
    """
    parity = read_json(folder / artifacts.PARITY_JSON, "rows", "budget")
    bundle = read_bundle(path)
    models = {name: sha256_of(bundle, parity, name) for name in bundle.manifest["models"]}
    reference = PiReference(
        data.test.images,
        data.test.labels,
        read_probabilities(folder / artifacts.PROBABILITIES),
        parity["budget"],
        (folder / artifacts.NATIVE_GOLDEN).read_bytes(),
        float_images=None if full else FEW_IMAGES,
    )
    tasks: list[Future[list[PiCell]]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, tempfile.TemporaryDirectory() as homes:
        for where in SYSTEMS:
            blank = blank_cells(where, models, full)
            try:  # one after the other: they share the emulator
                guest = start_guest(where, bundle, folder / "wheels", Path(homes, where.name))
            except (EmulationError, UserError) as error:
                not_run = [replace(cell, reason=str(error)) for cell in blank]
                tasks.append(pool.submit(lambda cells: cells, not_run))
            else:
                tasks.append(pool.submit(run_system, guest, where, blank, reference))
        cells = tuple(cell for task in tasks for cell in task.result())
    matrix = PiMatrix(worst(cell.status for cell in cells), path.name, sha256(path), models, cells)
    write_json(folder / artifacts.PI_MATRIX_JSON, asdict(matrix))
    return matrix


def blank_cells(where: System, models: Iterable[str], full: bool) -> list[PiCell]:
    """The cells of a system, of which nothing has run yet."""
    python = system.PYTHONS[where.suite]
    return [
        PiCell(where.suite, where.arch, processor, python, runtime, "", artifact)
        for processor in where.processors[: None if full else 1]
        for artifact in models
        for runtime in where.runtimes
        if runtime in RUNTIMES[Path(artifact).suffix]
    ]


def read_bundle(path: Path) -> Bundle:
    """A bundle's content, or UserError."""
    try:
        with tarfile.open(path) as archive:
            files = {}
            for member in archive:
                root, _, name = member.name.partition("/")
                stream = archive.extractfile(member)
                files[name] = stream.read() if stream else b""
        manifest = json.loads(files.pop(MANIFEST))
        del manifest["files"]
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `make bundle`") from None
    except (tarfile.TarError, KeyError, ValueError, EOFError, OSError):
        raise UserError(f"{path}: damaged; delete it and run `make bundle`") from None
    return Bundle(path, root, files, manifest)


def sha256_of(bundle: Bundle, parity: dict[str, Any], name: str) -> str:
    """The SHA-256 of a bundle's model; UserError if parity judged another file."""
    digest = hashlib.sha256(bundle.files[name]).hexdigest()
    if {row["sha256"] for row in parity["rows"] if row["artifact"] == name} != {digest}:
        raise UserError(f"{bundle.path}: {name} is not what parity judged; run `make bundle`")
    return digest


def start_guest(where: System, bundle: Bundle, wheel_cache: Path, home: Path) -> Guest:
    """Start an emulated Pi with the bundle in its home, or raise EmulationError or UserError."""
    print(f"{where.name}: system, emulator, wheels", flush=True)
    system.check_tools()
    cache = system.cache_folder()
    tree, emulator = system.make_tree(where, cache), system.make_emulator(cache)
    home.mkdir()
    bundle.write(where.wheels, wheel_cache, home / "bundle.tar.gz")
    unpack_bundle(home / "bundle.tar.gz", home)
    (home / bundle.root).rename(home / "unpacked")
    guest = Guest(tuple(system.guest_command(where, tree, home, emulator)), home)
    try:
        guest.check(where.processors[0], "/", "python3", "--version")
    except GuestError as error:
        needs = "it takes Linux 6.7 or newer and the right to make user namespaces"
        raise EmulationError(f"cannot emulate ({error}); {needs}") from None
    return guest


def run_system(
    guest: Guest, where: System, blank: Sequence[PiCell], reference: PiReference
) -> list[PiCell]:
    """Install the bundle on a system, and judge each of the blank cells there."""
    start = time.perf_counter()

    def report(text: str) -> None:
        print(f"{where.name}: {time.perf_counter() - start:4.0f} s: {text}", flush=True)

    write_inputs(guest.home, reference)
    try:
        install = ("sh", "unpacked/install.sh", "bundle.tar.gz")
        guest.check(where.processors[0], HOME, *install)
    except GuestError as error:
        report(f"install.sh: {error}")
        return [replace(cell, status="fail", reason=f"install.sh: {error}") for cell in blank]
    report("installed")
    cells = []
    for cell in blank:
        begun = time.perf_counter()
        run_cell = run_command if where.arch == "armel" else run_model
        try:
            cell = run_cell(guest, cell, reference)
        except GuestError as error:
            cell = replace(cell, status="fail", reason=str(error))
        cells.append(replace(cell, seconds=round(time.perf_counter() - begun, 1)))
        report(" ".join([cell.cpu, cell.artifact, cell.runtime, cell.status, cell.reason]))
    return cells


def write_inputs(home: Path, reference: PiReference) -> None:
    """Write what the guest reads: all images, the first few, golden outputs, and a digit."""
    np.save(home / "int8.npy", reference.images)
    np.save(home / "float.npy", reference.images[: reference.float_images])
    (home / "golden.bin").write_bytes(reference.golden)
    for suffix in ("png", "pgm"):
        Image.fromarray(reference.images[digit(reference)[0]]).save(home / f"digit.{suffix}")


def digit(reference: PiReference) -> tuple[int, int]:
    """Which test image this machine is surest of, and its label."""
    probabilities = next(iter(reference.probabilities.values()))
    image, label = np.unravel_index(probabilities.argmax(), probabilities.shape)
    return int(image), int(label)


def check_digit(printed: str, reference: PiReference) -> None:
    """Raise GuestError unless the label is among the words of an answer's line."""
    _, expected = digit(reference)
    if str(expected) not in printed.split()[1:3]:
        raise GuestError(f"a picture of a {expected} is read as: {printed.strip()}")


def run_model(guest: Guest, cell: PiCell, reference: PiReference) -> PiCell:
    """Read a digit, verify, and classify the test images, or raise GuestError."""
    choice = ("--runtime", cell.runtime, "--model", cell.artifact)
    run = partial(guest.check, cell.cpu, INSTALLED)
    check_digit(run(PYTHON, "runner.py", *choice, f"{HOME}/digit.png"), reference)
    cell = replace(cell, loads=True)
    run(PYTHON, "runner.py", "verify", *choice)
    if cell.runtime == "native":  # the library answered; now the command, on all test images
        run(COMMANDS[cell.arch], "--verify", f"{HOME}/golden.bin")
    kind = "int8" if "int8" in cell.artifact else "float"
    script = GUEST_SCRIPT.read_text("utf-8")
    files = (f"{HOME}/{kind}.npy", f"{HOME}/output.npz")
    run(PYTHON, "-c", script, cell.artifact, cell.runtime, *files)
    with np.load(guest.home / "output.npz", allow_pickle=False) as output:
        versions = {"version": str(output["runtime_version"]), "python": str(output["python"])}
        return judge(replace(cell, **versions), output["probabilities"], reference)  # type: ignore[arg-type]


def run_command(guest: Guest, cell: PiCell, reference: PiReference) -> PiCell:
    """Read a digit and verify all test images with the command that install.sh chose."""
    run = partial(guest.check, cell.cpu, INSTALLED)
    check_digit(run("./lenet5", f"{HOME}/digit.pgm"), reference)
    if (chosen := run("readlink", "lenet5").strip()) != "native/armv6/lenet5":
        raise GuestError(f"install.sh chose {chosen}")
    said = run("./lenet5", "--verify", f"{HOME}/golden.bin")
    cell = replace(cell, loads=True, version=said.partition("(")[2].partition(" ")[0])
    # Equal in every bit: whatever is true of this machine's outputs is true of these.
    return judge(cell, reference.probabilities[f"{cell.artifact}@{cell.runtime}"], reference)
