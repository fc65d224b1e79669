"""install.sh: at every moment a whole version is in use, verified, or what was in use before."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from deploy_helpers import SYSTEM, Board, finished, installed, is_whole, make_fake_bundle, refused
from helpers import mounted, need

# --- At every moment ----------------------------------------------------------------------------

CHANGING = ("python3", "rm", "ln", "mv", "find", "sync")


@pytest.fixture
def disk(tmp_path):
    """A disk of its own: (mount point, image file); what is in the image survives a power cut."""
    need("mkfs.ext4")
    image = tmp_path / "image"
    image.write_bytes(b"")
    os.truncate(image, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, env={"PATH": SYSTEM})
    with mounted(tmp_path / "mnt", "-o", "loop", image) as mount:
        yield mount, image


@pytest.mark.parametrize("case", ["update", "repair"])
def test_a_power_cut_at_any_moment_leaves_a_whole_version_in_use(disk, bundles, tmp_path, case):
    mount, image = disk
    board = Board(tmp_path / "board", mount / "lenet5-edge")
    (board.bin / "sync").unlink()  # the real one is meant
    installed(board, bundles[0])
    shutil.copy(image, tmp_path / "cut")  # as soon as it says that the version is in use
    with mounted(tmp_path / "after", "-o", "loop", tmp_path / "cut") as after:
        assert is_whole(after / "lenet5-edge" / "current")
    if case == "repair":
        (board.home / "current" / "answer").write_text("FAIL")
    os.sync()
    # Some other program syncs a file, which writes the journal but none of our data, then the
    # power is cut: what the disk holds is copied.
    board.before_each(
        CHANGING,
        f"dd if=/dev/zero of={mount}/other bs=1 count=1 conv=fsync status=none\n"
        f"cp --sparse=always {image} {tmp_path}/cut-$$",
    )
    installed(board, bundles[1] if case == "update" else bundles[0])
    cuts = list(tmp_path.glob("cut-*"))
    assert len(cuts) > len(CHANGING)
    replaced = []
    for cut in cuts:
        with mounted(tmp_path / "after", "-o", "loop", cut) as after:
            in_use = after / "lenet5-edge" / "current"
            assert is_whole(in_use) or (in_use / "answer").read_text() == "FAIL"
            answer = after / "lenet5-edge" / "versions" / ".new" / "answer"
            replaced.append(answer.exists() and answer.read_text() == "FAIL")
    assert any(replaced) == (case == "repair")  # removed after they have changed places, not before


def test_what_a_killed_run_left_the_next_one_removes(used_board, bundles):
    board = used_board
    board.before_each(["python3"], '[ "$3" != venv ] || kill -9 0')
    assert board.install(bundles[2]).returncode == -signal.SIGKILL
    assert (board.home / "versions" / ".new").exists()
    assert board.in_use() == "2.0.0"
    (board.home / ".current.new").symlink_to("versions/nowhere")  # as a kill later on leaves it
    (board.bin / "python3.real").rename(board.bin / "python3")
    installed(board, bundles[2])
    assert board.in_use() == "3.0.0"
    assert board.versions() == ["2.0.0", "3.0.0"]
    assert not (board.home / ".current.new").is_symlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_removes_what_is_half_made(used_board, bundles, number):
    waiting = used_board.folder / "waiting"
    used_board.before_each(
        ["python3"], f'[ "$3" != venv ] || {{ echo >{waiting}; exec sleep 30; }}'
    )
    process = used_board.start(bundles[2])
    while not waiting.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    run = finished(process)
    assert run.returncode == 1
    if number != signal.SIGHUP:  # then nobody listens
        assert "install: interrupted; in use: versions/2.0.0-" in run.stderr
    assert used_board.versions() == ["1.0.0", "2.0.0"]


def test_interrupted_after_the_switch_it_names_the_new_version(used_board, bundles):
    used_board.command("sync", '[ "$2" != . ] || kill -TERM 0')  # the last step
    run = used_board.install(bundles[2])
    assert used_board.in_use() == "3.0.0"
    in_use = (used_board.home / "current").readlink()
    assert run.returncode == 1
    assert run.stderr.endswith(f"install: interrupted; in use: {in_use}\n")


def test_two_runs_at_once_wait_for_each_other(board, bundles):
    board.before_each(["python3"], '[ "$3" != venv ] || sleep 0.5')
    for run in [board.start(bundle) for bundle in bundles[:2]]:
        done = finished(run)
        assert done.returncode == 0, done.stdout + done.stderr
    assert board.versions() == ["1.0.0", "2.0.0"]
    assert is_whole(board.home / "current")


# --- What verified means ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "runner",
    [
        b"",
        b"print('ok all')",
        b"print('PASS'); raise SystemExit(1)",
        b"print('PASS\\nFAIL')",
        b"print('FAIL'); raise SystemExit(1)",
    ],
)
def test_only_pass_and_exit_0_of_the_runner_is_a_pass(used_board, tmp_path, runner):
    run = used_board.install(make_fake_bundle(tmp_path, "3.0.0", {"runner.py": runner}))
    assert run.returncode == 1
    last = run.stderr.splitlines()[-1]
    assert last.startswith("install: the bundle does not verify on this device; in use: versions/2")
    assert used_board.in_use() == "2.0.0"
    assert used_board.versions() == ["1.0.0", "2.0.0"]


def empty_all(version):
    for path in version.iterdir():
        if path.is_file():
            path.write_bytes(b"")


def new_runner(version):
    """A runner that says PASS whatever was done, and a manifest that fits."""
    (version / "runner.py").write_text("print('PASS')")
    manifest = json.loads((version / "manifest.json").read_text())
    entry = manifest["files"]["runner.py"]
    entry["sha256"] = hashlib.sha256((version / "runner.py").read_bytes()).hexdigest()
    (version / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = {
    "all files empty, as after a power cut": empty_all,
    "a file missing": lambda version: (version / "answer").unlink(),
    "a file altered": lambda version: (version / "requirements.lock").write_text("#"),
    "another runner and its hash": new_runner,
    "the manifest altered": lambda version: (version / "manifest.json").write_text("{}"),
    "an environment that does not run": lambda version: (version / ".venv/bin/python").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_version_is_repaired_and_no_other_is_lost(used_board, bundles, damage):
    board = used_board
    damage((board.home / "current").resolve())
    assert "was in use already" not in installed(board, bundles[1]).stdout
    assert is_whole(board.home / "current")
    assert (board.home / "current" / ".venv" / "bin" / "python").exists()
    assert board.versions() == ["1.0.0", "2.0.0"]
    # The same where it is not in use.
    damage(next((board.home / "versions").glob("1.0.0-*")))
    installed(board, bundles[0])
    assert board.in_use() == "1.0.0"
    assert is_whole(board.home / "current")


def test_installing_again_only_verifies_and_leaves_the_users_files_alone(used_board, bundles):
    picture = used_board.home / "current" / "digit.png"
    picture.touch()
    before = (used_board.home / "current").resolve().stat().st_ino
    used_board.home = Path(os.path.relpath(used_board.home))  # as a user may name it
    run = installed(used_board, bundles[1])
    assert "PASS\n2.0.0-" in run.stdout
    assert "was in use already" in run.stdout
    assert (used_board.home / "current").resolve().stat().st_ino == before
    assert picture.exists()


def test_a_bundle_that_changes_while_it_is_installed_is_not_put_into_use(board, bundles, tmp_path):
    bundle = shutil.copy(bundles[0], tmp_path)
    board.before_each(["python3"], f'[ "$3" != venv ] || cat {bundles[1]} >{bundle}')
    run = board.install(bundle)
    refused(run, 1, f"{bundle}: has changed meanwhile; in use: nothing")
    assert board.versions() == []


# --- Going back, and room -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["versions/{}", "versions/{}/", "./versions/{}", "{home}/versions/{}"]
)
def test_going_back_by_hand_makes_no_later_install_remove_what_is_in_use(used_board, bundles, form):
    board = used_board
    (first,) = (board.home / "versions").glob("1.0.0-*")
    link = form.format(first.name, home=board.home)
    subprocess.run(["ln", "-sfn", link, board.home / "current"], check=True)
    assert "was in use already" in installed(board, bundles[0]).stdout
    assert is_whole(board.home / "current")
    installed(board, bundles[2])
    assert board.in_use() == "3.0.0"
    assert board.versions() == ["1.0.0", "3.0.0"]


@pytest.fixture
def small_board(tmp_path):
    """A board whose disk has room for 3.5 MB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=3500k", "tmpfs") as disk:
        yield Board(tmp_path / "board", disk / "lenet5-edge")


def heavy_bundle(folder, version, size):
    return make_fake_bundle(folder, version, {"weights": os.urandom(size)})


def test_a_third_version_needs_no_room_for_three(small_board, tmp_path):
    for version in ("1.0.0", "2.0.0", "3.0.0", "4.0.0"):
        installed(small_board, heavy_bundle(tmp_path, version, 1_300_000))
    assert small_board.versions() == ["3.0.0", "4.0.0"]


def test_a_full_disk_leaves_what_was_in_use_and_nothing_half_made(small_board, tmp_path):
    installed(small_board, heavy_bundle(tmp_path, "1.0.0", 1_000_000))
    run = small_board.install(heavy_bundle(tmp_path, "2.0.0", 3_000_000))
    assert run.returncode == 1
    assert "No space left on device" in run.stderr
    assert "install: cannot unpack the bundle, with 0 MiB free; in use: versions/1" in run.stderr
    assert small_board.versions() == ["1.0.0"]
    assert is_whole(small_board.home / "current")


def test_what_earlier_deployments_sent_is_removed_after_a_day(board, bundles):
    board.home.mkdir()
    for name, age_h in (("bundle-a.tar.gz", 50), ("bundle-b.tar.gz", 1), ("notes.txt", 50)):
        (board.home / name).touch()
        os.utime(board.home / name, times=(0, time.time() - 3600 * age_h))
    installed(board, bundles[0])
    left = {path.name for path in board.home.iterdir()} - {"current", "versions"}
    assert left == {"bundle-b.tar.gz", "notes.txt"}


# --- The files ----------------------------------------------------------------------------------


def test_files_keep_their_times_by_which_python_tells_old_bytecode(board, bundles):
    installed(board, bundles[0])
    with tarfile.open(bundles[0]) as archive:
        for member in archive:
            path = board.home / "current" / member.name.partition("/")[2]
            assert path.stat().st_mtime == member.mtime


def test_programs_of_a_real_environment_run_under_its_final_name(board, bundles):
    installed(board, bundles[0], OS_PACKAGES="")  # venv and pip are the real ones
    for program in ("python", "pip"):
        command = [board.home / "current" / ".venv" / "bin" / program, "--version"]
        assert subprocess.run(command, capture_output=True).returncode == 0
