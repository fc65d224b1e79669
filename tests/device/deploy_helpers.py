"""Bundles of a few hundred bytes that install in less than a second, and a python3 for it."""

import hashlib
import json
import sys
import tarfile
from pathlib import Path

from helpers import ROOT, write_script

from export.bundle import write_bundle

SITE_PACKAGES = next((ROOT / ".venv-device" / "lib").glob("python3*")) / "site-packages"

# `receipt` says what the file `answer` says. `bench` lasts until Ctrl-C, or with --full no time.
RUNNER = b"""
import json, sys, time
from pathlib import Path
if sys.argv[1] == "receipt":
    answer = Path(__file__).with_name("answer").read_text()
    if answer == "PASS":
        Path(__file__).with_name("device.json").write_text("{}")
    print("ok       a model\\n" + answer)
    sys.exit(answer != "PASS")
print("1 of 2 timed", file=sys.stderr, flush=True)
try:
    time.sleep(0 if "--full" in sys.argv else 60)
    interrupted = False
except KeyboardInterrupt:
    interrupted = True
    Path(__file__).with_name("interrupted").touch()
print(json.dumps({"interrupted": interrupted}))
sys.exit(130 if interrupted else 0)
"""

# A device's python3. With OS_PACKAGES, the operating system has the packages of that folder, among
# them pip, and an environment is made in no time. While the file `vanish` is there, making an
# environment takes the device off the network half-way: its sshd, session and server, is killed.
PYTHON3 = """
is_sshd() {{ case $(cat /proc/$pid/comm) in sshd*) return 0 ;; *) return 1 ;; esac; }}
parent() {{ sed 's/.*) . //; s/ .*//' /proc/$pid/stat; }}
case "$1 $2 $3" in
    "-I -m venv") ;;
    *) exec "{python}" "$@" ;;
esac
if [ -e "{folder}/vanish" ]; then
    rm "{folder}/vanish"
    pid=$PPID
    until is_sshd; do pid=$(parent); done
    while is_sshd; do
        above=$(parent)
        kill -9 $pid
        pid=$above
    done
fi
[ -n "${{OS_PACKAGES:-}}" ] || exec "{python}" "$@"
for environment; do :; done
packages=$environment/lib/{python.name}/site-packages
mkdir -p "$environment/bin" "$packages"
ln -s "{python}" "$environment/bin/python"
cat >"$environment/pyvenv.cfg" <<EOF
home = {python.parent}
include-system-site-packages = false
command = venv $PWD/$environment
EOF
echo "$OS_PACKAGES" >"$packages/os.pth"
"""


def make_fake_bundle(folder, version="1.0.0", further=None):
    """Write a bundle to a folder; `further` files are added or replace those of the fake."""
    files = {"runner.py": RUNNER, "answer": b"PASS", "requirements.lock": b"", **(further or {})}
    path = folder / f"lenet5-edge-{version}.tar.gz"
    write_bundle(files, {"version": version}, f"lenet5-edge-{version}", path)
    return path


def repack(packed, folder, further):
    """Pack a bundle as version 1.0.0, with `further` files or others in their place."""
    with tarfile.open(packed) as archive:
        files = {m.name.partition("/")[2]: archive.extractfile(m).read() for m in archive}
    manifest = {**json.loads(files.pop("manifest.json")), "version": "1.0.0"}
    del manifest["files"]
    path = folder / "lenet5-edge-1.0.0.tar.gz"
    write_bundle({**files, **further}, manifest, "lenet5-edge-1.0.0", path)
    return path


def lock(*files):
    """The lines of a lock file for (file name, content), in two lines each as uv writes them."""
    lines = []
    for path, content in files:
        name, version = Path(path).name.replace(".tar.gz", "-").split("-")[:2]
        lines.append(
            f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
        )
    return "".join(lines).encode()


def write_commands(bin_folder, folder):
    """Write that python3, which looks for `vanish` in a folder, and a `sync` that does nothing."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = Path(sys._base_executable).resolve().with_name(version)
    write_script(bin_folder / "python3", PYTHON3.format(folder=folder, python=python))
    # The real one would write the disk of this machine, whatever else is at work on it.
    write_script(bin_folder / "sync", "")


def write_os_packages(folder):
    """Write a folder for OS_PACKAGES: a pip for which everything is installed already."""
    (folder / "pip").mkdir(parents=True)
    (folder / "pip" / "__main__.py").touch()
    return folder
