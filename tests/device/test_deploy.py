"""Deployment for real: a "device" is an sshd on loopback with a folder of its own."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from deploy_helpers import make_fake_bundle, write_commands, write_os_packages
from helpers import ROOT, absent, need, write_script

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


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Small bundles of version 1.0.0 and 2.0.0."""
    folder = tmp_path_factory.mktemp("bundles")
    return [make_fake_bundle(folder, f"{n}.0.0") for n in (1, 2)]


# --- Devices ------------------------------------------------------------------------------------


class Device:
    """An sshd and its files; `lenet5` is where the versions go."""

    def __init__(self, folder, keys):
        self.folder, self.keys = folder, keys
        self.lenet5 = folder / "home" / "lenet5-edge"
        self.process = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "home").mkdir(parents=True)
        for name in ("key", "key.pub"):
            shutil.copy(keys / name, folder)
        write_commands(folder / "bin", folder)
        write_os_packages(folder / "packages")
        write_script(folder / "login", LOGIN.format(folder=folder))
        (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder, port=self.port))

    def start(self):
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
        descriptor = os.open(self.lenet5 / "versions", os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def wait_for_install(self):
        """Wait until no install.sh, and nothing started by it, holds the lock."""
        with self.locked():
            pass

    def start_deploy(self, bundle):
        """Start tools/deploy.sh as `make deploy` does."""
        return subprocess.Popen(
            [ROOT / "tools/deploy.sh", bundle, f"{USER}@127.0.0.1", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(self.keys),
        )

    def deploy(self, bundle):
        """Run it to its end."""
        process = self.start_deploy(bundle)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr)

    def in_use(self):
        """The version that `current` leads to, such as "1.0.0"."""
        return (self.lenet5 / "current").resolve(strict=True).name.partition("-")[0]

    def versions(self):
        return sorted(path.name.partition("-")[0] for path in (self.lenet5 / "versions").iterdir())


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with a key pair, and an `ssh` that uses it."""
    need("sshd", "ssh", "ssh-keygen")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's, made at boot by its service
    folder = tmp_path_factory.mktemp("keys")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"]
    subprocess.run(command, check=True)
    (folder / "config").write_text(SSH_CONFIG.format(folder=folder))
    write_script(folder / "ssh", f'exec {shutil.which("ssh")} -F {folder}/config "$@"')
    return folder


def environment(folder, **more):
    """With the `ssh` of a folder."""
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **more}


@pytest.fixture
def make_device(keys, tmp_path):
    devices = []

    def make(name):
        device = Device(tmp_path / name, keys)
        devices.append(device)
        device.start()
        return device

    yield make
    for device in devices:
        device.stop()


@pytest.fixture
def device(make_device):
    return make_device("device")


# --- One device ---------------------------------------------------------------------------------


def test_when_the_connection_is_lost_the_version_before_stays_in_use(device, bundles):
    assert device.deploy(bundles[0]).returncode == 0
    (device.folder / "vanish").touch()
    run = device.deploy(bundles[1])
    assert run.returncode == 1
    assert run.stderr.startswith("deploy: the connection to ")
    device.wait_for_install()
    assert (device.in_use(), device.versions()) == ("1.0.0", ["1.0.0"])


def test_a_bundle_that_does_not_verify_is_exit_1(device, tmp_path):
    run = device.deploy(make_fake_bundle(tmp_path, further={"answer": b"FAIL"}))
    assert run.returncode == 1
    assert "install: the bundle does not verify on this device; in use: nothing" in run.stderr


def test_of_two_deployments_at_once_each_says_truly_what_became_of_its_version(device, bundles):
    (device.lenet5 / "versions").mkdir(parents=True)
    with device.locked():  # until both are there
        runs = [device.start_deploy(bundle) for bundle in bundles]
        while len(list(device.lenet5.glob("bundle-*.tar.gz"))) < 2:
            time.sleep(0.05)
        time.sleep(0.5)
    for run, bundle in zip(runs, bundles, strict=True):
        stdout, stderr = run.communicate()
        digest = hashlib.sha256(bundle.read_bytes()).hexdigest()[:12]
        assert f"-{digest} is in use now" in stdout
        assert run.returncode in (0, 1)
        if run.returncode == 1:
            assert re.search(r"another deployment has put \S+ into use$", stderr)
            assert not (device.lenet5 / "current").resolve().name.endswith(digest)
    assert 0 in [run.returncode for run in runs]
    assert device.versions() == ["1.0.0", "2.0.0"]


def test_what_was_cut_off_on_the_way_is_sent_again(device, bundles):
    digest = hashlib.sha256(bundles[0].read_bytes()).hexdigest()[:12]
    device.lenet5.mkdir()
    sent = device.lenet5 / f"bundle-{digest}.tar.gz"
    sent.write_bytes(bundles[0].read_bytes()[:100])
    run = device.deploy(bundles[0])
    assert run.returncode == 0, run.stderr
    assert sent.read_bytes() == bundles[0].read_bytes()


def test_the_signature_goes_with_the_bundle(device, bundles, keys, tmp_path):
    device.lenet5.mkdir()
    signer = f"me@home {(keys / 'key.pub').read_text()}"
    (device.lenet5 / "allowed_signers").write_text(signer)
    bundle = shutil.copy(bundles[0], tmp_path)
    run = device.deploy(bundle)
    assert run.returncode == 2
    assert "sign it with: make bundle SIGN=KEYFILE" in run.stderr
    assert not (device.lenet5 / "versions").exists()
    subprocess.run([ROOT / "tools/sign.sh", bundle, keys / "key"], check=True, capture_output=True)
    run = device.deploy(bundle)
    assert run.returncode == 0, run.stderr
    assert device.in_use() == "1.0.0"


# --- Its benchmark ------------------------------------------------------------------------------


@pytest.fixture
def start_bench(device, bundles, keys, tmp_path):
    """Start tools/bench-pi.sh on a device with a bundle, and wait for its first progress."""
    assert device.deploy(bundles[0]).returncode == 0

    def start(*flags):
        command = [ROOT / "tools/bench-pi.sh", f"{USER}@127.0.0.1", str(device.port)]
        process = subprocess.Popen(
            [*command, "lenet5-edge", tmp_path / "bench-pi.json", *flags],
            env=environment(keys),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # its own foreground, as on a terminal
        )
        assert process.stderr.readline() == "1 of 2 timed\n"
        return process

    return start


def test_bench_pi_brings_the_devices_figures_and_ends(start_bench, tmp_path):
    process = start_bench("--full")
    _, said = process.communicate()
    assert (process.returncode, said) == (0, "")
    assert json.loads((tmp_path / "bench-pi.json").read_text()) == {"interrupted": False}


def test_ctrl_c_brings_the_figures_until_then_and_leaves_the_result_alone(start_bench, tmp_path):
    (tmp_path / "bench-pi.json").write_text("{}")
    process = start_bench()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130, said
    interrupted = tmp_path / "bench-pi-interrupted.json"
    assert said.splitlines()[-1].endswith(f"the figures until then are in {interrupted}")
    assert json.loads(interrupted.read_text()) == {"interrupted": True}
    assert (tmp_path / "bench-pi.json").read_text() == "{}"
    assert len(list(tmp_path.glob("bench-pi*"))) == 2


def test_the_benchmark_there_is_interrupted_when_the_script_here_is_killed(start_bench, device):
    process = start_bench()
    process.kill()
    process.communicate()
    for _ in range(1200):
        if (device.lenet5 / "current" / "interrupted").exists():
            return
        time.sleep(0.05)
    pytest.fail("it is still running")


@pytest.mark.parametrize(
    ("answer", "remote_code", "code", "files"),
    [
        ("{}", 0, 0, {"r.json": "{}"}),
        ("{}", 130, 130, {"r.json": "earlier", "r-interrupted.json": "{}"}),
        ("{", 130, 130, {"r.json": "earlier"}),
        ("{}", 1, 1, {"r.json": "{}"}),
        ("{", 0, 1, {"r.json": "earlier"}),
        ("", 255, 1, {"r.json": "earlier"}),
    ],
)
def test_bench_pi_keeps_what_the_device_answered(answer, remote_code, code, files, tmp_path):
    bench = f"*'bench --json --full'*) printf %s '{answer}'; exit {remote_code} ;;"
    write_script(tmp_path / "bin" / "ssh", f'case "$*" in {bench} esac')
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "r.json").write_text("earlier")
    run = subprocess.run(
        [ROOT / "tools" / "bench-pi.sh", "pi@host", "22", "d", folder / "r.json", "--full"],
        env=environment(tmp_path / "bin"),
        capture_output=True,
        text=True,
    )
    assert run.returncode == code
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert len(run.stderr.splitlines()) == (code != 0)


# --- Bad usage ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("deploy", ["absent.tar.gz", "pi@host"], "no bundle absent.tar.gz; make it with: make"),
        ("deploy", ["Makefile", ""], "name a device: make deploy PI=user@host"),
        *(
            ("deploy", ["Makefile", pi], f"PI={pi}: not user@host")
            for pi in ("-oProxyCommand=x", "@", "pi@", "@host")
        ),
        ("deploy", ["Makefile", "pi@host", "abc"], "PORT=abc: not a number"),
        *(
            ("deploy", ["Makefile", "pi@host", port], f"PORT={port}: not a port")
            for port in ("99999", "0", "9" * 20)
        ),
        ("deploy", ["Makefile", "pi@host", "22", "a; rm b"], "DIR=a; rm b: use letters, digits"),
        ("bench-pi", ["", "22", "d", "r.json"], "name a device: make bench-pi PI=user@host"),
        ("bench-pi", ["pi@host", "22", "d", "r.json", "--evil"], "FLAGS=--evil: there is only"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(tool, arguments, message):
    command = [ROOT / "tools" / f"{tool}.sh", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith(f"{tool}: {message}")
    assert run.stderr.count("\n") == 1


# --- A fleet ------------------------------------------------------------------------------------


class Fleet:
    """Several devices, their inventory, and a home for Ansible."""

    def __init__(self, devices, keys, inventory):
        self.devices, self.keys, self.inventory = devices, keys, inventory
        self.home = Path(tempfile.mkdtemp())  # short: ssh's sockets are limited to 104 characters
        ports = {f"pi{i}": device.port for i, device in enumerate(devices, 1)}
        rows = [f"{pi} ansible_host=127.0.0.1 ansible_port={port}\n" for pi, port in ports.items()]
        inventory.write_text("".join(rows))

    def stop(self):
        for connection in self.home.glob("connections/*"):  # kept open for the next run
            command = ["ssh", "-o", f"ControlPath={connection}", "-O", "exit", "127.0.0.1"]
            subprocess.run(command, capture_output=True)
        shutil.rmtree(self.home)

    def deploy(self, bundle, *flags):
        """Run tools/fleet.sh as `make deploy INVENTORY=...` does."""
        home = {"ANSIBLE_HOME": str(self.home)}
        home["ANSIBLE_SSH_CONTROL_PATH_DIR"] = str(self.home / "connections")
        return subprocess.run(
            [ROOT / "tools" / "fleet.sh", bundle, self.inventory, *flags],
            capture_output=True,
            text=True,
            env=environment(self.keys, **home),
            stdin=subprocess.DEVNULL,
        )

    def in_use(self):
        return [device.in_use() for device in self.devices]


def recap(run):
    """Ansible's last lines: {device: {"ok": 4, "changed": 0, ...}}."""
    rows = re.findall(r"^(pi\d) +: (.*)$", run.stdout, re.MULTILINE)
    return {name: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", row)} for name, row in rows}


@pytest.fixture
def ansible():
    if not (ROOT / ".venv-fleet" / "bin" / "ansible-playbook").exists():
        absent("ansible-playbook missing: make .venv-fleet/.installed")


@pytest.fixture
def fleet(ansible, make_device, keys, tmp_path):
    devices = [make_device(name) for name in ("pi1", "pi2", "pi3")]
    fleet = Fleet(devices, keys, tmp_path / "hosts.ini")
    yield fleet
    fleet.stop()


ALL_AT_ONCE = ("-e", "lenet5_edge_serial=3", "-e", "lenet5_edge_max_fail_percentage=50")


def test_fleet_check_succeeds_on_fresh_devices_and_changes_nothing(fleet, bundles):
    run = fleet.deploy(bundles[0], *ALL_AT_ONCE, "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert set(recap(run)) == {"pi1", "pi2", "pi3"}
    assert not any(device.lenet5.exists() for device in fleet.devices)


def test_an_inventory_without_a_device_is_exit_2(ansible, bundles, tmp_path):
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("# none yet\n[pis]\n")
    command = [ROOT / "tools" / "fleet.sh", bundles[0], inventory]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    last = run.stderr.splitlines()[-1]
    assert last == f"deploy: {inventory}: names no device; write one a line: pi@host"
    assert run.stdout == ""


def test_fleet_deployment_stops_after_a_batch_in_which_too_many_failed(fleet, bundles, tmp_path):
    short = tmp_path / "short.tar.gz"
    short.write_bytes(bundles[0].read_bytes()[:-100])
    run = fleet.deploy(short)  # a quarter of the devices at once, and a quarter may fail
    assert run.returncode == 1
    assert "not a bundle of lenet5-edge, or damaged" in run.stdout
    assert recap(run)["pi1"]["failed"] == 1
    assert [device.lenet5.exists() for device in fleet.devices] == [True, False, False]


def test_device_killed_half_way_keeps_its_version_the_others_finish_and_a_later_run_repairs_it(
    fleet, bundles, tmp_path
):
    odd = tmp_path / 'it\'s a "{{ folder }}" {% of %} $HOME `mine`'
    odd.mkdir()
    run = fleet.deploy(shutil.copy(bundles[0], odd), *ALL_AT_ONCE)
    assert run.returncode == 0, run.stdout + run.stderr
    assert fleet.in_use() == ["1.0.0"] * 3

    killed = fleet.devices[1]
    (killed.folder / "vanish").touch()
    run = fleet.deploy(bundles[1], *ALL_AT_ONCE)
    assert run.returncode == 1
    assert recap(run)["pi2"]["unreachable"] == 1
    killed.wait_for_install()
    assert fleet.in_use() == ["2.0.0", "1.0.0", "2.0.0"]

    killed.start()
    repaired = fleet.deploy(bundles[1], *ALL_AT_ONCE)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    changed = {name: row["changed"] for name, row in recap(repaired).items()}
    assert changed == {"pi1": 0, "pi2": 1, "pi3": 0}  # its bundle was copied the first time
    assert fleet.in_use() == ["2.0.0"] * 3
    assert killed.versions() == ["1.0.0", "2.0.0"]
