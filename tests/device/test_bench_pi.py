"""bench-pi: the benchmark of a device brings its figures here, whatever ends it."""

import json
import os
import signal
import subprocess
import time

import pytest
from deploy_helpers import USER, environment, refused
from helpers import ROOT, run_program, write_script


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
        if (device.home / "current" / "interrupted").exists():
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
        ("{}", 255, 1, {"r.json": "earlier"}),
    ],
)
def test_bench_pi_keeps_what_the_device_answered(answer, remote_code, code, files, tmp_path):
    bench = f"*'bench --json --full'*) printf %s '{answer}'; exit {remote_code} ;;"
    write_script(tmp_path / "bin" / "ssh", f'case "$*" in {bench} esac')
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "r.json").write_text("earlier")
    words = (ROOT / "tools" / "bench-pi.sh", "pi@host", "22", "d", folder / "r.json", "--full")
    run = run_program(*words, env=environment(tmp_path / "bin"))
    assert run.returncode == code
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert len(run.stderr.splitlines()) == (code != 0)


def test_without_a_bundle_there_it_says_what_to_do(tmp_path):
    write_script(tmp_path / "ssh", "case \"$*\" in *'test -x'*) exit 1 ;; esac")
    words = (ROOT / "tools" / "bench-pi.sh", "pi@host", "22", "d", tmp_path / "results" / "r.json")
    run = run_program(*words, env=environment(tmp_path))
    refused(run, 1, "no bundle installed in d: make deploy PI=pi@host", by="bench-pi")
    assert not (tmp_path / "results").exists()
