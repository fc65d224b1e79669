"""The bundle on emulated Raspberry Pis: installed as its README says, verified and compared."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from device.runner import RUNTIMES
from pipeline.artifacts import (
    NATIVE_GOLDEN,
    NATIVE_SOURCE,
    PARITY_JSON,
    PI_MATRIX_JSON,
    PROBABILITIES,
    ROOT,
)
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
    overall_status,
)
from pipeline.pi_test.system import EmulationError, System

GUEST_SCRIPT = ROOT / "pipeline" / "pi_test" / "guest.py"
MAX_CLASSIFY_S = 120.0  # of processor time, for one artifact
MAX_STEP_S = 1800.0  # of wall-clock time: a step that takes longer hangs
VENV = ("python3", "-m", "venv", "--system-site-packages", ".venv")
PIP = (".venv/bin/pip", "install", "--no-index", "--find-links", "wheels")
PYTHON = ".venv/bin/python"


@dataclass(frozen=True)
class Environment:
    """One kind of Pi with one runtime."""

    system: System
    runtime: str
    target: str  # which wheels it installs, a key of `wheels.TARGETS`
    lock: str = "device/requirements.lock"  # of the runtime and what it needs
    packages: tuple[str, ...] | None = None  # what of the lock file is installed; None: all
    install: tuple[str, ...] = ("-r", "requirements.txt")  # what pip is told to install

    @property
    def name(self) -> str:
        """Such as "bookworm/arm64/tflite-runtime"."""
        return f"{self.system.suite}/{self.system.arch}/{self.runtime}"

    def blank_cell(self, artifact: str) -> PiCell:
        """A cell of which nothing has run yet."""
        where = (self.system.suite, self.system.arch, self.system.cpu)
        return PiCell(*where, wheels.TARGETS[self.target].python, self.runtime, "", artifact)


BOOKWORM_64 = System("bookworm", "arm64", cpu="cortex-a76")  # the Pi 5's
BOOKWORM_32 = System("bookworm", "armhf", cpu="cortex-a7", packages=("python3-numpy",))  # Pi 2's
TRIXIE_64 = System("trixie", "arm64", cpu="cortex-a76")
ENVIRONMENTS = (
    Environment(BOOKWORM_64, "tflite-runtime", "aarch64-cp311"),
    Environment(BOOKWORM_32, "tflite-runtime", "armv7l-cp311"),
    Environment(
        BOOKWORM_64,
        "onnxruntime",
        "aarch64-cp311",
        lock="requirements.lock",
        packages=("onnxruntime", "flatbuffers", "numpy", "packaging", "protobuf"),
        install=("onnxruntime",),
    ),
    Environment(TRIXIE_64, "ai-edge-litert", "aarch64-cp313"),
    Environment(BOOKWORM_64, "native", "aarch64-cp311", packages=("numpy",), install=("numpy",)),
    Environment(BOOKWORM_32, "native", "armv7l-cp311", packages=("numpy",), install=("numpy",)),
)
BINARIES = {"arm64": "native/aarch64", "armhf": "native/armv7"}


# Debian has no system for the Pi 1 and Zero, so that the command runs there by itself.
ARMV6 = PiCell("no system", "armv6", "arm1176", "-", "native", "", NATIVE_SOURCE)


@dataclass(frozen=True)
class Supplies:
    """What is made or fetched once for an environment."""

    tree: Path  # its system
    emulator: Path  # the folder with qemu
    wheels: tuple[Path, ...]  # what pip would choose on this Pi


@dataclass(frozen=True)
class Guest:
    """An emulated Pi with the bundle unpacked in its home."""

    environment: Environment
    prefix: tuple[str, ...]  # the words that run a command in it
    home: Path  # its home folder, seen from here
    bundle: Path  # the unpacked bundle's folder, seen from here

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the bundle's folder."""
        words = [*self.prefix, "/bin/sh", "-c", 'cd "$0" && exec "$@"']
        return subprocess.run(
            [*words, f"{system.HOME}/{self.bundle.name}", *command],
            env=system.guest_environment(self.environment.system),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=MAX_STEP_S,
        )

    def check(self, *command: str) -> None:
        """Run a command that must succeed, or raise GuestError."""
        try:
            run = self.run(*command)
        except subprocess.TimeoutExpired:
            raise GuestError(f"{command[-1]}: no end after {MAX_STEP_S:.0f} s") from None
        if run.returncode != 0:
            raise GuestError(failure(run))


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
    matrix = run_matrix(args.out, args.bundle, load_data(args.data))
    print(format_cells(matrix))
    print(f"pi-test: {matrix.status}")
    return 0 if matrix.status == "pass" else 1


def run_matrix(folder: Path, bundle: Path, data: Dataset) -> PiMatrix:
    """Install, verify and compare the bundle in every environment, and write `pi-matrix.json`.

    Args:
        folder: The artifacts, with what parity found.
        bundle: The bundle.
        data: The data set; its test split is classified.

    Raises:
        UserError: The bundle or what parity found is missing, damaged, or of different models.
    """
    parity = read_json(folder / PARITY_JSON, "rows", "budget")
    models = bundle_models(bundle, parity)
    probabilities = read_probabilities(folder / PROBABILITIES)
    golden = (folder / NATIVE_GOLDEN).read_bytes() if NATIVE_SOURCE in models else b""
    reference = PiReference(
        data.test.images, data.test.labels, probabilities, parity["budget"], golden
    )
    tasks: list[Future[list[PiCell]]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for environment in ENVIRONMENTS:
            artifacts = [m for m in models if environment.runtime in RUNTIMES[Path(m).suffix]]
            blank = [environment.blank_cell(artifact) for artifact in artifacts]
            # One after the other, since two environments may share a system or wheels.
            supplies = gather(environment, folder / "wheels")
            tasks.append(
                pool.submit(run_environment, environment, blank, supplies, bundle, reference)
            )
        if NATIVE_SOURCE in models:
            tasks.append(pool.submit(run_armv6, bundle, reference))
        cells = tuple(cell for task in tasks for cell in task.result())
    matrix = PiMatrix(overall_status(cells), bundle.name, sha256(bundle), models, cells)
    write_json(folder / PI_MATRIX_JSON, asdict(matrix))
    return matrix


def gather(environment: Environment, wheel_cache: Path) -> Supplies | EmulationError:
    """Make or find what an environment needs; the error if something is missing."""
    cache = system.cache_folder()
    print(f"{environment.name}: system, emulator, wheels", flush=True)
    try:
        system.check_tools()
        emulator = system.make_emulator(cache)
        tree = system.make_tree(environment.system, cache)
        folder = wheel_cache / f"{environment.target}-{environment.runtime}"
        lock = ROOT / environment.lock
        files = wheels.fetch(lock, environment.target, folder, environment.packages)
    except (EmulationError, UserError) as error:
        return EmulationError(str(error))
    return Supplies(tree, emulator, tuple(files))


def run_environment(
    environment: Environment,
    blank: Sequence[PiCell],
    supplies: Supplies | EmulationError,
    bundle: Path,
    reference: PiReference,
) -> list[PiCell]:
    """Install the bundle in one environment and judge each of the blank cells there."""
    start = time.perf_counter()

    def report(text: str) -> None:
        print(f"{environment.name}: {time.perf_counter() - start:4.0f} s: {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="lenet5-pi-") as home:
        try:
            if isinstance(supplies, EmulationError):
                raise supplies
            guest = start_guest(environment, supplies, bundle, Path(home))
            if environment.runtime == "native":
                check_binaries(guest.bundle / BINARIES[environment.system.arch])
            guest.check(*VENV)  # as the bundle's README says, without internet
            guest.check(*PIP, *environment.install)
        except (EmulationError, GuestError) as error:
            status = "fail" if isinstance(error, GuestError) else "not_run"
            report(f"{status}: {error}")
            return [replace(cell, status=status, reason=str(error)) for cell in blank]
        report("installed")
        np.save(guest.home / "images.npy", reference.images)
        (guest.home / "golden.bin").write_bytes(reference.golden)
        cells = []
        for cell in blank:
            cells.append(run_cell(guest, cell, reference))
            report(" ".join([cell.artifact, cells[-1].status, cells[-1].reason]))
    return cells


def bundle_models(bundle: Path, parity: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of a bundle's models by name; raises UserError if parity judged other files."""
    try:
        with tarfile.open(bundle) as archive:
            member = next(m for m in archive if Path(m.name).name == "manifest.json")
            stream = archive.extractfile(member)
            manifest = json.loads(stream.read()) if stream else {}
    except FileNotFoundError:
        raise UserError(f"{bundle}: missing; run `make bundle`") from None
    except (tarfile.TarError, StopIteration, ValueError, EOFError, OSError):
        raise UserError(f"{bundle}: damaged; delete it and run `make bundle`") from None
    models = {name: str(manifest["files"][name]["sha256"]) for name in manifest["models"]}
    for name, digest in models.items():
        if {row["sha256"] for row in parity["rows"] if row["artifact"] == name} != {digest}:
            raise UserError(f"{bundle}: {name} is not what parity judged; run `make bundle`")
    return models


def start_guest(environment: Environment, supplies: Supplies, bundle: Path, home: Path) -> Guest:
    """Start an emulated Pi with the bundle and the wheels in its home, or raise EmulationError."""
    with tarfile.open(bundle) as archive:
        archive.extractall(home, filter="data")
    (unpacked,) = home.iterdir()
    (unpacked / "wheels").mkdir(exist_ok=True)
    for wheel in supplies.wheels:
        shutil.copy(wheel, unpacked / "wheels")
    shutil.copy(GUEST_SCRIPT, home)
    prefix = system.guest_command(environment.system, supplies.tree, home, supplies.emulator)
    guest = Guest(environment, tuple(prefix), home, unpacked)
    trial = guest.run("python3", "--version")
    if trial.returncode != 0:
        raise EmulationError(
            f"cannot emulate ({failure(trial)}); it takes Linux 6.7 or newer and the right to make "
            "user namespaces"
        )
    return guest


def run_cell(guest: Guest, cell: PiCell, reference: PiReference) -> PiCell:
    """Load, verify and classify with one artifact on an emulated Pi."""
    start = time.perf_counter()
    choice = ("--runtime", cell.runtime, "--model", cell.artifact)
    try:
        guest.check(PYTHON, "runner.py", "info", *choice)
    except GuestError as error:
        return replace(cell, loads=False, status="fail", reason=str(error))
    cell = replace(cell, loads=True)
    try:
        guest.check(PYTHON, "runner.py", "verify", *choice)
        if cell.runtime == "native":  # the library answered; now the command, on all test images
            command = f"{BINARIES[guest.environment.system.arch]}/lenet5"
            guest.check(command, "--verify", "../golden.bin")
        script = [PYTHON, f"../{GUEST_SCRIPT.name}", cell.artifact, cell.runtime]
        guest.check(*script, "../images.npy", "../output.npz", str(MAX_CLASSIFY_S))
    except GuestError as error:
        return replace(cell, status="fail", reason=str(error))
    with np.load(guest.home / "output.npz", allow_pickle=False) as output:
        seconds = round(time.perf_counter() - start, 1)
        versions = {"version": str(output["runtime_version"]), "python": str(output["python"])}
        cell = replace(cell, seconds=seconds, **versions)  # type: ignore[arg-type]
        return judge(cell, output["probabilities"], reference)


def check_binaries(folder: Path) -> None:
    """Raise EmulationError if a bundle has no native binaries for an architecture."""
    if not (folder / "lenet5").is_file():
        raise EmulationError(f"the bundle has no native/{folder.name}: make it again: make bundle")


def run_armv6(bundle: Path, reference: PiReference) -> list[PiCell]:
    """Run the static command for ARMv6 on all test images, as on a Pi 1 or Zero.

    The command compares its outputs with the golden ones itself.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="lenet5-pi-") as home:
        try:
            system.check_tools()
            qemu = system.make_emulator(system.cache_folder()) / system.EMULATORS["armhf"]
            with tarfile.open(bundle) as archive:
                archive.extractall(home, filter="data")
            (unpacked,) = Path(home).iterdir()
            check_binaries(unpacked / "native" / "armv6")
        except EmulationError as error:
            return [replace(ARMV6, reason=str(error))]
        golden = Path(home, "golden.bin")
        golden.write_bytes(reference.golden)
        command = [str(qemu), "-cpu", ARMV6.cpu, str(unpacked / "native/armv6/lenet5")]
        command += ["--verify", str(golden)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=MAX_STEP_S)
    cell = replace(ARMV6, loads=run.returncode in (0, 1), version="dsp")
    if run.returncode != 0:
        return [replace(cell, status="fail", reason=failure(run))]
    # Equal in every bit: whatever is true of this machine's outputs is true of these.
    expected = reference.probabilities[f"{cell.artifact}@{cell.runtime}"]
    cell = replace(cell, seconds=round(time.perf_counter() - start, 1))
    return [judge(cell, expected, reference)]
