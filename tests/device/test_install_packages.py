"""install.sh and pip: the locked packages and no others, or the compiled C without them."""

import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from deploy_helpers import SITE_PACKAGES, installed, lock, make_fake_bundle, repack

RECEIPT = ["schema_version", "board", "system", "python", "time", "bundle_sha256", "throttled"]
RECEIPT += ["rows", "choice"]
RECEIPT_ROW = ["artifact", "runtime", "runtime_version", "sha256", "verified", "reason"]
RECEIPT_ROW += ["latency_us", "invoke_us"]

# --- Packages -----------------------------------------------------------------------------------


def wheel(name, code=b""):
    """(file name, content) of a wheel with one module."""
    stream, info = io.BytesIO(), f"{name}-1.0.dist-info"
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        tags = "Root-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\n{tags}")
        archive.writestr(f"{info}/RECORD", "")
    return f"wheels/{name}-1.0-py3-none-any.whl", stream.getvalue()


def bundle_of(folder, *packages, locked=None, needs="sys"):
    """A bundle of packages whose runner passes if it can import what it needs."""
    files = {"requirements.lock": lock(*packages) if locked is None else locked, **dict(packages)}
    runner = f"import {needs}\nprint('PASS')".encode()
    return make_fake_bundle(folder, further={"runner.py": runner, **files})


def modules(board):
    """The names of the modules in the environment."""
    folders = (board.home / "current" / ".venv").glob("lib/python3*/site-packages/*.py")
    return {path.stem for path in folders}


def test_with_runtimes_native_only_numpy_is_installed_and_without_it_the_rest_again(
    real_pip, tmp_path
):
    bundle = bundle_of(tmp_path, wheel("numpy"), wheel("runtime"))
    installed(real_pip, bundle, RUNTIMES="native")
    assert modules(real_pip) == {"numpy"}
    installed(real_pip, bundle)
    assert modules(real_pip) == {"numpy", "runtime"}


@pytest.mark.parametrize("case", ["another hash", "no hash"])
def test_a_package_without_the_hash_of_the_lock_file_is_not_installed(real_pip, tmp_path, case):
    name, content = wheel("runtime", code=f"open('{tmp_path}/ran', 'w')".encode())
    locked = b"runtime==1.0" if case == "no hash" else lock((name, content + b"x"))
    bundle = bundle_of(tmp_path, (name, content), locked=locked, needs="runtime")
    run = real_pip.install(bundle)
    assert run.returncode == 1
    assert "install: cannot install the packages, with " in run.stderr
    assert not (tmp_path / "ran").exists()
    assert real_pip.versions() == []


@pytest.fixture
def with_32_bits(real_pip):
    """A board whose Python says that it has 32 bits."""
    real_pip.before_each(["python3"], 'case "$*" in *calcsize*) echo 32 && exit ;; esac')
    return real_pip


def test_on_32_bits_the_runtime_is_installed_with_the_systems_numpy(with_32_bits, tmp_path):
    runtime = wheel("runtime")
    locked = lock(("wheels/numpy-1.26.4-py3-none-any.whl", b"none here"), runtime)
    (with_32_bits.packages / "numpy.py").touch()
    run = installed(with_32_bits, bundle_of(tmp_path, runtime, locked=locked, needs="runtime"))
    assert "no packages for" not in run.stdout
    assert modules(with_32_bits) == {"runtime"}


def test_on_32_bits_with_a_python_without_a_runtime_the_compiled_c_is_used_and_said(
    with_32_bits, tmp_path
):
    locked = lock(wheel("runtime")).replace(b" \\", b" ; python_full_version < '3' \\")
    run = installed(with_32_bits, bundle_of(tmp_path, locked=locked))
    assert ": none of requirements.lock is for it\ntrying the compiled C\nPASS\n" in run.stdout


def test_nothing_is_compiled_from_source(real_pip, tmp_path):
    backend = f"open('{tmp_path}/ran', 'w')\n"
    toml = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for file, text in (("pyproject.toml", toml), ("backend.py", backend), ("PKG-INFO", "")):
            info = tarfile.TarInfo(f"runtime-1.0/{file}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    sdist = ("wheels/runtime-1.0.tar.gz", stream.getvalue())
    # The runner is asked whether it can do without, with the compiled C: this one says so.
    run = installed(real_pip, bundle_of(tmp_path, sdist))
    assert not (tmp_path / "ran").exists()
    assert "in the bundle's wheels/: ERROR: No matching" in run.stdout


def test_an_index_that_does_not_answer_is_no_reason_to_do_without_packages(real_pip, tmp_path):
    bundle = bundle_of(tmp_path, locked=lock(("runtime-1.0-py3-none-any.whl", b"")))
    run = real_pip.install(bundle, PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="1")
    assert run.returncode == 1
    assert "install: cannot install the packages" in run.stderr
    assert real_pip.versions() == []


# --- The compiled C -----------------------------------------------------------------------------


def give_numpy(board):
    """As the operating system has it."""
    for path in SITE_PACKAGES.glob("numpy*"):
        if not path.name.endswith("-info"):  # pip does not count it as installed
            (board.packages / path.name).symlink_to(path)


@pytest.mark.parametrize("system_has", ["numpy", "nothing"])
def test_without_a_wheel_for_the_device_the_compiled_c_is_verified_used_and_said(
    system_has, real_pip, packed
):
    if system_has == "numpy":
        give_numpy(real_pip)
    run = installed(real_pip, packed, PIP_NO_INDEX="1")
    assert f"and Python {platform.python_version()}: ERROR: " in run.stdout
    current = real_pip.home / "current"
    if system_has == "numpy":
        assert "chosen: native/lenet5_int8.c on native\nPASS\n" in run.stdout
        assert (current / ".venv").is_dir()
    else:
        assert "using the command lenet5 (native/" in run.stdout
        assert re.search(r"^320 of 320 outputs equal", run.stdout, re.M)
        assert not (current / ".venv").exists()
        command = [current / "lenet5", "--verify", current / "native" / "golden.bin"]
        assert subprocess.run(command, capture_output=True).returncode == 0
    receipt = json.loads((current / "device.json").read_text())
    assert list(receipt) == RECEIPT
    assert all(list(row) == RECEIPT_ROW for row in receipt["rows"])
    assert receipt["bundle_sha256"] == hashlib.sha256(packed.read_bytes()).hexdigest()
    assert receipt["choice"] == {"artifact": "native/lenet5_int8.c", "runtime": "native"}
    assert "was in use already" in installed(real_pip, packed, PIP_NO_INDEX="1").stdout
    if system_has == "nothing":
        home = {"HOME": str(real_pip.folder), "SERVICE": "1"}
        run = real_pip.install(packed, PIP_NO_INDEX="1", **home)
        assert "install: a service needs numpy: apt install python3-numpy" in run.stderr


def in_last_output(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def in_last_probability(content):
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    arrays["native/lenet5_int8.c"][-1, 0] += 1 / 256
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("native/golden.bin", in_last_output, "319 of 320 outputs equal"),
        ("golden.npz", in_last_probability, "not used: probabilities differ by 0.0039"),
    ],
)
def test_compiled_c_that_answers_otherwise_here_is_not_used(
    file, change, said, real_pip, packed, tmp_path
):
    if file == "golden.npz":
        give_numpy(real_pip)
    with tarfile.open(packed) as archive:
        name = f"{packed.name.removesuffix('.tar.gz')}/{file}"
        content = archive.extractfile(name).read()
    run = real_pip.install(repack(packed, tmp_path, {file: change(content)}), PIP_NO_INDEX="1")
    assert run.returncode == 1
    assert said in run.stderr
    assert "install: the bundle does not verify on this device; in use: nothing" in run.stderr
    assert real_pip.versions() == []
