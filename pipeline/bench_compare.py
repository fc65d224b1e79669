"""Two benchmarks of the same rows, before and after a change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.table import markdown_table

Key = tuple[str, str, int, int]  # artifact, runtime, threads, batch
Interval = tuple[float, float]


@dataclass(frozen=True)
class Change:
    """One row before and after.

    Attributes:
        key: Artifact, runtime, threads, batch.
        before_us, after_us: The medians of the rounds' medians, with their 95 % intervals; None
            where the row did not run.
        percent: How much longer it takes after; None where either is missing.
        percent_ci: From the ends of both intervals, so at least 95 %; None with too few rounds.
        regressed: Whether it takes longer than is allowed, or no longer runs.
    """

    key: Key
    before_us: tuple[float, Interval | None] | None
    after_us: tuple[float, Interval | None] | None
    percent: float | None
    percent_ci: Interval | None
    regressed: bool


def compare(
    before: dict[str, Any], after: dict[str, Any], max_regression_pct: float
) -> tuple[Change, ...]:
    """Compare the rows of two results.

    Args:
        before: What bench.json holds.
        after: Likewise.
        max_regression_pct: How much longer a row may take. One beyond it has regressed when the
            interval of the change leaves zero out: noise is no regression.

    Returns:
        One change a row of `before`, then the rows that are new.
    """
    old, new = _latencies(before), _latencies(after)
    return tuple(
        _change(key, old.get(key), new.get(key), max_regression_pct) for key in {**old, **new}
    )


def _latencies(result: dict[str, Any]) -> dict[Key, tuple[float, Interval | None]]:
    latencies = {}
    for row in result["rows"]:
        if row["status"] == "ok":
            interval = row["rounds"]["p50_ci95_us"]
            key = (row["artifact"], row["runtime"], row["threads"], row["batch"])
            latencies[key] = (row["rounds"]["median_us"], tuple(interval) if interval else None)
    return latencies


def _change(
    key: Key,
    before: tuple[float, Interval | None] | None,
    after: tuple[float, Interval | None] | None,
    max_regression_pct: float,
) -> Change:
    if before is None or after is None:
        return Change(key, before, after, None, None, regressed=after is None)
    percent = 100 * (after[0] / before[0] - 1)
    interval = None
    if before[1] and after[1]:
        low, high = after[1][0] / before[1][1], after[1][1] / before[1][0]
        interval = (100 * (low - 1), 100 * (high - 1))
    shown = interval is not None and interval[0] > 0
    return Change(key, before, after, percent, interval, shown and percent > max_regression_pct)


def format_changes(changes: Sequence[Change]) -> str:
    """The changes as a Markdown table."""
    header = ["artifact", "runtime", "threads", "batch", "before, us", "after, us"]
    header += ["change (95 % CI)", ""]
    rows = []
    for change in changes:
        text = "" if change.percent is None else f"{change.percent:+.1f} %"
        if change.percent_ci:
            text += " ({:+.1f} to {:+.1f})".format(*change.percent_ci)
        cells = [*map(str, change.key), _text(change.before_us), _text(change.after_us), text]
        rows.append([*cells, "regressed" if change.regressed else ""])
    return markdown_table(header, rows)


def _text(latency: tuple[float, Interval | None] | None) -> str:
    if latency is None:
        return "not run"
    value, interval = latency
    return f"{value:.2f}" + (" ({:.2f} to {:.2f})".format(*interval) if interval else "")
