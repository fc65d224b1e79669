"""The checksum that a model file states of itself, and that `device/runner.py` reads."""

from __future__ import annotations

import zlib

DIGITS = "0" * 8
KEY = "crc32"


def seal(packed: bytes) -> bytes:
    """Put the CRC-32 of a file into it.

    Args:
        packed: The file, which somewhere holds JSON with `"crc32": "00000000"`.

    Returns:
        The file with its CRC-32 there, which is taken with its own digits as zeros.

    Raises:
        ValueError: The file has no such place, or several.
    """
    place = f'"{KEY}": "{DIGITS}"'.encode()
    if packed.count(place) != 1:
        raise ValueError(f"{packed.count(place)} places for a checksum")
    return packed.replace(place, f'"{KEY}": "{zlib.crc32(packed):08x}"'.encode())
