"""The compiled C, file by file: it is what the judged source compiles to, and it answers right.

Each processor chooses other kernels of the same file. This machine runs its own; the others run in
qemu's user mode, a Debian package that needs no rights.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import native
from pipeline.artifacts import NATIVE_FOLDER, NATIVE_LIBRARY, NATIVE_SOURCE, this_architecture
from pipeline.data import Images
from pipeline.files import UserError, sha256

# What a file is run on: the processors that qemu plays, each with other kernels.
PROCESSORS = {
    "x86_64": ("Nehalem", "Haswell"),
    "aarch64": ("cortex-a53", "cortex-a76"),  # Pi 3 and 5
    "armv7": ("cortex-a7",),  # Pi 2
    "armv6": ("arm1176",),  # Pi 1 and Zero
}
HERE = "this machine"


@dataclass(frozen=True)
class BinaryRow:
    """What parity found for one compiled file on one processor."""

    file: str  # in artifacts/
    sha256: str
    processor: str  # `HERE`, or one that qemu plays
    kernels: str  # that it chose there, such as "avx2"; "" if it did not run
    status: str  # "pass", "fail" or "not_run"
    reason: str  # why it is not "pass"


def judge_binaries(
    folder: Path, images: Images, outputs: NDArray[np.int8], library_kernels: str
) -> list[BinaryRow]:
    """Compile the judged source again, and run every file that was compiled of it.

    A library for another processor needs a Python of that processor: `make pi-test` has it. Both
    files of an architecture hold the same compiled network.

    Args:
        folder: The artifacts.
        images: uint8 (N, 28, 28).
        outputs: int8 (N, classes), what the C promises for them.
        library_kernels: With which the library for this machine gave them; "" if it did not.

    Returns:
        A row a file and processor.
    """
    with tempfile.TemporaryDirectory() as name:
        again, golden = Path(name), Path(name, "golden.bin")
        golden.write_bytes(native.golden_file(images, outputs))
        wrong = ""
        try:
            native.build(folder / NATIVE_FOLDER, again)
        except UserError as error:
            wrong = f"{NATIVE_SOURCE}: {error}"

        def run(row: BinaryRow) -> BinaryRow:
            if wrong:
                return replace(row, status="fail", reason=wrong)
            if row.sha256 != sha256(again / Path(row.file).relative_to(NATIVE_FOLDER)):
                reason = f"{row.file}: not what {NATIVE_SOURCE} compiles to; run `make native`"
                return replace(row, status="fail", reason=reason)
            if row.file.endswith(NATIVE_LIBRARY):
                return _library(row, library_kernels)
            return _command(row, folder, golden)

        digests = {n: sha256(folder / n) if (folder / n).is_file() else "" for n in native.BINARIES}
        todo = [
            BinaryRow(file, digest, processor, "", "pass", "")
            for file, digest in digests.items()
            for processor in processors_of(file)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(run, todo))


def processors_of(file: str) -> list[str]:
    """The processors that a compiled file is for and can be run on."""
    arch = Path(file).parent.name
    here = [HERE] if arch == this_architecture() else []
    return (here or [""]) if file.endswith(NATIVE_LIBRARY) else [*here, *PROCESSORS[arch]]


def _library(row: BinaryRow, kernels: str) -> BinaryRow:
    """The row of a library: parity's own table has run this machine's."""
    if row.processor != HERE:
        return replace(row, status="not_run", reason="needs that processor's Python: make pi-test")
    if not kernels:
        return replace(row, status="not_run", reason=f"{NATIVE_SOURCE} on native did not pass")
    return replace(row, kernels=kernels)


def _command(row: BinaryRow, folder: Path, golden: Path) -> BinaryRow:
    """The row with what `lenet5 --verify` says on its processor."""
    command = [str(folder / row.file), "--verify", str(golden)]
    if row.processor != HERE:
        try:
            command = [*native.emulator(Path(row.file).parent.name, row.processor), *command]
        except UserError as error:
            return replace(row, status="not_run", reason=str(error))
    return verdict(row, subprocess.run(command, capture_output=True, text=True, errors="replace"))


def verdict(row: BinaryRow, done: subprocess.CompletedProcess[str]) -> BinaryRow:
    """A row with what `lenet5 --verify` said: "256 of 256 outputs equal (neon kernels)"."""
    found = re.fullmatch(r"(\d+) of (\d+) outputs equal \((\w+) kernels\)", done.stdout.strip())
    if found and done.returncode == 0 and found[1] == found[2]:
        return replace(row, kernels=found[3])
    said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
    return replace(row, status="fail", reason=said.splitlines()[-1])
