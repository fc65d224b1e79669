"""make deploy INVENTORY=...: Ansible deploys to several devices, a part of them at a time."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from deploy_helpers import environment
from helpers import ROOT, absent, run_program


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
        words = (ROOT / "tools" / "fleet.sh", bundle, self.inventory, *flags)
        options = {"env": environment(self.keys, **home), "stdin": subprocess.DEVNULL}
        return run_program(*words, **options)

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
    assert not any(device.home.exists() for device in fleet.devices)


def test_an_inventory_without_a_device_is_exit_2(ansible, bundles, tmp_path):
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("# none yet\n[pis]\n")
    run = run_program(ROOT / "tools" / "fleet.sh", bundles[0], inventory)
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
    assert [device.home.exists() for device in fleet.devices] == [True, False, False]


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

    killed.serve()
    repaired = fleet.deploy(bundles[1], *ALL_AT_ONCE)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    changed = {name: row["changed"] for name, row in recap(repaired).items()}
    assert changed == {"pi1": 0, "pi2": 1, "pi3": 0}  # its bundle was copied the first time
    assert fleet.in_use() == ["2.0.0"] * 3
    assert killed.versions() == ["1.0.0", "2.0.0"]
