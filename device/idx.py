"""Reading files, plain or gzipped, and IDX, the format of MNIST."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 256 * 2**20  # a larger file is a mistake or an attack
TYPES: dict[int, Any] = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(">i4")}
# "(1)" is what a browser adds to the name of a second download.
IDX_NAME = re.compile(r"(-(ubyte|int)|\.idx[123]?)( ?\(\d+\))?(\.gz)?$", re.I)
ANNEX = re.compile(rb"^(/|[./]*\.git/)annex/objects/")  # in a link, or as text in its place
STAND_INS = (
    (re.compile(b"^version https://git-lfs"), "a Git LFS pointer, not the file; run: git lfs pull"),
    (ANNEX, "a git-annex link, not the file; run: git annex get ."),
    (re.compile(b"^<(!doctype )?html"), "a web page, not the file; download it again"),
)


class FileError(ValueError):
    """A file that cannot be read or is not of its form; the message says what is wrong."""


def is_idx(path: Path) -> bool:
    """Whether the name is that of an IDX file, such as `t10k-images-idx3-ubyte.gz`."""
    return bool(IDX_NAME.search(path.name))


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file: `read_bytes`, then `parse_idx`."""
    return parse_idx(read_bytes(path), str(path))


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a whole file, decompressed where it is gzipped.

    Raises:
        FileError: It cannot be read, is empty, too large, stands in for another file, or its gzip
            data is damaged.
    """
    try:
        with open_plain(path) as stream:
            return read_stream(stream, str(path), max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None)
        if reason:
            raise FileError(f"{path}: cannot be read ({reason})") from None
        raise FileError(f"{path}: damaged gzip data ({error}); copy the file again") from None


def open_plain(path: Path) -> Any:
    """Open a file to read its bytes, decompressed where it is gzipped.

    Its first bytes tell, not its name: a browser may unpack a file and keep the name.

    Raises:
        FileError: Something else lies in the file's place: a Git LFS pointer, a git-annex link, a
            web page.
    """
    if path.is_symlink() and not path.exists() and ANNEX.search(os.fsencode(path.readlink())):
        raise FileError(f"{path}: {STAND_INS[1][1]}")
    stream = path.open("rb")
    start = stream.peek(64)[:64].lstrip().lower()
    for pattern, what in STAND_INS:
        if pattern.search(start):
            stream.close()
            raise FileError(f"{path}: {what}")
    if not start.startswith(b"\x1f\x8b"):
        return stream
    stream.close()
    return gzip.open(path)


def read_stream(stream: Any, name: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The rest of a binary stream; FileError if it is empty or larger than `max_bytes`."""
    data = bytearray()
    # One read(limit) would reserve the limit at once, more than a small board has.
    while len(data) <= max_bytes and (chunk := stream.read(2**20)):
        data += chunk
    if not data:
        raise FileError(f"{name}: the file is empty; copy it again")
    if len(data) > max_bytes:
        raise FileError(f"{name}: larger than {max_bytes // 2**20} MiB; divide it")
    return bytes(data)


def parse_idx(data: bytes, name: str) -> np.ndarray:
    """Parse the bytes of an IDX file.

    Args:
        data: Two zero bytes, the type code (0x08, unsigned byte, or 0x0C, int32), the number of
            dimensions, each dimension as a big-endian uint32, then the elements, big-endian.
        name: What to call the file in an error.

    Returns:
        A read-only array of uint8 or big-endian int32, of the shape in the header.

    Raises:
        FileError: The magic number is wrong or the length differs from the header's.

    Source: "The IDX file format", http://yann.lecun.com/exdb/mnist/.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise FileError(f"{name}: not an IDX file (magic number {data[:4].hex()}); copy it again")
    dtype = TYPES.get(data[2])
    if dtype is None:
        raise FileError(
            f"{name}: IDX type 0x{data[2]:02x}; unsigned bytes (0x08) and int32 (0x0c) are read"
        )
    dimensions = data[3]
    if not 1 <= dimensions <= 3:
        raise FileError(f"{name}: IDX with {dimensions} dimensions; labels have 1, images 3")
    offset = 4 + 4 * dimensions
    if len(data) < offset:
        raise FileError(f"{name}: truncated in the IDX header; copy it again")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, offset, 4))
    expected = dtype.itemsize
    for size in shape:
        expected *= size
    if len(data) - offset != expected:
        state = "truncated" if len(data) - offset < expected else "too long"
        raise FileError(
            f"{name}: {state}: the header promises {expected} bytes of data, "
            f"there are {len(data) - offset}; copy it again"
        )
    try:
        return np.frombuffer(data, dtype, offset=offset).reshape(shape)
    except ValueError:  # such as 0 x 4294967295 x 4294967295
        raise FileError(f"{name}: no array has the header's shape {shape}; copy it again") from None
