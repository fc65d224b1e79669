"""Reading what `make bench` wrote, here or on a device: a file that may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device.bench.rows import SCHEMA_VERSION
from pipeline.files import UserError

# A form is a test of a value; a dict of forms by key, all of which must be there; a list of one
# form, for any number of values; a list of two, for a pair; or a tuple of alternatives.
Form = Callable[[Any], bool] | dict[str, Any] | list[Any] | tuple[Any, ...]


def text(value: Any) -> bool:
    """A string that a terminal only prints."""
    return isinstance(value, str) and value.isprintable()


def flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def nothing(value: Any) -> bool:
    """JSON's null."""
    return value is None


def number(value: Any) -> bool:
    """A number that can be calculated with: JSON as Python reads it also has NaN and Infinity."""
    return isinstance(value, int | float) and not flag(value) and -1e300 < value < 1e300


def positive(value: Any) -> bool:
    """A number above zero."""
    return number(value) and value > 0


def count(value: Any) -> bool:
    """An integer above zero."""
    return isinstance(value, int) and positive(value)


def launches(value: Any) -> bool:
    """For each launch the figures of its rounds, none of them empty."""
    rounds = value if isinstance(value, list) else []
    return bool(rounds) and all(launch and has_form(launch, [positive]) for launch in rounds)


def quantiles(value: Any) -> bool:
    """Evenly spaced quantiles, the least and the greatest value among them."""
    return has_form(value, [positive]) and len(value) > 1


LATENCY = dict.fromkeys(("min", "p50", "p90", "p99", "mean"), number)
COLD_START = {
    **dict.fromkeys(("interpreter", "import", "load", "first", "total"), number),
    "processes": count,
}
HOST = {"board": text, "cpu": text, "cores": count, "system": text, "python": text}
METHOD = {
    "images": count,
    "p90_confidence": text,
    "baseline": (nothing, text),
    "timer_overhead_ns": (nothing, number),
    "interrupted": flag,
}
ROW = {
    **dict.fromkeys(("artifact", "runtime", "status", "reason"), text),
    **dict.fromkeys(("threads", "batch"), count),
    "runtime_version": (nothing, text),
    "size_bytes": (nothing, count),
    **dict.fromkeys(("latency_us", "invoke_us"), (nothing, LATENCY)),
    "cold_start_ms": (nothing, COLD_START),
    "ratio_ci95": (nothing, [number, number]),
    **dict.fromkeys(("accuracy", "throughput_ips"), (nothing, number)),
    **dict.fromkeys(("peak_rss_mib", "ratio_to_baseline"), (nothing, number)),
}
OK_ROW = {
    "size_bytes": count,
    "calls": count,
    "latency_us": LATENCY,
    "throughput_ips": positive,
    "quantiles_us": quantiles,
    "rounds": {
        "p50_us": launches,
        "median_us": positive,
        "p50_ci95_us": (nothing, [positive, positive]),
        "iqr_pct": number,
    },
}
RESULT = {"host": HOST, "method": METHOD, "rows": [ROW]}


def read_result(path: Path) -> dict[str, Any]:
    """Read a result, and check all of it that is used.

    Args:
        path: Such as bench.json.

    Raises:
        UserError: It is missing or something else.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: missing; `make bench` writes such a file") from None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict) and value.get("schema_version") in range(1, SCHEMA_VERSION):
        raise UserError(f"{path}: of an older version of the benchmark; measure again")
    if not is_result(value):
        raise UserError(f"{path}: not a result of `make bench`")
    return value  # type: ignore[no-any-return]


def is_result(value: Any) -> bool:
    """Whether a value is a result of the present schema version."""
    if not has_form(value, RESULT) or value.get("schema_version") != SCHEMA_VERSION:
        return False
    return all(
        (row["status"] != "ok" or has_form(row, OK_ROW))
        and has_form(row.get("sha256"), (nothing, text))
        for row in value["rows"]
    )


def has_form(value: Any, form: Form) -> bool:
    """Whether a value of JSON has a form."""
    if isinstance(form, dict):
        return isinstance(value, dict) and all(
            key in value and has_form(value[key], part) for key, part in form.items()
        )
    if isinstance(form, tuple):
        return any(has_form(value, alternative) for alternative in form)
    if isinstance(form, list):
        if not isinstance(value, list):
            return False
        forms = form * len(value) if len(form) == 1 else form
        return len(value) == len(forms) and all(map(has_form, value, forms))
    return form(value)
