"""Wheels for a Pi: the locked versions that apply there, fetched once, packed reproducibly."""

import hashlib
import shutil
import tarfile

import pytest
from helpers import run_stage

from pipeline import data
from pipeline.bundle import pack, wheels
from pipeline.files import UserError


def selected(target):
    lines = wheels.select(wheels.TARGETS[target]).splitlines()
    return {line.partition("==")[0]: line for line in lines}


def test_python_311_gets_all_three_runtimes_and_numpy_1():
    lines = selected("aarch64-cp311")
    assert {"tflite-runtime", "ai-edge-litert", "onnxruntime", "numpy", "pillow"} <= set(lines)
    assert lines["numpy"].startswith("numpy==1.26.")


def test_python_313_gets_the_two_runtimes_that_it_has_and_all_that_they_need_on_linux():
    lines = selected("aarch64-cp313")
    assert {"ai-edge-litert", "onnxruntime", "numpy", "flatbuffers", "protobuf"} <= set(lines)
    assert not {"tflite-runtime", "colorama"} & set(lines)  # colorama is for Windows


def test_32_bit_pi_takes_numpy_from_the_system():
    assert set(selected("armv7l-cp311")) == {"tflite-runtime"}


def test_every_selected_line_has_an_exact_version_hashes_and_no_marker():
    for target in wheels.TARGETS:
        for line in selected(target).values():
            specification, *hashes = line.split(" ")
            assert "==" in specification
            assert hashes
            assert all(word.startswith("--hash=sha256:") for word in hashes)


def test_pip_is_asked_for_no_platform_newer_than_the_systems_glibc(tmp_path):
    command = wheels.download_command(tmp_path / "r", tmp_path, wheels.TARGETS["aarch64-cp311"])
    platforms = [command[i + 1] for i, word in enumerate(command) if word == "--platform"]
    assert platforms[0] == "manylinux_2_36_aarch64"  # Debian 12 has glibc 2.36
    assert platforms[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert command[command.index("--python-version") + 1] == "3.11"
    assert "--require-hashes" in command


def test_unknown_target_is_refused_with_the_known_ones(artifacts, small_data, tmp_path):
    dist = tmp_path / "dist"
    where = ("--data", small_data, "--out", artifacts, "--dist", dist)
    run = run_stage("bundle", "--wheels", "sparc-cp311", *where)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "sparc-cp311" in run.stderr
    assert "aarch64-cp311" in run.stderr
    assert not dist.exists() or not list(dist.iterdir())


def test_without_the_registry_it_says_so_and_leaves_no_folder(no_registry, tmp_path):
    with pytest.raises(UserError, match="wheels for armv7l-cp311: No matching distribution"):
        wheels.fetch("armv7l-cp311", tmp_path / "wheels")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_registry(monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.fixture
def fetched(tmp_path, monkeypatch, no_registry):
    """A folder as `fetch` leaves it, of a lock file with one package."""
    content = b"as pip left it"
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"fetched==1.0 --hash=sha256:{hashlib.sha256(content).hexdigest()}\n")
    folder = tmp_path / "out" / "wheels" / "armv7l-cp311"
    folder.mkdir(parents=True)
    (folder / "fetched-1.0-py3-none-any.whl").write_bytes(content)
    (folder / wheels.RECORD).write_text(lock.read_text())
    monkeypatch.setattr(wheels, "LOCK", lock)
    return folder


@pytest.mark.parametrize("damage", ["altered", "missing", "another lock"])
def test_kept_wheels_that_are_not_those_of_the_lock_file_are_fetched_anew(fetched, damage):
    (wheel,) = fetched.glob("*.whl")
    if damage == "altered":
        wheel.write_bytes(b"x")
    elif damage == "missing":
        wheel.unlink()
    else:
        wheels.LOCK.write_text(wheels.LOCK.read_text().replace("1.0", "1.1"))
    with pytest.raises(UserError, match="wheels for armv7l-cp311: No matching distribution"):
        wheels.fetch("armv7l-cp311", fetched)


def test_wheels_that_are_there_are_packed_without_the_registry_and_reproducibly(
    fetched, exported, small_data, tmp_path
):
    out = shutil.copytree(exported, tmp_path / "out", dirs_exist_ok=True)
    packed = []
    for dist in (tmp_path / "first", tmp_path / "second"):
        dist.mkdir()
        packed.append(pack.pack(out, dist, data.load(small_data), "armv7l-cp311"))
    assert packed[0].name.endswith("-armv7l-cp311.tar.gz")
    assert packed[0].read_bytes() == packed[1].read_bytes()
    with tarfile.open(packed[0]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert "wheels/fetched-1.0-py3-none-any.whl" in names
    assert "manifest.json" in names
