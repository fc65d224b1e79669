"""Deployment for real: a "device" is an sshd on loopback with a folder of its own."""

import hashlib
import re
import shutil
import subprocess
import time

import pytest
from deploy_helpers import environment, make_fake_bundle, refused
from helpers import ROOT, run_program, write_script


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
    (device.home / "versions").mkdir(parents=True)
    with device.locked():  # until both are there
        runs = [device.start_deploy(bundle) for bundle in bundles[:2]]
        for _ in range(1200):
            if len(list(device.home.glob("bundle-*.tar.gz"))) == 2:
                break
            time.sleep(0.05)
        time.sleep(0.5)
    for run, bundle in zip(runs, bundles, strict=False):
        stdout, stderr = run.communicate()
        digest = hashlib.sha256(bundle.read_bytes()).hexdigest()[:12]
        assert f"-{digest} is in use now" in stdout
        assert run.returncode in (0, 1)
        if run.returncode == 1:
            assert re.search(r"another deployment has put \S+ into use$", stderr)
            assert not (device.home / "current").resolve().name.endswith(digest)
    assert 0 in [run.returncode for run in runs]
    assert device.versions() == ["1.0.0", "2.0.0"]


def test_a_version_that_another_deployment_has_replaced_meanwhile_is_exit_1(device, bundles):
    assert device.deploy(bundles[0]).returncode == 0
    first = (device.home / "current").readlink()
    device.command("sync", f"ln -sfn {first} {device.home}/current")  # the last thing that is done
    run = device.deploy(bundles[1])
    assert run.returncode == 1
    assert run.stderr.endswith(f": another deployment has put {first.name} into use\n")


def test_the_devices_receipt_comes_here_whole_or_not_at_all(device, bundles, tmp_path):
    (tmp_path / "parity.json").write_text('{"status": "pass", "rows": []}')
    receipt = tmp_path / "devices" / "127.0.0.1.json"
    assert device.deploy(bundles[0], ARTIFACTS=str(tmp_path)).returncode == 0
    assert (receipt.read_text(), receipt.stat().st_mode & 0o777) == ("{}", 0o644)
    runner = b"open(__file__[:-9] + 'device.json', 'w').write('{')\nprint('PASS')"
    bundle = make_fake_bundle(tmp_path, "2.0.0", {"runner.py": runner})
    run = device.deploy(bundle, ARTIFACTS=str(tmp_path))
    assert run.returncode == 1
    assert "the bundle is in use there, but its device.json did not come" in run.stderr
    assert [path.read_text() for path in receipt.parent.iterdir()] == ["{}"]


def test_what_was_cut_off_on_the_way_is_sent_again(device, bundles):
    digest = hashlib.sha256(bundles[0].read_bytes()).hexdigest()[:12]
    device.home.mkdir()
    sent = device.home / f"bundle-{digest}.tar.gz"
    device.command("cat", "head -c 100")  # a lost connection looks like the end of the file
    run = device.deploy(bundles[0])
    assert run.returncode == 1
    assert run.stderr.endswith("failed; deploy again\n")
    assert list(device.home.iterdir()) == []
    (device.bin / "cat").unlink()
    sent.write_bytes(bundles[0].read_bytes()[:100])
    run = device.deploy(bundles[0])
    assert run.returncode == 0, run.stderr
    assert sent.read_bytes() == bundles[0].read_bytes()


def test_the_signature_goes_with_the_bundle(device, bundles, keys, tmp_path):
    device.home.mkdir()
    signer = f"me@home {(keys / 'key.pub').read_text()}"
    (device.home / "allowed_signers").write_text(signer)
    bundle = shutil.copy(bundles[0], tmp_path)
    run = device.deploy(bundle)
    assert run.returncode == 2
    assert "sign it with: make bundle SIGN=KEYFILE" in run.stderr
    assert not (device.home / "versions").exists()
    subprocess.run([ROOT / "tools/sign.sh", bundle, keys / "key"], check=True, capture_output=True)
    run = device.deploy(bundle)
    assert run.returncode == 0, run.stderr
    assert device.in_use() == "1.0.0"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("deploy", ["absent.tar.gz", "pi@host"], "no bundle absent.tar.gz; make it with: make"),
        ("deploy", ["Makefile", ""], "name a device: make deploy PI=user@host"),
        *(
            ("deploy", ["Makefile", pi], f"PI={pi}: not user@host")
            for pi in ("-oProxyCommand=x", "@", "pi@", "@host", "a@b@c", "pi@../x", "pi@h; a")
        ),
        ("deploy", ["Makefile", "pi@host", "abc"], "PORT=abc: not a number"),
        *(
            ("deploy", ["Makefile", "pi@host", port], f"PORT={port}: not a port")
            for port in ("99999", "0", "9" * 20)
        ),
        *(
            ("deploy", ["Makefile", "pi@host", "22", folder], f"DIR={folder}: use letters, digits")
            for folder in ("a; rm b", "-x")
        ),
        ("bench-pi", ["", "22", "d", "r.json"], "name a device: make bench-pi PI=user@host"),
        ("bench-pi", ["pi@host", "22", "d", "r.json", "--evil"], "FLAGS=--evil: there is only"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(tool, arguments, message):
    run = run_program(ROOT / "tools" / f"{tool}.sh", *arguments, cwd=ROOT)
    assert run.returncode == 2
    assert run.stderr.startswith(f"{tool}: {message}")
    assert run.stderr.count("\n") == 1


def test_a_device_that_cannot_be_reached_is_one_line_and_exit_1(tmp_path):
    write_script(tmp_path / "ssh", "exit 255")
    words = (ROOT / "tools" / "deploy.sh", "Makefile", "pi@host")
    run = run_program(*words, cwd=ROOT, env=environment(tmp_path))
    refused(run, 1, "pi@host cannot be reached; nothing was changed", by="deploy")


@pytest.mark.parametrize("name", ["RUNTIMES", "SERVICE"])
def test_a_setting_that_would_be_a_command_on_the_device_is_exit_2(name, tmp_path):
    words = (ROOT / "tools" / "deploy.sh", "Makefile", "pi@host")
    run = run_program(*words, cwd=ROOT, env=environment(tmp_path, **{name: "1;a"}))
    assert run.returncode == 2
    assert f"{name}=1;a" in run.stderr
