"""Two benchmarks of the same rows, before and after a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from device.bench.rows import median_ci95
from pipeline.files import UserError
from pipeline.table import markdown_table

Key = tuple[str, str, int, int]  # artifact, runtime, threads, batch
Interval = tuple[float, float]  # of 95 % confidence
Latency = tuple[float, Interval | None]  # the median of the launches' medians, in us


@dataclass(frozen=True)
class Change:
    """One row before and after."""

    key: Key
    before: Latency | str  # without a valid figure a status: "not_run", "invalid" or "missing"
    after: Latency | str
    # How much longer it takes after, in per cent. None: either is missing.
    percent: float | None = None
    percent_ci: Interval | None = None  # from the ends of both, so at least 95 %
    verdict: str = ""  # "regressed": slower than is allowed, or no longer runs; "cannot be judged"


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], max_regression_pct: float
) -> tuple[Change, ...]:
    """Compare the rows of two results, as bench.json holds them.

    A row may take `max_regression_pct` longer. One beyond it has regressed when the interval of
    the change leaves zero out: noise is no regression. Without an interval it cannot be judged. On
    all cores, which wait for whatever else the machine does, no time is judged.

    Returns:
        One change a row that is ok in `before`, then the rows that are new.

    Raises:
        UserError: No row that is ok in `before` is in `after`.
    """
    old, new = _latencies(before), _latencies(after)
    valid = [key for key, latency in old.items() if not isinstance(latency, str)]
    if not new.keys() & set(valid):
        raise UserError("--compare: no model and runtime are in both results; name another file")
    valid += [key for key, latency in new.items() if not isinstance(latency, str)]
    absent = "interrupted" if after["method"]["interrupted"] else "missing"
    return tuple(
        _change(key, old.get(key, "missing"), new.get(key, absent), max_regression_pct)
        for key in dict.fromkeys(valid)
    )


def _latencies(result: Mapping[str, Any]) -> dict[Key, Latency | str]:
    latencies: dict[Key, Latency | str] = {}
    for row in result["rows"]:
        medians_us = [median(launch) for launch in row["rounds_us"] or ()]
        latencies[row["artifact"], row["runtime"], row["threads"], row["batch"]] = (
            (median(medians_us), median_ci95(medians_us))
            if row["status"] == "ok"
            else row["status"]
        )
    return latencies


def _change(
    key: Key, before: Latency | str, after: Latency | str, max_regression_pct: float
) -> Change:
    if isinstance(after, str):
        # Such as a throttled row: it ran, but its time says nothing.
        judged = after not in ("invalid", "interrupted")
        return Change(key, before, after, verdict="regressed" if judged else "cannot be judged")
    if isinstance(before, str):
        return Change(key, before, after)
    percent = 100 * (after[0] / before[0] - 1)
    interval = None
    if before[1] and after[1]:
        low, high = after[1][0] / before[1][1], after[1][1] / before[1][0]
        interval = (100 * (low - 1), 100 * (high - 1))
    verdict = ""
    if percent > max_regression_pct and key[2] == 1 and (interval is None or interval[0] > 0):
        verdict = "regressed" if interval else "cannot be judged"
    return Change(key, before, after, percent, interval, verdict)


def format_changes(changes: Sequence[Change]) -> str:
    """The changes as a Markdown table."""
    header = ["artifact", "runtime", "threads", "batch", "before, µs", "after, µs"]
    rows = [
        [
            *map(str, change.key),
            *(_text(latency, ".2f") for latency in (change.before, change.after)),
            "" if change.percent is None else _text((change.percent, change.percent_ci), "+.1f"),
            change.verdict,
        ]
        for change in changes
    ]
    return markdown_table([*header, "change, % (95 % CI)", ""], rows)


def _text(value: Latency | str, form: str) -> str:
    """A figure with its interval, or a status."""
    if isinstance(value, str):
        return value
    figure, interval = value
    ends = " to ".join(format(end, form) for end in interval or ())
    return format(figure, form) + (f" ({ends})" if ends else "")
