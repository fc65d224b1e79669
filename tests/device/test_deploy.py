"""Deployment for real: sshd on loopback, and three devices in network namespaces of their own.

A "device" is an sshd with a folder of its own. Its packages come from wheels that are packed into
the bundle, or lie ready in PYTHONPATH as those of the operating system would on a Pi.
"""

import fcntl
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from conftest import DEVICE_PYTHON, ROOT, run_stage

from export.bundle import write_bundle

INSTALL = ROOT / "device" / "install.sh"
SITE_PACKAGES = next((ROOT / ".venv-device" / "lib").glob("python3.*")) / "site-packages"
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")

SSHD_CONFIG = """
Port {port}
ListenAddress {address}
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
PasswordAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
ForceCommand {folder}/login
"""
# A device has a home of its own, and nothing of the user's shell start-up files.
LOGIN = """#!/bin/sh
export HOME={folder}/home PATH={folder}/bin:/usr/bin:/bin {environment}
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
# The device's python3. While the file `vanish` is there, the making of an environment takes the
# device off the network half-way: its sshd, session and server, is killed.
PYTHON_HOOK = """#!/bin/sh
is_sshd() {{ case $(cat /proc/$pid/comm) in sshd*) return 0 ;; *) return 1 ;; esac; }}
parent() {{ sed 's/.*) . //; s/ .*//' /proc/$pid/stat; }}
if [ -e "{folder}/vanish" ] && [ "$1 $2" = "-m venv" ]; then
    rm "{folder}/vanish"
    pid=$PPID
    until is_sshd; do pid=$(parent); done
    while is_sshd; do
        above=$(parent)
        kill -9 $pid
        pid=$above
    done
fi
case "$1 $2" in "-m venv") set -- "$@" ${{VENV_OPTION:-}} ;; esac
exec "{python}" "$@"
"""
# The operating system has the packages and pip, so that nothing is installed and tests are quick.
ALL_THERE = f"PYTHONPATH={SITE_PACKAGES} VENV_OPTION=--without-pip"


def need(*programs):
    """Skip without the programs, except in CI, where skipping would hide that nothing ran."""
    missing = [p for p in programs if not shutil.which(p, path=f"{os.environ['PATH']}:/usr/sbin")]
    if missing:
        absent(f"{', '.join(missing)} missing: apt install openssh-server rsync iproute2")


def absent(message):
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


# --- Bundles ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def packed(exported, small_data, tmp_path_factory):
    """What the bundle of the tiny model holds: (files, manifest)."""
    dist = tmp_path_factory.mktemp("dist")
    run = run_stage("bundle", "--data", small_data, "--out", exported, "--dist", dist)
    assert run.returncode == 0, run.stderr
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        files = {m.name.partition("/")[2]: archive.extractfile(m).read() for m in archive}
    manifest = json.loads(files.pop("manifest.json"))
    del manifest["files"]
    return files, manifest


@pytest.fixture(scope="session")
def make_bundle(packed, tmp_path_factory):
    """Make a bundle of a version, with further files."""

    def make(version, further=None):
        files, manifest = packed
        path = tmp_path_factory.mktemp("bundle") / f"lenet5-edge-{version}.tar.gz"
        manifest = {**manifest, "version": version}
        write_bundle({**files, **(further or {})}, manifest, f"lenet5-edge-{version}", path)
        return path

    return make


@pytest.fixture(scope="session")
def bundle_1(make_bundle):
    return make_bundle("1.0.0")


@pytest.fixture(scope="session")
def bundle_2(make_bundle):
    return make_bundle("2.0.0")


def installed_wheels():
    """The packages of .venv-device as wheels again, so that no index is asked for them."""
    wheels = {}
    for package in distributions(path=[str(SITE_PACKAGES)]):
        if package.name in ("pip", "setuptools"):
            continue
        tag = re.search(r"^Tag: (.*)$", package.read_text("WHEEL"), re.MULTILINE)[1]
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
            for file in package.files:
                if ".." not in file.parts and "__pycache__" not in file.parts:
                    wheel.write(SITE_PACKAGES / file, file)
        name = package.name.replace("-", "_")
        wheels[f"wheels/{name}-{package.version}-{tag}.whl"] = stream.getvalue()
    return wheels


def damage(bundle, folder):
    """A copy of a bundle with one byte of the model changed, so that the manifest disagrees."""
    with tarfile.open(bundle) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    with (root / "golden.npz").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\0\1\2\3")
    damaged = folder / "damaged.tar.gz"
    with tarfile.open(damaged, "w:gz") as archive:
        archive.add(root, root.name)
    return damaged


# --- Devices ------------------------------------------------------------------------------------


class Device:
    """An sshd and its files; `lenet5` is where the versions go."""

    def __init__(self, folder, address, port, keys, environment="", namespace=None):
        self.folder, self.address, self.port = folder, address, port
        self.lenet5 = folder / "home" / "lenet5-edge"
        self.prefix = ["ip", "netns", "exec", namespace] if namespace else []
        self.process = None
        (folder / "bin").mkdir(parents=True)
        (folder / "home").mkdir()
        for name in ("key", "key.pub"):
            shutil.copy(keys / name, folder)
        python = subprocess.run(
            [DEVICE_PYTHON, "-c", "import sys; print(sys._base_executable)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name, text in (("bin/python3", PYTHON_HOOK), ("login", LOGIN)):
            text = text.format(folder=folder, python=python, environment=environment)
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        (folder / "sshd_config").write_text(
            SSHD_CONFIG.format(folder=folder, address=address, port=port)
        )

    def start(self):
        self.stop()
        command = [*self.prefix, SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
        probe = [*self.prefix, "ssh-keyscan", "-p", str(self.port), self.address]
        for _ in range(100):
            if subprocess.run(probe, capture_output=True).stdout:
                return
            time.sleep(0.05)
        pytest.fail((self.folder / "log").read_text())

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def wait_for_install(self):
        """Wait until no install.sh, and nothing started by it, holds the lock."""
        descriptor = os.open(self.lenet5 / "versions", os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.close(descriptor)

    def in_use(self):
        """The version that `current` leads to, such as "1.0.0"."""
        return (self.lenet5 / "current").resolve(strict=True).name.partition("-")[0]

    def versions(self):
        return sorted(path.name.partition("-")[0] for path in (self.lenet5 / "versions").iterdir())


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with a key pair, and `ssh` and `scp` that use it."""
    need("sshd", "ssh", "scp", "ssh-keygen", "rsync")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's, made at boot by its service
    folder = tmp_path_factory.mktemp("keys")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"]
    subprocess.run(command, check=True)
    (folder / "config").write_text(SSH_CONFIG.format(folder=folder))
    for name in ("ssh", "scp"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shutil.which(name)} -F {folder}/config "$@"\n')
        program.chmod(0o755)
    return folder


@pytest.fixture
def make_device(keys, tmp_path):
    devices = []

    def make(environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        device = Device(tmp_path / "device", "127.0.0.1", port, keys, environment)
        devices.append(device)
        device.start()
        return device

    yield make
    for device in devices:
        device.stop()


@pytest.fixture
def device(make_device):
    """A device whose operating system has the packages already."""
    return make_device(ALL_THERE)


@pytest.fixture
def deploy(keys):
    """Run tools/deploy.sh as `make deploy` does."""

    def run(bundle, device, path=os.environ["PATH"]):
        user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
        command = [
            ROOT / "tools" / "deploy.sh",
            bundle,
            f"{user}@{device.address}",
            str(device.port),
        ]
        environment = {**os.environ, "PATH": f"{keys}:{path}"}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run


# --- One device ---------------------------------------------------------------------------------


def test_deploy_installs_packed_wheels_without_an_index_and_again_changes_nothing(
    make_device, make_bundle, deploy, tmp_path
):
    device = make_device("PIP_INDEX_URL=http://127.0.0.1:9/")  # where nothing answers
    bundle = make_bundle("1.0.0", installed_wheels())
    run = deploy(bundle, device)
    assert run.returncode == 0, run.stderr
    assert "PASS\n1.0.0-" in run.stdout
    assert device.in_use() == "1.0.0"
    environment = (device.lenet5 / "current" / ".venv").resolve()
    for program in ("python", "python -m pip", "pip"):
        command = f"{environment}/bin/{program} --version"
        assert subprocess.run(command.split(), capture_output=True).returncode == 0
    assert list(environment.glob("lib/python3*/site-packages/numpy/__init__.py"))

    # The second time by scp, as where there is no rsync.
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("sh", "dirname", "mktemp", "rm"):
        (programs / name).symlink_to(shutil.which(name))
    before = (device.lenet5 / "current").resolve().stat()
    again = deploy(bundle, device, path=str(programs))
    assert again.returncode == 0, again.stderr
    assert "was in use already" in again.stdout
    assert (device.lenet5 / "current").resolve().stat().st_ino == before.st_ino


def test_a_version_that_does_not_verify_or_loses_the_connection_is_never_in_use(
    device, bundle_1, bundle_2, deploy, tmp_path
):
    assert deploy(bundle_1, device).returncode == 0

    run = deploy(damage(bundle_2, tmp_path / "unpacked"), device)
    assert run.returncode == 1
    assert "differs  golden.npz" in run.stderr
    last = run.stderr.splitlines()[-1]
    assert last.startswith("install: the bundle does not verify on this device; in use: versions/1")
    assert (device.in_use(), device.versions()) == ("1.0.0", ["1.0.0"])

    (device.folder / "vanish").touch()
    run = deploy(bundle_2, device)
    assert run.returncode == 1
    assert run.stderr.startswith("deploy: the connection to ")
    device.wait_for_install()
    assert (device.in_use(), device.versions()) == ("1.0.0", ["1.0.0"])


@pytest.mark.parametrize("system_has", ["numpy", "nothing"])
def test_without_a_wheel_for_the_device_the_compiled_c_is_verified_used_and_said(
    system_has, make_device, bundle_1, deploy, tmp_path
):
    need("gcc")  # the bundle has a binary for this machine
    packages = tmp_path / "packages"
    packages.mkdir()
    if system_has == "numpy":
        for path in SITE_PACKAGES.glob("numpy*"):
            if not path.name.endswith("-info"):  # pip does not count it as installed
                (packages / path.name).symlink_to(path)
    else:
        (packages / "numpy.py").write_text("raise ImportError('none here')")
    device = make_device(f"PIP_NO_INDEX=1 PYTHONPATH={packages}")
    run = deploy(bundle_1, device)
    assert run.returncode == 0, run.stderr
    assert "no packages for this machine and its Python: ERROR: No matching" in run.stdout
    current = device.lenet5 / "current"
    if system_has == "numpy":
        assert "using the compiled C of native/ in runner.py" in run.stdout
        assert re.search(r"^ok +native/lenet5_int8.c on native \w+\nPASS$", run.stdout, re.M)
        assert (current / ".venv").is_dir()
    else:
        assert "using the command lenet5 (native/" in run.stdout
        assert re.search(r"^256 of 256 outputs equal", run.stdout, re.M)
        assert not (current / ".venv").exists()
        command = [current / "lenet5", "--verify", current / "native" / "golden.bin"]
        assert subprocess.run(command, capture_output=True).returncode == 0
    again = deploy(bundle_1, device)
    assert again.returncode == 0, again.stderr
    assert "was in use already" in again.stdout


def test_compiled_c_that_answers_otherwise_here_is_not_used(
    make_device, make_bundle, packed, deploy, tmp_path
):
    need("gcc")
    (tmp_path / "numpy.py").write_text("raise ImportError('none here')")
    device = make_device(f"PIP_NO_INDEX=1 PYTHONPATH={tmp_path}")
    golden = bytearray(packed[0]["native/golden.bin"])
    golden[-1] ^= 1  # of the last output
    run = deploy(make_bundle("1.0.0", {"native/golden.bin": bytes(golden)}), device)
    assert run.returncode == 1
    assert "255 of 256 outputs equal" in run.stderr
    assert "install: the bundle does not verify on this device; in use: nothing" in run.stderr
    assert device.versions() == []


def test_an_index_that_does_not_answer_is_no_reason_to_do_without_packages(
    make_device, bundle_1, deploy
):
    device = make_device("PIP_INDEX_URL=http://127.0.0.1:9/ PIP_RETRIES=1")
    run = deploy(bundle_1, device)
    assert run.returncode == 1
    assert "install: cannot install the packages" in run.stderr
    assert device.versions() == []


def test_bench_pi_brings_the_devices_figures_and_after_ctrl_c_those_until_then(
    device, bundle_1, deploy, keys, tmp_path
):
    assert deploy(bundle_1, device).returncode == 0
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    result = tmp_path / "bench-pi.json"
    command = [ROOT / "tools" / "bench-pi.sh", f"{user}@{device.address}", str(device.port)]

    def start():
        return subprocess.Popen(
            [*command, "lenet5-edge", result],
            env={**os.environ, "PATH": f"{keys}:{os.environ['PATH']}"},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # its own foreground, as on a terminal
        )

    process = start()
    for line in process.stderr:
        if re.search(r"1 thread (\d+)/\1 ", line):
            break
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    interrupted = tmp_path / "bench-pi-interrupted.json"
    assert said.splitlines()[-1].endswith(f"the figures until then are in {interrupted}")
    (row, *_) = json.loads(interrupted.read_text())["rows"]
    assert row["status"] == "ok"
    assert not result.exists()

    process = start()
    _, said = process.communicate()
    assert process.returncode == 0, said
    rows = json.loads(result.read_text())["rows"]
    single = {(r["artifact"], r["runtime"]) for r in rows if r["threads"] == r["batch"] == 1}
    assert ("lenet5_int8.tflite", "tflite-runtime") in single
    assert {r["status"] for r in rows} == {"ok"}
    shown = run_stage("bench", "--show", result)
    assert shown.returncode == 0, shown.stderr
    assert "For the shortest time an image on this machine ship" in shown.stdout
    assert not (device.lenet5 / "bench.pid").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Makefile", ""], "name a device: make deploy PI=user@host"),
        (["Makefile", "pi@host", "abc"], "PORT=abc: not a number"),
        (["Makefile", "-oProxyCommand=x"], "PI=-oProxyCommand=x: not user@host"),
        (["Makefile", "pi@host", "22", "a; rm b"], "DIR=a; rm b: use letters, digits"),
        (["absent.tar.gz", "pi@host"], "no bundle absent.tar.gz; make it with: make export"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(arguments, message):
    command = [ROOT / "tools" / "deploy.sh", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith(f"deploy: {message}")
    assert run.stderr.count("\n") == 1


# --- By hand ------------------------------------------------------------------------------------


def install(*arguments, path=os.environ["PATH"]):
    command = ["/bin/sh", INSTALL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": path})


def test_a_truncated_bundle_is_refused_before_anything_is_made(bundle_1, tmp_path):
    short = tmp_path / "short.tar.gz"
    short.write_bytes(bundle_1.read_bytes()[:100_000])
    run = install(short, tmp_path / "home")
    assert run.returncode == 2
    assert run.stderr == (
        f"install: {short}: not a bundle of lenet5-edge, or damaged; copy it again\n"
    )
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("content", [b"", b"not a bundle"])
def test_what_is_no_bundle_is_exit_2(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    run = install(tmp_path / "file", tmp_path / "home")
    assert run.returncode == 2
    assert "not a bundle of lenet5-edge, or damaged" in run.stderr
    assert not (tmp_path / "home").exists()


def test_a_folder_that_cannot_be_made_is_one_line_and_exit_1(bundle_1, tmp_path):
    run = install(bundle_1, bundle_1 / "home")
    assert run.returncode == 1
    assert run.stderr.endswith("cannot be written; make it writable or name another DIR\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DIR"], "name a DIR to install to"),  # DIR is empty, HOME not set
        ([], "name a DIR to install to"),
    ],
)
def test_without_a_folder_nothing_is_installed_anywhere(bundle_1, arguments, message):
    run = install(bundle_1, *("" for _ in arguments))
    assert run.returncode == 2
    assert run.stderr == f"install: {message}\n"


def test_current_that_is_no_link_is_left_alone(bundle_1, tmp_path):
    (tmp_path / "current").mkdir()
    run = install(bundle_1, tmp_path)
    assert run.returncode == 1
    assert run.stderr == f"install: {tmp_path}/current: not a link; move it away\n"
    assert list((tmp_path / "versions").iterdir()) == []


def test_no_python_says_what_to_install(bundle_1, tmp_path):
    for name in ("realpath", "tar", "gzip", "head", "cut", "sha256sum"):
        (tmp_path / name).symlink_to(shutil.which(name))
    run = install(bundle_1, tmp_path / "home", path=str(tmp_path))
    assert run.returncode == 1
    assert "apt install python3-venv" in run.stderr


# --- A fleet ------------------------------------------------------------------------------------


class Fleet:
    """Three devices, each in a network namespace, and one more namespace to deploy from."""

    def __init__(self, keys, folder):
        self.keys = keys
        self.home = Path(tempfile.mkdtemp())  # short: ssh's sockets are limited to 104 characters
        self.inventory = folder / "hosts.ini"
        name = f"lenet5-{os.getpid()}"
        self.namespaces = [f"{name}-{i}" for i in range(4)]
        self.devices = [
            Device(
                folder / f"pi{i}",
                f"10.77.{i}.2",
                22,
                keys,
                ALL_THERE,
                self.namespaces[i],
            )
            for i in (1, 2, 3)
        ]
        self.inventory.write_text(
            "".join(f"pi{i} ansible_host={d.address}\n" for i, d in enumerate(self.devices, 1))
        )

    def start(self):
        for namespace in self.namespaces:
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        here = self.namespaces[0]
        for i, there in enumerate(self.namespaces[1:], 1):
            ip("-n", here, "link", "add", f"pi{i}", "type", "veth", "peer", "eth0", "netns", there)
            for namespace, link, host in ((here, f"pi{i}", 1), (there, "eth0", 2)):
                ip("-n", namespace, "address", "add", f"10.77.{i}.{host}/30", "dev", link)
                ip("-n", namespace, "link", "set", link, "up")
        for device in self.devices:
            device.start()

    def stop(self):
        for namespace in self.namespaces:
            pids = subprocess.run(
                ["ip", "netns", "pids", namespace], capture_output=True, text=True
            )
            for pid in pids.stdout.split():
                subprocess.run(["kill", "-9", pid], capture_output=True)
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)
        for device in self.devices:
            device.stop()
        shutil.rmtree(self.home)

    def deploy(self, bundle, *flags):
        """Run tools/fleet.sh as `make deploy INVENTORY=...` does."""
        command = [*self.devices[0].prefix[:3], self.namespaces[0], ROOT / "tools" / "fleet.sh"]
        environment = {
            **os.environ,
            "PATH": f"{self.keys}:{os.environ['PATH']}",
            "ANSIBLE_HOME": str(self.home),
        }
        return subprocess.run(
            [*command, bundle, self.inventory, *flags],
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    def in_use(self):
        return [device.in_use() for device in self.devices]


def ip(*arguments):
    run = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if run.returncode:
        absent(f"no network namespaces here (ip {' '.join(arguments)}: {run.stderr.strip()})")


def recap(run):
    """Ansible's last lines: {device: {"ok": 4, "changed": 0, ...}}."""
    rows = re.findall(r"^(pi\d) +: (.*)$", run.stdout, re.MULTILINE)
    return {name: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row)} for name, row in rows}


@pytest.fixture
def fleet(keys, tmp_path):
    need("ip")
    if not (ROOT / ".venv-fleet" / "bin" / "ansible-playbook").exists():
        absent("ansible-playbook missing: make .venv-fleet/.installed")
    fleet = Fleet(keys, tmp_path)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


ALL_AT_ONCE = ("-e", "lenet5_edge_serial=3", "-e", "lenet5_edge_max_fail_percentage=50")


def test_fleet_check_succeeds_on_fresh_devices_and_changes_nothing(fleet, bundle_1):
    run = fleet.deploy(bundle_1, *ALL_AT_ONCE, "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert set(recap(run)) == {"pi1", "pi2", "pi3"}
    assert not any(device.lenet5.exists() for device in fleet.devices)


def test_fleet_deployment_stops_after_a_batch_in_which_too_many_failed(fleet, bundle_1, tmp_path):
    short = tmp_path / "short.tar.gz"
    short.write_bytes(bundle_1.read_bytes()[:100_000])
    run = fleet.deploy(short)  # a quarter of the devices at once, and a quarter may fail
    assert run.returncode == 1
    assert "not a bundle of lenet5-edge, or damaged" in run.stdout
    assert recap(run)["pi1"]["failed"] == 1
    assert [device.lenet5.exists() for device in fleet.devices] == [True, False, False]


def test_device_killed_half_way_keeps_its_version_the_others_finish_and_a_later_run_repairs_it(
    fleet, bundle_1, bundle_2
):
    run = fleet.deploy(bundle_1, *ALL_AT_ONCE)
    assert run.returncode == 0, run.stdout + run.stderr
    assert fleet.in_use() == ["1.0.0"] * 3

    killed = fleet.devices[1]
    (killed.folder / "vanish").touch()
    run = fleet.deploy(bundle_2, *ALL_AT_ONCE)
    assert run.returncode == 1
    assert recap(run)["pi2"]["unreachable"] == 1
    killed.wait_for_install()
    assert fleet.in_use() == ["2.0.0", "1.0.0", "2.0.0"]

    killed.start()
    repaired = fleet.deploy(bundle_2, *ALL_AT_ONCE)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    changed = {name: row["changed"] for name, row in recap(repaired).items()}
    assert changed == {"pi1": 0, "pi2": 1, "pi3": 0}  # its bundle was copied the first time
    assert fleet.in_use() == ["2.0.0"] * 3
    assert killed.versions() == ["1.0.0", "2.0.0"]
