"""Reading files, plain or gzipped, and IDX, the format of MNIST."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 256 * 2**20  # a larger file is a mistake or an attack


class FileError(ValueError):
    """A file that cannot be read or is not of its form; the message says what is wrong."""


def is_idx(path: Path) -> bool:
    """Whether the name is that of an IDX file, such as `t10k-images-idx3-ubyte.gz`."""
    name = path.name[:-3] if path.suffix == ".gz" else path.name
    return name.endswith(("-ubyte", ".idx", ".idx1", ".idx3"))


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file: `read_bytes`, then `parse_idx`."""
    return parse_idx(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Read a whole file, decompressed when it is gzipped (`*.gz`).

    Raises:
        FileError: It cannot be read, is empty, too large, or its gzip data is damaged.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
            return read_stream(stream, str(path))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None)
        if reason:
            raise FileError(f"{path}: cannot be read ({reason})") from None
        raise FileError(f"{path}: damaged gzip data ({error}); copy the file again") from None


def read_stream(stream: Any, name: str) -> bytes:
    """The rest of a binary stream; FileError if it is empty or larger than `MAX_BYTES`."""
    data = bytearray()
    # One read(limit) would reserve the limit at once, more than a small board has.
    while len(data) <= MAX_BYTES and (chunk := stream.read(2**20)):
        data += chunk
    if not data:
        raise FileError(f"{name}: the file is empty")
    if len(data) > MAX_BYTES:
        raise FileError(f"{name}: larger than {MAX_BYTES // 2**20} MiB")
    return bytes(data)


def parse_idx(data: bytes, name: str) -> np.ndarray:
    """Parse the bytes of an IDX file.

    Args:
        data: Two zero bytes, the type code 0x08 (unsigned byte), the number of dimensions, each
            dimension as a big-endian uint32, then the elements.
        name: What to call the file in an error.

    Returns:
        A read-only uint8 array of the shape in the header.

    Raises:
        FileError: The magic number is wrong or the length differs from the header's.

    Source: "The IDX file format", http://yann.lecun.com/exdb/mnist/.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise FileError(f"{name}: not an IDX file (magic number {data[:4].hex()})")
    if data[2] != 0x08:
        raise FileError(f"{name}: IDX type 0x{data[2]:02x}; only unsigned bytes (0x08) are read")
    dimensions = data[3]
    if not 1 <= dimensions <= 3:
        raise FileError(f"{name}: IDX with {dimensions} dimensions; labels have 1, images 3")
    offset = 4 + 4 * dimensions
    if len(data) < offset:
        raise FileError(f"{name}: truncated in the IDX header")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, offset, 4))
    expected = 1
    for size in shape:
        expected *= size
    if len(data) - offset != expected:
        state = "truncated" if len(data) - offset < expected else "too long"
        raise FileError(
            f"{name}: {state}: the header promises {expected} bytes of data, "
            f"there are {len(data) - offset}"
        )
    try:
        return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
    except ValueError:  # such as 0 x 4294967295 x 4294967295
        raise FileError(f"{name}: numpy has no arrays of the header's shape {shape}") from None
