"""Files -> one reproducible .tar.gz with a manifest."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
FIRST_TIME_S = 1_577_836_800  # 2020-01-01
TIMES_S = 2**26  # two years
EXECUTABLE = (".py", ".sh", "/lenet5")


def write_bundle(
    files: Mapping[str, bytes], manifest: dict[str, Any], root: str, path: Path
) -> None:
    """Pack files and their manifest; the same input gives the same bytes.

    Args:
        files: Contents by path inside the bundle.
        manifest: What `manifest.json` holds beside `files`: the size and SHA-256 of each file.
        root: The folder that everything lies in.
        path: The .tar.gz to write.
    """
    entries = {
        name: {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    }
    text = json.dumps({**manifest, "files": entries}, indent=2) + "\n"
    packed = io.BytesIO()
    # Owners and the gzip header's name and time would differ from build to build. Times are told by
    # the content: Python takes a module's bytecode for up to date by time and size, so that with
    # one time for all a bundle unpacked over another could run the other's code.
    digest = hashlib.sha256(text.encode()).digest()
    time_s = FIRST_TIME_S + int.from_bytes(digest[:4], "big") % TIMES_S
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in sorted({**files, MANIFEST: text.encode()}.items()):
            member = tarfile.TarInfo(f"{root}/{name}")
            member.size = len(content)
            member.mtime = time_s
            member.mode = 0o755 if name.endswith(EXECUTABLE) else 0o644
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(packed.getvalue())


def unpack_bundle(path: Path, folder: Path) -> None:
    """Unpack a bundle into a folder."""
    with tarfile.open(path) as archive:
        # Later versions ask for a filter, and Debian 12's Python 3.11.2 knows no such argument.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
