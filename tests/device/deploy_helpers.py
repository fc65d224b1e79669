"""Bundles of a few hundred bytes that install in less than a second, and a python3 for it."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from helpers import ROOT, write_script

from export.bundle import write_bundle

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE_PACKAGES = ROOT / ".venv-device" / "lib" / PYTHON / "site-packages"

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
    time.sleep(0.5)  # a benchmark ends the call that it is at
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
    write_bundle(files, {"version": version, "models": {}}, f"lenet5-edge-{version}", path)
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


# --- install.sh by hand ---------------------------------------------------------------------------

INSTALL = ROOT / "device" / "install.sh"
SYSTEM = "/usr/bin:/bin:/usr/sbin:/sbin"


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def finished(process):
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess([], process.returncode, stdout, stderr)


class Board:
    """A folder to install to, and the commands that install.sh finds."""

    def __init__(self, folder, home=None):
        self.folder, self.home = folder, home or folder / "lenet5-edge"
        self.bin, self.packages = folder / "bin", folder / "packages"
        python = Path(sys._base_executable).resolve().with_name(PYTHON)
        self.command("python3", PYTHON3.format(folder=folder, python=python))
        # The real one would write the disk of this machine, whatever else is at work on it.
        self.command("sync", "")
        pip = self.packages / "pip"  # one for which everything is installed already
        pip.mkdir(parents=True)
        (pip / "__main__.py").touch()

    def start(self, bundle, cwd=None, umask=-1, **environment):
        here = {"PATH": f"{self.bin}:{SYSTEM}", "OS_PACKAGES": str(self.packages)}
        command = ["/bin/sh", INSTALL, bundle, self.home]
        options = {"cwd": cwd, "umask": umask, "start_new_session": True, "text": True}
        return subprocess.Popen(command, env={**here, **environment}, **options, **PIPES)

    def install(self, bundle, **options):
        return finished(self.start(bundle, **options))

    def command(self, name, script):
        """Put a shell script in a command's place."""
        write_script(self.bin / name, script)

    def before_each(self, names, script):
        """Run a shell script before each of these commands."""
        for name in names:
            real = self.bin / "python3.real" if name == "python3" else shutil.which(name)
            if name == "python3":
                (self.bin / name).rename(real)
            self.command(name, f'{script}\nexec {real} "$@"')

    def in_use(self):
        """The version that `current` leads to, such as "1.0.0"."""
        return (self.home / "current").resolve(strict=True).name.partition("-")[0]

    def versions(self):
        return sorted(path.name.partition("-")[0] for path in (self.home / "versions").iterdir())


def is_whole(version):
    """Whether all files of a version's folder are those of its manifest."""
    try:
        files = json.loads((version / "manifest.json").read_text())["files"]
        digests = {n: hashlib.sha256((version / n).read_bytes()).hexdigest() for n in files}
    except (OSError, ValueError):
        return False
    return digests == {name: entry["sha256"] for name, entry in files.items()}


def installed(board, bundle, **options):
    run = board.install(bundle, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    return run


def refused(run, code, message, by="install"):
    """It ended with this code and one line."""
    assert (run.returncode, run.stderr.count("\n")) == (code, 1), run.stderr
    assert run.stderr.startswith(f"{by}: {message}")


# --- Deployment over ssh --------------------------------------------------------------------------

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
USER = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()

SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
PasswordAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
ForceCommand {folder}/login
"""
# A device has a home of its own, and nothing of the user's shell start-up files.
LOGIN = """
export HOME={folder}/home PATH={folder}/bin:/usr/bin:/bin OS_PACKAGES={folder}/packages
cd && exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
SSH_CONFIG = """
IdentityFile {folder}/key
IdentitiesOnly yes
BatchMode yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


class Device(Board):
    """An sshd and its files."""

    def __init__(self, folder, keys):
        super().__init__(folder, folder / "home" / "lenet5-edge")
        self.keys, self.process = keys, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "home").mkdir()
        for name in ("key", "key.pub"):
            shutil.copy(keys / name, folder)
        write_script(folder / "login", LOGIN.format(folder=folder))
        (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder, port=self.port))

    def serve(self):
        self.stop()
        command = [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        probe = ["ssh-keyscan", "-p", str(self.port), "127.0.0.1"]
        for _ in range(100):
            if subprocess.run(probe, capture_output=True).stdout:
                return
            time.sleep(0.05)
        pytest.fail((self.folder / "log").read_text())

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    @contextlib.contextmanager
    def locked(self):
        """Hold the lock of install.sh."""
        descriptor = os.open(self.home / "versions", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def wait_for_install(self):
        """Wait until no install.sh, and nothing started by it, holds the lock."""
        with self.locked():
            pass

    def start_deploy(self, bundle, **more):
        """Start tools/deploy.sh as `make deploy` does."""
        command = [ROOT / "tools/deploy.sh", bundle, f"{USER}@127.0.0.1", str(self.port)]
        options = {"stdin": subprocess.DEVNULL, "text": True, "env": environment(self.keys, **more)}
        return subprocess.Popen(command, **options, **PIPES)

    def deploy(self, bundle, **more):
        """Run it to its end."""
        return finished(self.start_deploy(bundle, **more))


def environment(folder, **more):
    """With the `ssh` of a folder."""
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **more}
