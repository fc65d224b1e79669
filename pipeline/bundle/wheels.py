"""The wheels that a Raspberry Pi without internet installs, fetched on the development machine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from pipeline.artifacts import ROOT
from pipeline.files import UserError, atomic_path, sha256

LOCK = ROOT / "device" / "requirements.lock"
OLDEST_GLIBC_MINOR = 17  # of manylinux2014, the oldest platform that our wheels are built for
RECORD = "requirements.txt"  # in a folder of wheels: what was asked for, written last


@dataclass(frozen=True)
class Target:
    """What a Pi's Python accepts."""

    machine: str  # as `uname -m` says it
    python: str  # "3.11"
    glibc_minor: int  # of the operating system's glibc 2.x
    from_os: tuple[str, ...] = ()  # packages without a wheel on PyPI; the system brings them


TARGETS = {
    "aarch64-cp311": Target("aarch64", "3.11", 36),  # 64-bit Raspberry Pi OS bookworm
    "armv7l-cp311": Target("armv7l", "3.11", 36, ("numpy",)),  # its 32-bit edition
    "aarch64-cp313": Target("aarch64", "3.13", 41),  # 64-bit Raspberry Pi OS trixie
}


def files(target_name: str | None, cache: Path) -> dict[str, bytes]:
    """What a bundle for a target has in `wheels/`, by path: nothing for None."""
    fetched = fetch(target_name, cache / target_name) if target_name else []
    return {f"wheels/{path.name}": path.read_bytes() for path in fetched}


def fetch(target_name: str, folder: Path) -> list[Path]:
    """Download the wheels of the device's lock file for one of `TARGETS`; what is there is kept.

    The folder holds nothing else.

    Raises:
        UserError: An unknown target, or the registry is out of reach or has no such wheel.
    """
    if target_name not in TARGETS:
        raise UserError(f"WHEELS={target_name}: unknown; there are {', '.join(TARGETS)}")
    target = TARGETS[target_name]
    wanted = select(target)
    if not is_complete(folder, wanted):
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            (temporary / RECORD).write_text(wanted, "utf-8")
            _download(temporary, target, target_name)
            shutil.rmtree(folder, ignore_errors=True)
    return sorted(folder.glob("*.whl"))


def is_complete(folder: Path, wanted: str) -> bool:
    """Whether a folder holds what was wanted, by its record, and each wheel by its hash."""
    record = folder / RECORD
    if not record.is_file() or record.read_text("utf-8") != wanted:
        return False
    digests = [sha256(wheel) for wheel in folder.glob("*.whl")]
    lines = wanted.splitlines()
    return len(digests) == len(lines) and all(any(d in line for d in digests) for line in lines)


def select(target: Target) -> str:
    """The part of the lock file that applies to a target: a line a package, without markers.

    pip evaluates markers for the Python it runs in, whatever `--python-version` says.
    """
    environment = {  # as `packaging` calls it; a Pi has Linux and CPython, as this machine does
        "python_version": target.python,
        "python_full_version": f"{target.python}.0",
        "platform_machine": target.machine,
    }
    lines = []
    for entry in LOCK.read_text("utf-8").replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        specification, *hashes = re.split(r"\s+(?=--hash=)", entry.strip())
        requirement = Requirement(specification)
        applies = not requirement.marker or requirement.marker.evaluate(environment)
        if applies and requirement.name not in target.from_os:
            lines.append(" ".join([f"{requirement.name}{requirement.specifier}", *hashes]))
    return "\n".join(lines) + "\n"


def download_command(requirements: Path, folder: Path, target: Target) -> list[str]:
    """The pip command that downloads wheels for a target."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--no-deps", "--require-hashes"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    command += ["--implementation", "cp", "--python-version", target.python]
    for minor in range(target.glibc_minor, OLDEST_GLIBC_MINOR - 1, -1):
        command += ["--platform", f"manylinux_2_{minor}_{target.machine}"]
    return [*command, "--platform", f"manylinux2014_{target.machine}"]


def _download(folder: Path, target: Target, target_name: str) -> None:
    command = download_command(folder / RECORD, folder, target)
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR:")]
        reason = (errors or run.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise UserError(f"wheels for {target_name}: {reason.removeprefix('ERROR: ')}")
