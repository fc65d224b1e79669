"""install.sh by hand: what is in use is always whole, and nothing but the bundle is run."""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
from deploy_helpers import (
    SITE_PACKAGES,
    lock,
    make_fake_bundle,
    repack,
    write_commands,
    write_os_packages,
)
from helpers import ROOT, absent, need, write_script

INSTALL = ROOT / "device" / "install.sh"
SYSTEM = "/usr/bin:/bin:/usr/sbin:/sbin"
RECEIPT = ["schema_version", "board", "system", "python", "time", "bundle_sha256", "throttled"]
RECEIPT += ["rows", "choice"]
RECEIPT_ROW = ["artifact", "runtime", "runtime_version", "verified", "reason"]
RECEIPT_ROW += ["latency_us", "invoke_us"]


class Board:
    """A folder to install to, and the commands that install.sh finds."""

    def __init__(self, folder, home=None):
        self.folder, self.home = folder, home or folder / "lenet5-edge"
        self.bin = folder / "bin"
        write_commands(self.bin, folder)
        self.packages = write_os_packages(folder / "packages")

    def start(self, bundle, cwd=None, umask=-1, **environment):
        here = {"PATH": f"{self.bin}:{SYSTEM}", "OS_PACKAGES": str(self.packages)}
        return subprocess.Popen(
            ["/bin/sh", INSTALL, bundle, self.home],
            env={**here, **environment},
            cwd=cwd,
            umask=umask,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def install(self, bundle, **options):
        process = self.start(bundle, **options)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess([], process.returncode, stdout, stderr)

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


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path / "board")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles of version 1.0.0, 2.0.0 and 3.0.0."""
    folder = tmp_path_factory.mktemp("bundles")
    return [make_fake_bundle(folder, f"{n}.0.0") for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def used_home(bundles, tmp_path_factory):
    board = Board(tmp_path_factory.mktemp("used"))
    for bundle in bundles[:2]:
        installed(board, bundle)
    return board.home


@pytest.fixture
def used_board(board, used_home):
    """A board with version 1.0.0, and 2.0.0 in use."""
    shutil.copytree(used_home, board.home, symlinks=True)
    return board


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


# --- Arguments ----------------------------------------------------------------------------------


def refused(run, code, message, by="install"):
    """It ended with this code and one line."""
    assert (run.returncode, run.stderr.count("\n")) == (code, 1), run.stderr
    assert run.stderr.startswith(f"{by}: {message}")


@pytest.mark.parametrize("content", [b"", b"not a bundle", "cut off"])
def test_what_is_no_bundle_is_refused_before_anything_is_made(board, bundles, tmp_path, content):
    file = tmp_path / "file.tar.gz"
    file.write_bytes(bundles[0].read_bytes()[:-100] if content == "cut off" else content)
    refused(board.install(file), 2, f"{file}: not a bundle of lenet5-edge, or damaged; copy it")
    assert not board.home.exists()


def test_a_folder_that_cannot_be_made_is_one_line_and_exit_1(board, bundles):
    board.home = bundles[0] / "home"
    refused(board.install(bundles[0]), 1, f"{board.home}: cannot be written; make it writable or")


@pytest.mark.parametrize("arguments", [[""], []])
def test_without_a_folder_nothing_is_installed_anywhere(bundles, arguments):
    command = ["/bin/sh", INSTALL, bundles[0], *arguments]  # HOME is not set
    run = subprocess.run(command, capture_output=True, text=True, env={"PATH": SYSTEM})
    refused(run, 2, "name a DIR to install to")


def test_current_that_is_no_link_is_left_alone(board, bundles):
    current = board.home / "current"
    current.mkdir(parents=True)
    refused(board.install(bundles[0]), 1, f"{current}: not a link; move it away")
    assert board.versions() == []


@pytest.mark.parametrize(
    "python",
    ["sys.exit(127)", "sys.modules['ensurepip'] = None", "sys.version_info = (3, 8, 20)"],
    ids=["none", "without venv", "3.8"],
)
def test_no_usable_python_says_what_to_install(board, bundles, python):
    real = (board.bin / "python3").rename(board.bin / "real")
    board.command("python3", f'exec {real} -I -c "import sys; {python}\n$3"')  # before its code
    missing = "no Python 3.9 or later with venv; on Debian: apt install python3-venv"
    refused(board.install(bundles[0]), 1, missing)
    assert not board.home.exists()


# --- At every moment ----------------------------------------------------------------------------

CHANGING = ("python3", "rm", "ln", "mv", "find", "sync")


@contextlib.contextmanager
def mounted(folder, *options):
    """Make a folder and mount a file system there; skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    run = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if run.returncode:
        absent(f"nothing can be mounted here: {run.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


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
    for cut in cuts:
        with mounted(tmp_path / "after", "-o", "loop", cut) as after:
            in_use = after / "lenet5-edge" / "current"
            assert is_whole(in_use) or (in_use / "answer").read_text() == "FAIL"


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
    _, stderr = process.communicate()
    assert process.returncode == 1
    if number != signal.SIGHUP:  # then nobody listens
        assert "install: interrupted; in use: versions/2.0.0-" in stderr
    assert used_board.versions() == ["1.0.0", "2.0.0"]


def test_two_runs_at_once_wait_for_each_other(board, bundles):
    board.before_each(["python3"], '[ "$3" != venv ] || sleep 0.5')
    runs = [board.start(bundle) for bundle in bundles[:2]]
    for run in runs:
        stdout, stderr = run.communicate()
        assert run.returncode == 0, stdout + stderr
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
    "no environment": lambda version: shutil.rmtree(version / ".venv"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_version_is_repaired_and_no_other_is_lost(used_board, bundles, damage):
    board = used_board
    damage((board.home / "current").resolve())
    assert "was in use already" not in installed(board, bundles[1]).stdout
    assert is_whole(board.home / "current")
    assert (board.home / "current" / ".venv").is_dir()
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


# --- Hostile bundles ----------------------------------------------------------------------------


def altered(bundle, path, change):
    """A copy of a bundle, changed by `change(members)`, a list of (info, content)."""
    with tarfile.open(bundle) as archive:
        members = [(info, archive.extractfile(info).read()) for info in archive]
    change(members)
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def add(name, content):
    return lambda members: members.append((tarfile.TarInfo(name), content))


def replace(**attributes):
    """Change the member `answer`, which the manifest names."""

    def change(members):
        (info,) = (info for info, _ in members if info.name.endswith("/answer"))
        for key, value in attributes.items():
            setattr(info, key, value)

    return change


def rename(root):
    """Put all into another folder."""

    def change(members):
        for info, _ in members:
            info.name = info.name.replace(ROOT_NAME, root)

    return change


ROOT_NAME = "lenet5-edge-1.0.0"
HOSTILE = {
    "link": replace(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": replace(type=tarfile.LNKTYPE, linkname=f"{ROOT_NAME}/runner.py"),
    "device": replace(type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "fifo": replace(type=tarfile.FIFOTYPE),
    "set-user-id": replace(mode=0o4755),
    "set-group-id": replace(mode=0o2644),
    "absolute": replace(name="/tmp/answer"),
    "in another folder": replace(name="lenet5-edge-2.0.0/answer"),
    "not in the manifest": add(f"{ROOT_NAME}/numpy.py", b"import os"),
    "twice": add(f"{ROOT_NAME}/answer", b"PASS"),
    "missing": lambda members: members.pop(0),
    "another program": rename("lenet6-edge-1.0.0"),
    "no version": rename("lenet5-edge-x"),
    "a version with odd characters": rename("lenet5-edge-1|x"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_bundle_is_exit_2_and_nothing_of_it_is_unpacked(board, bundles, tmp_path, change):
    hostile = altered(bundles[0], tmp_path / "hostile.tar.gz", change)
    refused_before_anything_is_made(board, hostile)


OUTSIDE = ["../x", "a/../../x", "/tmp/x", "a//x", "./x", "a/."]
DECEITFUL = ["\x1b[2Jx", "a\nx", "\N{RIGHT-TO-LEFT OVERRIDE}x"]


@pytest.mark.parametrize("name", OUTSIDE + DECEITFUL)
def test_no_name_that_leads_outside_or_deceives_is_unpacked_even_if_the_manifest_has_it(
    board, tmp_path, name
):
    refused_before_anything_is_made(board, make_fake_bundle(tmp_path, further={name: b""}))


def refused_before_anything_is_made(board, bundle):
    run = board.install(bundle)
    refused(run, 2, f"{bundle}: ")
    assert run.stderr[:-1].isprintable()
    assert run.stdout == ""
    assert not board.home.exists()


def test_a_file_with_another_hash_than_the_manifest_says_is_not_run(board, bundles, tmp_path):
    def change(members):
        index = next(i for i, (info, _) in enumerate(members) if info.name.endswith("runner.py"))
        members[index] = (members[index][0], f"open('{tmp_path}/ran', 'w')".encode())

    run = board.install(altered(bundles[0], tmp_path / "altered.tar.gz", change))
    assert run.returncode == 1
    assert "differs  runner.py: its SHA-256 is not the one in the manifest" in run.stderr
    assert board.versions() == []
    assert not (tmp_path / "ran").exists()


def test_files_get_plain_modes_whatever_the_archive_says(board, bundles, tmp_path):
    def change(members):
        for info, _ in members:
            info.mode |= 0o022
            info.uid = info.gid = 1000

    installed(board, altered(bundles[0], tmp_path / "modes.tar.gz", change), umask=0)
    version = board.home / "current"
    assert version.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o7777 for path in version.iterdir()} <= {0o755, 0o644}
    assert (version / "answer").stat().st_mode & 0o777 == 0o644
    assert (version / "runner.py").stat().st_mode & 0o777 == 0o755
    assert (version / "answer").stat().st_uid == os.geteuid()


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


def test_no_code_from_the_folders_that_it_works_in_is_run(board, bundles, tmp_path):
    trap = f"open('{tmp_path}/ran', 'w')\nraise SystemExit(1)"
    board.home.mkdir()
    for folder in (tmp_path, board.home):
        for module in ("ensurepip", "venv", "json", "tarfile", "pip", "hashlib", "ctypes"):
            (folder / f"{module}.py").write_text(trap)
    installed(board, bundles[0])
    installed(board, bundles[0])
    installed(board, bundles[1], cwd=tmp_path)
    (board.home / "current" / "answer").write_text("FAIL")
    installed(board, bundles[1], cwd=tmp_path)
    assert not (tmp_path / "ran").exists()


# --- Signatures ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def signers(tmp_path_factory):
    """Two keys, `mine` and `foreign`, and the line of allowed_signers for mine."""
    need("ssh-keygen")
    folder = tmp_path_factory.mktemp("signers")
    for name in ("mine", "foreign"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(command, check=True)
    (folder / "allowed_signers").write_text(f"me@home {(folder / 'mine.pub').read_text()}")
    return folder


@pytest.fixture
def strict_board(board, signers):
    """A board that has allowed_signers."""
    board.home.mkdir()
    shutil.copy(signers / "allowed_signers", board.home)
    return board


def sign(bundle, key):
    run = subprocess.run([ROOT / "tools" / "sign.sh", bundle, key], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_signed_bundle_is_installed_where_its_signer_is_allowed(
    strict_board, bundles, signers, tmp_path
):
    bundle = shutil.copy(bundles[0], tmp_path / "a bundle.tar.gz")
    sign(bundle, signers / "mine")
    installed(strict_board, bundle)
    assert "was in use already" in installed(strict_board, bundle).stdout


@pytest.mark.parametrize(
    "case", ["unsigned", "by a foreign key", "of another bundle", "for another purpose", "garbage"]
)
def test_what_no_allowed_signer_signed_is_exit_2(strict_board, bundles, signers, tmp_path, case):
    bundle, other = (shutil.copy(path, tmp_path) for path in bundles[:2])
    signature = Path(f"{bundle}.sig")
    if case == "by a foreign key":
        sign(bundle, signers / "foreign")
    elif case == "of another bundle":
        sign(other, signers / "mine")
        Path(f"{other}.sig").rename(signature)
    elif case == "for another purpose":
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", signers / "mine", bundle]
        subprocess.run(command, check=True, capture_output=True)
    elif case == "garbage":
        signature.write_text("x")
    allowed = strict_board.home / "allowed_signers"
    said = f"{bundle}: no signature in {signature} by one of {allowed}; sign it with: make bundle"
    refused(strict_board.install(bundle), 2, said)
    assert {path.name for path in strict_board.home.iterdir()} == {"allowed_signers"}


@pytest.mark.parametrize(
    "make",
    [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")],
    ids=["empty", "a folder", "leads nowhere"],
)
def test_allowed_signers_that_names_nobody_allows_nobody(board, bundles, signers, tmp_path, make):
    board.home.mkdir()
    make(board.home / "allowed_signers")
    bundle = shutil.copy(bundles[0], tmp_path)
    sign(bundle, signers / "mine")
    assert board.install(bundle).returncode == 2


def test_signing_with_a_key_that_is_not_there_is_one_line_and_exit_2(bundles):
    command = [ROOT / "tools" / "sign.sh", bundles[0], "/nowhere/key"]
    run = subprocess.run(command, capture_output=True, text=True)
    refused(run, 2, "SIGN=/nowhere/key: no such file", by="sign")


# --- The service --------------------------------------------------------------------------------


def bundle_with_service(folder, version="1.0.0"):
    unit = (ROOT / "device" / "lenet5-edge.service").read_bytes()
    return make_fake_bundle(folder, version, {"lenet5-edge.service": unit})


def test_the_service_is_installed_once_goes_on_with_a_new_version_and_is_removed(board, tmp_path):
    first, second = (bundle_with_service(tmp_path, version) for version in ("1.0.0", "2.0.0"))
    calls, home = tmp_path / "calls", tmp_path / "home"
    for name in ("systemctl", "loginctl"):
        board.command(name, f'echo "$@" >>{calls}')
    unit = home / ".config" / "systemd" / "user" / "lenet5-edge.service"
    for _ in range(2):
        installed(board, first, HOME=str(home), SERVICE="1")
        assert f"\nWorkingDirectory={board.home}/current\n" in unit.read_text()
    assert list(unit.parent.iterdir()) == [unit]
    assert "enable-linger" in calls.read_text()
    installed(board, second, HOME=str(home))
    assert calls.read_text().endswith("--user try-restart lenet5-edge.service\n")
    for _ in range(2):
        installed(board, second, HOME=str(home), SERVICE="0")
        assert not unit.exists()
    assert "--user disable --now lenet5-edge.service\n" in calls.read_text()


def test_a_service_that_does_not_start_is_exit_1_and_the_version_is_in_use(board, tmp_path):
    board.command("systemctl", "echo no bus >&2\nexit 1")
    home = str(tmp_path / "home")
    run = board.install(bundle_with_service(tmp_path), HOME=home, SERVICE="1")
    assert run.returncode == 1
    assert "no bus\ninstall: cannot start the service" in run.stderr
    assert board.in_use() == "1.0.0"


@pytest.mark.parametrize("setting", ["SERVICE=yes", "RUNTIMES=tflite"])
def test_an_unknown_setting_is_one_line_and_exit_2(board, bundles, setting):
    name, _, value = setting.partition("=")
    refused(board.install(bundles[0], **{name: value}), 2, f"{setting}: ")
    assert not board.home.exists()


def test_with_runtimes_native_only_numpy_is_installed_and_without_it_the_rest_again(
    real_pip, tmp_path
):
    packages = [wheel("numpy"), wheel("runtime")]
    files = {"runner.py": RUNNER_NEEDS % b"sys", "requirements.lock": lock(*packages)}
    bundle = make_fake_bundle(tmp_path, further={**files, **dict(packages)})

    def packages_of(**settings):
        installed(real_pip, bundle, **settings)
        folders = (real_pip.home / "current" / ".venv").glob("lib/python3*/site-packages/*.py")
        return {path.stem for path in folders}

    assert packages_of(RUNTIMES="native") == {"numpy"}
    assert packages_of() == {"numpy", "runtime"}


# --- The compiled C -----------------------------------------------------------------------------


@pytest.mark.parametrize("system_has", ["numpy", "nothing"])
def test_without_a_wheel_for_the_device_the_compiled_c_is_verified_used_and_said(
    system_has, real_pip, packed
):
    if system_has == "numpy":
        for path in SITE_PACKAGES.glob("numpy*"):
            if not path.name.endswith("-info"):  # pip does not count it as installed
                (real_pip.packages / path.name).symlink_to(path)
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


def test_compiled_c_that_answers_otherwise_here_is_not_used(real_pip, packed, tmp_path):
    with tarfile.open(packed) as archive:
        name = f"{packed.name.removesuffix('.tar.gz')}/native/golden.bin"
        golden = bytearray(archive.extractfile(name).read())
    golden[-1] ^= 1  # of the last output
    bundle = repack(packed, tmp_path, {"native/golden.bin": bytes(golden)})
    run = real_pip.install(bundle, PIP_NO_INDEX="1")
    assert run.returncode == 1
    assert "319 of 320 outputs equal" in run.stderr
    assert "install: the bundle does not verify on this device; in use: nothing" in run.stderr
    assert real_pip.versions() == []


def test_an_index_that_does_not_answer_is_no_reason_to_do_without_packages(real_pip, tmp_path):
    locked = lock(("runtime-1.0-py3-none-any.whl", b""))
    bundle = make_fake_bundle(tmp_path, further={"requirements.lock": locked})
    run = real_pip.install(bundle, PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="1")
    assert run.returncode == 1
    assert "install: cannot install the packages" in run.stderr
    assert real_pip.versions() == []


# --- Packages -----------------------------------------------------------------------------------


def wheel(name, version="1.0", code=b""):
    """(file name, content) of a wheel with one module."""
    stream = io.BytesIO()
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{name}.py", code)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"wheels/{name}-{version}-py3-none-any.whl", stream.getvalue()


RUNNER_NEEDS = b"import %s\nprint('PASS')"


@pytest.fixture
def real_pip(board):
    """A board whose operating system has the real pip."""
    shutil.rmtree(board.packages / "pip")
    (board.packages / "pip").symlink_to(SITE_PACKAGES / "pip")
    return board


@pytest.mark.parametrize("case", ["another hash", "no hash"])
def test_a_package_without_the_hash_of_the_lock_file_is_not_installed(real_pip, tmp_path, case):
    name, content = wheel("runtime", code=f"open('{tmp_path}/ran', 'w')".encode())
    files = {
        "runner.py": RUNNER_NEEDS % b"runtime",
        name: content,
        "requirements.lock": b"runtime==1.0" if case == "no hash" else lock((name, content + b"x")),
    }
    run = real_pip.install(make_fake_bundle(tmp_path, further=files))
    assert run.returncode == 1
    assert "install: cannot install the packages, with " in run.stderr
    assert not (tmp_path / "ran").exists()
    assert real_pip.versions() == []


def with_32_bits(board):
    """A board whose Python says that it has 32 bits."""
    board.before_each(["python3"], 'case "$*" in *calcsize*) echo 32 && exit ;; esac')
    return board


def test_on_32_bits_the_runtime_is_installed_with_the_systems_numpy(real_pip, tmp_path):
    runtime = wheel("runtime")
    locked = lock(("wheels/numpy-1.26.4-py3-none-any.whl", b"none here"), runtime)
    files = {
        "runner.py": RUNNER_NEEDS % b"runtime",
        "requirements.lock": locked,
        **dict([runtime]),
    }
    (real_pip.packages / "numpy.py").touch()
    run = installed(with_32_bits(real_pip), make_fake_bundle(tmp_path, further=files))
    assert "no packages for" not in run.stdout
    environment = real_pip.home / "current" / ".venv"
    assert list(environment.glob("lib/python3*/site-packages/runtime.py"))
    assert not list(environment.glob("lib/python3*/site-packages/numpy*"))


def test_on_32_bits_with_a_python_without_a_runtime_the_compiled_c_is_used_and_said(
    real_pip, tmp_path
):
    locked = lock(wheel("runtime")).replace(b" \\", b" ; python_full_version < '3' \\")
    files = {"runner.py": RUNNER_NEEDS % b"sys", "requirements.lock": locked}
    run = installed(with_32_bits(real_pip), make_fake_bundle(tmp_path, further=files))
    assert ": none of requirements.lock is for it\ntrying the compiled C\nPASS\n" in run.stdout


def test_nothing_is_compiled_from_source(real_pip, tmp_path):
    name = "runtime-1.0"
    backend = f"open('{tmp_path}/ran', 'w')\n"
    toml = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for file, text in (("pyproject.toml", toml), ("backend.py", backend), ("PKG-INFO", "")):
            info = tarfile.TarInfo(f"{name}/{file}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    sdist = (f"wheels/{name}.tar.gz", stream.getvalue())
    files = {"requirements.lock": lock(sdist), **dict([sdist])}
    run = real_pip.install(make_fake_bundle(tmp_path, further=files))
    assert not (tmp_path / "ran").exists()
    # The runner is asked whether it can do without, with the compiled C: this one says so.
    assert run.returncode == 0, run.stderr
    assert "in the bundle's wheels/: ERROR: No matching" in run.stdout
