"""install.sh refuses what it cannot use, and no part of a hostile bundle reaches the device."""

import io
import os
import tarfile

import pytest
from deploy_helpers import INSTALL, SYSTEM, installed, make_fake_bundle, refused
from helpers import run_program

# --- Arguments and the machine ------------------------------------------------------------------


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
    run = run_program(*command, env={"PATH": SYSTEM})
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


@pytest.mark.parametrize("setting", ["SERVICE=yes", "RUNTIMES=tflite"])
def test_an_unknown_setting_is_one_line_and_exit_2(board, bundles, setting):
    name, _, value = setting.partition("=")
    refused(board.install(bundles[0], **{name: value}), 2, f"{setting}: ")
    assert not board.home.exists()


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


def changed(change):
    """Make a hostile bundle by changing its members."""
    return lambda bundle, folder: altered(bundle, folder / "hostile.tar.gz", change)


def add(name, content):
    return changed(lambda members: members.append((tarfile.TarInfo(name), content)))


def replace(**attributes):
    """Change the member `answer`, which the manifest names."""

    def change(members):
        (info,) = (info for info, _ in members if info.name.endswith("/answer"))
        for key, value in attributes.items():
            setattr(info, key, value)

    return changed(change)


def rename(root):
    """Put all into another folder."""

    def change(members):
        for info, _ in members:
            info.name = info.name.replace(ROOT_NAME, root)

    return changed(change)


def named(name):
    """A file's name leads outside or deceives, and the manifest has it too."""
    return lambda bundle, folder: make_fake_bundle(folder, further={name: b""})


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
    "missing": changed(lambda members: members.pop(0)),
    "another program": rename("lenet6-edge-1.0.0"),
    "no version": rename("lenet5-edge-x"),
    "a version with odd characters": rename("lenet5-edge-1|x"),
    **{name: named(name) for name in ("../x", "a/../../x", "/tmp/x", "a//x", "./x", "a/.")},
    **{name: named(name) for name in ("\x1b[2Jx", "a\nx", "\N{RIGHT-TO-LEFT OVERRIDE}x")},
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=map(ascii, HOSTILE))
def test_a_hostile_bundle_is_exit_2_and_nothing_of_it_is_unpacked(board, bundles, tmp_path, make):
    bundle = make(bundles[0], tmp_path)
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
