"""Reading what `make bench` wrote, here or on a device: a file that may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device.bench.result import SCHEMA_VERSION, BenchResult
from pipeline.config import from_table
from pipeline.files import UserError


def read_result(path: Path) -> BenchResult:
    """Read a result and check all of it.

    Args:
        path: Such as bench.json.

    Raises:
        UserError: It is missing, of another version, or anything else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; `make bench` writes such a file") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON, and so not a result of `make bench`") from None
    return check_result(value, str(path))


def check_result(value: Any, where: str) -> BenchResult:
    """Check all that a result holds.

    Args:
        value: Of JSON.
        where: What to call it in an error.

    Raises:
        UserError: It is not a result of this version; the message says where it differs.
    """
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{where}: not a result of this version's `make bench`; measure again")
    return from_table(BenchResult, value, where)
