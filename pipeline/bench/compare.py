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
Interval = tuple[float, float]
Latency = tuple[float, Interval | None]


@dataclass(frozen=True)
class Change:
    """One row before and after.

    Attributes:
        key: Artifact, runtime, threads, batch.
        before, after: The medians of the launches' medians in us, with their 95 % intervals; a
            status instead where there is no valid figure: "not_run", "invalid" or "missing".
        percent: How much longer it takes after; None where either is missing.
        percent_ci: From the ends of both intervals, so at least 95 %; None with too few rounds.
        verdict: "regressed" when it takes longer than is allowed or no longer runs, "cannot be
            judged" when that is not known, else empty. On all cores, which wait for whatever else
            the machine does, no time is judged.
    """

    key: Key
    before: Latency | str
    after: Latency | str
    percent: float | None
    percent_ci: Interval | None
    verdict: str


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any], max_regression_pct: float
) -> tuple[Change, ...]:
    """Compare the rows of two results.

    Args:
        before: What bench.json holds.
        after: Likewise.
        max_regression_pct: How much longer a row may take. One beyond it has regressed when the
            interval of the change leaves zero out: noise is no regression. Without an interval
            it cannot be judged.

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
        key = (row["artifact"], row["runtime"], row["threads"], row["batch"])
        latencies[key] = row["status"]
        if row["status"] == "ok":
            medians_us = [median(launch) for launch in row["rounds_us"]]
            latencies[key] = (median(medians_us), median_ci95(medians_us))
    return latencies


def _change(
    key: Key, before: Latency | str, after: Latency | str, max_regression_pct: float
) -> Change:
    if isinstance(after, str):
        # Such as a throttled row: it ran, but its time says nothing.
        verdict = "cannot be judged" if after in ("invalid", "interrupted") else "regressed"
        return Change(key, before, after, None, None, verdict)
    if isinstance(before, str):
        return Change(key, before, after, None, None, "")
    percent = 100 * (after[0] / before[0] - 1)
    interval = None
    if before[1] and after[1]:
        low, high = after[1][0] / before[1][1], after[1][1] / before[1][0]
        interval = (100 * (low - 1), 100 * (high - 1))
    verdict = ""
    if percent > max_regression_pct and key[2] == 1:
        if interval is None:
            verdict = "cannot be judged"
        elif interval[0] > 0:
            verdict = "regressed"
    return Change(key, before, after, percent, interval, verdict)


def format_changes(changes: Sequence[Change]) -> str:
    """The changes as a Markdown table."""
    header = ["artifact", "runtime", "threads", "batch", "before, us", "after, us"]
    header += ["change (95 % CI)", ""]
    rows = []
    for change in changes:
        text = "" if change.percent is None else f"{change.percent:+.1f} %"
        if change.percent_ci:
            text += " ({:+.1f} to {:+.1f})".format(*change.percent_ci)
        cells = [*map(str, change.key), _text(change.before), _text(change.after), text]
        rows.append([*cells, change.verdict])
    return markdown_table(header, rows)


def _text(latency: Latency | str) -> str:
    if isinstance(latency, str):
        return latency
    value, interval = latency
    return f"{value:.2f}" + (" ({:.2f} to {:.2f})".format(*interval) if interval else "")
