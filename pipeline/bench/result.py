"""Reading what `make bench` wrote, here or on a device: a file that may come from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device.bench.result import SCHEMA_VERSION, BenchResult
from pipeline.config import from_table
from pipeline.files import UserError

FIGURES = (  # that a row has, all or none
    *("runtime_version", "size_bytes", "calls", "latency_us", "quantiles_us", "throughput_ips"),
    "rounds_us",
)


def read_result(path: Path) -> dict[str, Any]:
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
        raise UserError(f"{path}: not JSON; name a file that `make bench` wrote") from None
    return check_result(value, str(path))


def check_result(value: Any, where: str) -> dict[str, Any]:
    """Check all that a result holds.

    Args:
        value: Of JSON.
        where: What to call it in an error.

    Raises:
        UserError: It is not a result of this version; the message says where it differs.
    """
    if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{where}: not a result of this version's `make bench`; measure again")
    result: dict[str, Any] = {**from_table(BenchResult, value, where)}
    for i, row in enumerate(result["rows"]):
        missing = [key for key in FIGURES if row[key] is None]
        if missing and (row["status"] == "ok" or len(missing) < len(FIGURES)):
            raise UserError(f"{where}: rows[{i}]: {missing[0]} is missing; measure again")
    return result
