"""Files that are there whole or not at all, and errors that are one line."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


class UserError(Exception):
    """A mistake in what the user gave; the message names it and says what to do (exit code 2)."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message: an error is one line here.

    `device/runner.py` has its own, since it stands alone; and a changed runner trains nothing anew.
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path to write a file or folder to; rename it when the block succeeds.

    The temporary file keeps the suffix (Keras and others choose a format by it) and lies in a
    folder of its own beside `path`, so that a rename suffices and nothing else can see it. Its
    content is on the disk before the rename, and the rename before this returns: a power cut
    leaves the old file or the new one. The folder around `path` is made when missing.

    Raises:
        UserError: It cannot be written; `path` is then what it was before.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a rename would replace it
            raise UserError(f"{path}: a device or a pipe; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
        try:
            temporary = folder / path.name
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent, entries_only=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        # A full disk is reported without a name, other errors with the temporary one. What names
        # another file was not about writing this one.
        if error.filename and PARTIAL not in str(error.filename):
            raise
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "make room or choose another folder"
        ) from None


def _sync(path: Path, entries_only: bool = False) -> None:
    """Wait until a file, a folder with its content, or only a folder's entries are on the disk."""
    if path.is_dir() and not entries_only:
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically; raises UserError if it cannot be written."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, with a final newline."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """Read a JSON object that an earlier stage wrote.

    Raises:
        UserError: It is missing, not JSON, no object, or has not all of the keys.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `make export`") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON; delete it and run `make export`") from None
    if not isinstance(value, dict) or not value.keys() >= set(keys):
        raise UserError(f"{path}: not what the pipeline writes; delete it and run `make export`")
    return value


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_folder(folder: Path) -> None:
    """Make an output folder; raises UserError, before the work, if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written to ({error.strerror}); choose another folder"
        ) from None


@contextlib.contextmanager
def only_one_run(folder: Path) -> Iterator[None]:
    """Let one run at a time write to an output folder; the system ends the lock with its process.

    Raises:
        UserError: Another run has the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder}: another run is writing there; wait for it or choose another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Delete what a killed run left behind in the folder and below."""
    for leftover in list(folder.rglob(f"{PARTIAL}*")):
        shutil.rmtree(leftover, ignore_errors=True)
