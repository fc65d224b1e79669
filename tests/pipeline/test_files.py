"""Files are there whole or not at all; JSON of an earlier stage is checked."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, as_nobody, run_stage

from pipeline import files
from pipeline.files import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole_under_its_own_name(tmp_path):
    path = tmp_path / "made" / "model.keras"
    with files.atomic_path(path) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["model.keras"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(error), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("make", "message"),
    [(Path.mkdir, "cannot be written"), (os.mkfifo, "a device or a pipe; name a file")],
)
def test_what_is_no_file_is_named_and_not_replaced(tmp_path, make, message):
    path = tmp_path / "a.json"
    make(path)
    with pytest.raises(UserError, match=f"a.json: {message}"):
        files.write_bytes(path, b"new")
    assert not path.is_file()
    assert names(tmp_path) == ["a.json"]


def test_error_about_another_file_keeps_its_name(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"input.bin"),
        files.atomic_path(tmp_path / "a.json"),
    ):
        (tmp_path / "input.bin").read_bytes()


def test_killed_run_leaves_the_old_file_and_the_next_run_cleans_up(tmp_path):
    path = tmp_path / "figures" / "a.png"
    files.write_bytes(path, b"old")
    code = (
        "import os, sys, pathlib; from pipeline import files\n"
        "with files.atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert run.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(names(path.parent)) == 2
    files.remove_partial_files(tmp_path)
    assert names(path.parent) == ["a.png"]


def test_second_run_in_a_folder_is_refused_until_the_first_ends(tmp_path):
    with files.only_one_run(tmp_path):
        run = run_stage("bundle", "--out", tmp_path, "--dist", tmp_path / "dist")
        assert run.returncode == 2
        assert run.stderr.count("\n") == 1
        assert f"{tmp_path}: another run is writing there" in run.stderr
    with files.only_one_run(tmp_path):
        pass


def test_folder_is_made_with_its_parents_or_is_one_that_can_be_written_to(tmp_path):
    files.make_folder(tmp_path / "new" / "b")
    assert names(tmp_path / "new" / "b") == []
    (tmp_path / "a").touch()
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises(UserError, match=f"{folder}: cannot be written to"):
            files.make_folder(folder)
    with as_nobody(), pytest.raises(UserError, match="/usr: cannot be written to"):
        files.make_folder(Path("/usr"))
    with as_nobody(), pytest.raises(UserError, match="/usr/a: cannot be written"):
        files.write_bytes(Path("/usr/a"), b"")


def test_json_is_read_back_as_it_was_written(tmp_path):
    value = {"a": [1, 2.5, None], "b": {"ü": "é"}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json", "a", "b") == value
    assert (tmp_path / "a.json").read_bytes().endswith(b"}\n")


def test_missing_or_damaged_json_is_refused_in_one_line(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a.json: missing; run `make export`"):
        files.read_json(path)
    for content in (b"", b'{"a": 1', b"\xff", b"[]", b'"a"', b"null", b'{"a": 1}', b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a.json: not .*; delete it and run `make export`"):
            files.read_json(path, "a", "b")


def test_content_is_on_the_disk_before_the_rename_and_the_rename_after_it(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    synced = []

    def keep(descriptor):
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((name, path.exists()))
        if name.is_file():
            assert name.read_bytes() == b"new"

    monkeypatch.setattr(files.os, "fsync", keep)
    files.write_bytes(path, b"new")
    (temporary, existed), last = synced
    assert (temporary.name, existed) == ("a.json", False)
    assert last == (tmp_path, True)


def test_folder_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files.os, "sync", lambda: synced.append((tmp_path / "tree").exists()))
    with files.atomic_path(tmp_path / "tree") as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("content")
    assert synced == [False]
    assert names(tmp_path / "tree") == ["a"]
