"""A Raspberry Pi's operating system in a folder, and commands run in it under qemu.

A tree is made of Debian's own packages for the Pi's architecture by mmdebstrap. Commands run in
a user namespace of their own: there the tree is the root, qemu is registered with binfmt_misc
for the Pi's programs, and there is no network. So `pip` and `venv` start other programs as on a
Pi, nothing of this machine shows through but /proc, /sys and /dev, nothing of this machine
changes, and no privilege is needed beyond that of making user namespaces (Linux 6.7 or newer).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.files import atomic_path

HOME = "/home/pi"
TOOLS = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "chroot": "coreutils"}
# Debian 12's qemu 7.2 crashes on ai-edge-litert 2.2 and later; Debian 13's qemu 10 does not.
EMULATOR_SUITE = "trixie"
QEMU = {"arm64": "qemu-aarch64", "armhf": "qemu-arm", "armel": "qemu-arm"}
# Raspberry Pi OS has them all.
PACKAGES = (
    *("ca-certificates", "coreutils", "dash", "findutils", "libstdc++6", "mawk", "python3"),
    *("python3-venv", "sed", "util-linux"),
)
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
# The indices of other suites are at times out of step.
MAIN_SUITE_ALONE = '--setup-hook=sed -i "/-security/d;/-updates/d" "$1/etc/apt/sources.list"'
# The first 20 bytes of the programs of an architecture and which bits of them count:
# ELF class and byte order, type executable or shared object, machine 0xb7 or 0x28.
_ELF = r"\x7fELF{bits}\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00{machine}\x00"
_ARM = _ELF.format(bits=r"\x01", machine=r"\x28")
MAGIC = {"arm64": _ELF.format(bits=r"\x02", machine=r"\xb7"), "armhf": _ARM, "armel": _ARM}
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
# Flag F opens qemu now, outside the tree; P hands a program the name it was called by, by which
# Python finds its virtual environment.
SANDBOX = """\
set -e
tree=$1 home=$2 rule=$3
shift 3
for folder in proc sys dev; do mount --rbind /$folder "$tree/$folder"; done
mount --bind "$home" "$tree/home/pi"
mount -t binfmt_misc binfmt_misc "$tree/proc/sys/fs/binfmt_misc"
echo "$rule" > "$tree/proc/sys/fs/binfmt_misc/register"
exec chroot "$tree" "$@"
"""


class EmulationError(Exception):
    """Emulation is not possible here; the message says what is missing."""


@dataclass(frozen=True)
class System:
    """An operating system to emulate, and what is installed on it."""

    suite: str  # Debian's name of the release that Raspberry Pi OS is made from
    arch: str  # Debian's name of the architecture
    processors: tuple[str, ...]  # qemu's names; all run one installation, which the first one makes
    runtimes: tuple[str, ...]  # that can be installed
    wheels: str | None = None  # which its bundle has, a key of `wheels.TARGETS`
    packages: tuple[str, ...] = ()  # what the system has beside `PACKAGES`

    @property
    def name(self) -> str:
        """Such as "bookworm arm64"."""
        return f"{self.suite} {self.arch}"


def cache_folder() -> Path:
    """Where trees are kept: `lenet5-edge` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lenet5-edge"


def check_tools() -> None:
    """Raise EmulationError naming the programs that are missing and the packages that have them."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        packages = " ".join(TOOLS[tool] for tool in missing)
        raise EmulationError(f"{', '.join(missing)} missing: apt install {packages}")


def tree_command(system: System) -> list[str]:
    """The mmdebstrap command that makes a tree, as `tree.tar`.

    Packages are unpacked, not configured, since that would need the emulation already. What
    their installation scripts would have done and numpy and pip need is done by hooks.
    """
    packages = (*PACKAGES, *system.packages)
    libraries = '"$1"/usr/lib/arm-linux-gnueabihf'
    hooks = [f'mkdir -p "$1"{HOME} "$1/proc" "$1/sys" "$1/tmp" "$1/usr/bin" {libraries}']
    hooks.append('ln -s mawk "$1/usr/bin/awk"')
    for name in ("blas", "lapack") if "python3-numpy" in packages else ():
        hooks.append(f"ln -s {name}/lib{name}.so.3 {libraries}/lib{name}.so.3")
    certificates = 'cat "$1"/usr/share/ca-certificates/mozilla/*.crt'
    certificates += ' > "$1/etc/ssl/certs/ca-certificates.crt"'
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--skip=check/qemu"]
    command += [f"--architectures={system.arch}", f"--include={','.join(packages)}"]
    command += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", MAIN_SUITE_ALONE]
    command += [f"--setup-hook={hook}" for hook in hooks]
    command += [f"--extract-hook={certificates}"]
    return [*command, system.suite, "tree.tar"]


def make_tree(system: System, cache: Path) -> Path:
    """The folder of a tree, made when missing, or EmulationError."""
    command = tree_command(system)
    recipe = hashlib.sha256(" ".join(command).encode()).hexdigest()
    tree = cache / f"{system.suite}-{system.arch}-{recipe[:8]}"
    return _unpacked(tree, command, "--exclude=./dev/*")


def make_emulator(cache: Path) -> Path:
    """The folder with qemu for every architecture, made when missing, or EmulationError."""
    command = ["mmdebstrap", "--quiet", "--variant=extract", "--include=qemu-user"]
    command += [MAIN_SUITE_ALONE, EMULATOR_SUITE, "tree.tar"]
    programs = sorted({f"./usr/bin/{name}" for name in QEMU.values()})  # statically linked
    folder = cache / f"qemu-{EMULATOR_SUITE}"
    return _unpacked(folder, command, "--strip-components=3", *programs)


def guest_command(system: System, tree: Path, home: Path, emulator: Path) -> list[str]:
    """The words to put before a command that is to run in a tree, with a folder as its `HOME`."""
    qemu = emulator / QEMU[system.arch]
    rule = f":pi:M::{MAGIC[system.arch]}:{MASK}:{qemu}:FP"
    namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
    return [*namespaces, "/bin/sh", "-c", SANDBOX, "sandbox", str(tree), str(home), rule]


def guest_environment(processor: str) -> dict[str, str]:
    """The environment variables of a guest's command, and no others."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": HOME,
        "LC_ALL": "C.UTF-8",
        "PIP_NO_COMPILE": "1",  # compiling pip and numpy takes most of the time
        "PIP_NO_INDEX": "1",  # there is no network
        "QEMU_CPU": processor,
    }


def _unpacked(folder: Path, command: list[str], *options: str) -> Path:
    """The folder, made when missing of the `tree.tar` that a command writes.

    It is unpacked as the user's own files: in a folder that mmdebstrap makes for a user without
    root's rights, they belong to other users of a namespace, and such a folder can be neither
    renamed nor deleted.
    """
    if not folder.is_dir():
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            _run(command, temporary.parent)
            unpack = ["tar", "-xf", "tree.tar", "-C", temporary.name, "--no-same-owner"]
            _run([*unpack, *options], temporary.parent)
    return folder


def _run(command: list[str], folder: Path) -> None:
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if run.returncode != 0:
        errors = [line for line in run.stderr.splitlines() if line.startswith("E: ")]
        raise EmulationError(f"{command[0]}: {(errors or ['failed'])[0].removeprefix('E: ')}")
