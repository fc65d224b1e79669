"""The checksum that a model file states of itself, and that `device/runner.py` reads."""

from __future__ import annotations

import zlib

DIGITS = "0" * 8
KEY = "crc32"


def seal(packed: bytes) -> bytes:
    """Put the CRC-32 of a file, taken with its own digits as zeros, into the file.

    Raises:
        ValueError: JSON with `"crc32": "00000000"` is not there, or more than once.
    """
    place = f'"{KEY}": "{DIGITS}"'.encode()
    if packed.count(place) != 1:
        raise ValueError(f"{packed.count(place)} places for a checksum")
    return packed.replace(place, f'"{KEY}": "{zlib.crc32(packed):08x}"'.encode())
