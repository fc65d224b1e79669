"""What a benchmark says, in words that are computed from its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from device.bench.rows import median_ci95, name, percentile, ratios_of, three_figures, valid_rows
from pipeline.artifacts import subjects

Row = Mapping[str, Any]
READS_WORSE = 0.02  # below the best accuracy: no longer the model that was trained


@dataclass(frozen=True)
class Ratio:
    """How many times as long one row takes as another, taken within the rounds.

    Attributes:
        value: The median over the rounds.
        low, high: Its 95 % confidence interval.
    """

    value: float
    low: float
    high: float

    @property
    def shows_difference(self) -> bool:
        """Whether the interval leaves 1 out."""
        return not self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        value, low, high = map(three_figures, (self.value, self.low, self.high))
        return f"{value} times (95 % CI {low} to {high})"


def ratio_of(slow: Row, fast: Row) -> Ratio | None:
    """The ratio of two rows' latencies; None with too few rounds for an interval."""
    ratios = ratios_of(slow["rounds_us"], fast["rounds_us"])
    interval = median_ci95(ratios)
    return Ratio(median(ratios), *interval) if interval else None


def findings(result: Mapping[str, Any]) -> list[str]:
    """The sentences; only of rows that are ok, so that nothing unmeasured is recommended.

    Args:
        result: What bench.json holds.
    """
    ok = [row for row in result["rows"] if row["status"] == "ok"]
    single = valid_rows(result)
    worse = [row for row in single if reads_worse(row, single)]
    lines = [
        f"{name(row)} reads only {row['accuracy']:.2%} of the images right: it is left out of all "
        "that follows."
        for row in worse
    ]
    ok = [row for row in ok if name(row) not in map(name, worse)]
    single = [row for row in single if row not in worse]
    shipped = [row for row in single if can_be_shipped(row)]
    if shipped:
        lines += [*what_to_ship(shipped), *against_baseline(single)]
        lines += [*float_or_int8(shipped), *throughput(ok), *start_and_memory(shipped)]
        lines += [*overhead(shipped), steadiness(shipped)]
    return lines


def reads_worse(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a row's accuracy is far below the best one's; False where images had no labels."""
    known = [other["accuracy"] for other in rows if other["accuracy"] is not None]
    return row["accuracy"] is not None and bool(row["accuracy"] < max(known) - READS_WORSE)


def can_be_shipped(row: Row) -> bool:
    """Whether a device can do what was timed: Keras is only what people start from."""
    return row["runtime"] in {subject.runtime for subject in subjects()}


def p50_us(row: Row) -> float:
    """The median latency."""
    return float(row["latency_us"]["p50"])


def what_to_ship(rows: Sequence[Row]) -> list[str]:
    """The fastest row, and the smallest file when that is another one."""
    fastest = min(rows, key=p50_us)
    equals = [
        row for row in rows if (r := ratio_of(row, fastest)) and row is not fastest and r.low <= 1.0
    ]
    lines = [
        f"For the shortest time an image on this machine ship {name(fastest)}: "
        f"p50 {p50_us(fastest):.1f} us"
        + (f"; no slower can be shown: {', '.join(map(name, equals))}." if equals else ".")
    ]
    smallest = min(rows, key=lambda row: (row["size_bytes"], p50_us(row)))
    if smallest["size_bytes"] < fastest["size_bytes"] and (slower := ratio_of(smallest, fastest)):
        share = fastest["size_bytes"] / smallest["size_bytes"]
        size = f"{smallest['size_bytes'] / 1000:.1f} kB"
        if smallest["runtime"] == "native":  # what is loaded counts, not its source
            size += " as a compiled library"
        lines.append(
            f"The smallest is {smallest['artifact']}, {size}, "
            f"{share:.2g} times smaller; at its best, on {smallest['runtime']}, it takes {slower} "
            "as long."
        )
    return lines


def against_baseline(rows: Sequence[Row]) -> list[str]:
    """How much the fastest gains on the Keras model."""
    baseline = next((row for row in rows if row["runtime"] == "keras"), None)
    fastest = min(filter(can_be_shipped, rows), key=p50_us)
    if baseline is None or not (gain := ratio_of(baseline, fastest)):
        return []
    return [f"{name(baseline)} takes {gain} as long as {name(fastest)}."]


def float_or_int8(rows: Sequence[Row]) -> list[str]:
    """Which of the two is faster, on each runtime that ran both."""
    lines = []
    for row in rows:
        twin = row["artifact"].replace("fp32", "int8")
        other = find(rows, twin, row["runtime"])
        if twin == row["artifact"] or other is None or not (ratio := ratio_of(other, row)):
            continue
        if not ratio.shows_difference:
            lines.append(f"On {row['runtime']} float32 and int8 take the same time: {ratio}.")
        elif ratio.value > 1:
            lines.append(f"On {row['runtime']} int8 takes {ratio} as long as float32 ({twin}).")
        elif inverse := ratio_of(row, other):
            lines.append(f"On {row['runtime']} float32 takes {inverse} as long as int8 ({twin}).")
    return lines


def throughput(rows: Sequence[Row]) -> list[str]:
    """The most images a second."""
    best = max(filter(can_be_shipped, rows), key=lambda row: row["throughput_ips"])
    threads = "one thread" if best["threads"] == 1 else f"{best['threads']} threads"
    images = f"batches of {best['batch']}" if best["batch"] > 1 else "one image at a time"
    return [
        f"The most images a second, {best['throughput_ips']:,.0f}, come from {name(best)} with "
        f"{images} and {threads}."
    ]


def start_and_memory(rows: Sequence[Row]) -> list[str]:
    """The quickest start and the least memory."""
    lines = []
    starts = [(row, start) for row in rows if (start := row["cold_start_ms"])]
    if starts:
        row, parts = min(starts, key=lambda pair: pair[1]["total"])
        lines.append(
            f"The quickest cold start is {name(row)}: {parts['total']:.0f} ms "
            f"(interpreter {parts['interpreter']:.0f}, import {parts['import']:.0f}, "
            f"load {parts['load']:.1f}, first answer {parts['first']:.1f})."
        )
    peaks = [(row, peak) for row in rows if (peak := row["peak_rss_mib"])]
    if peaks:
        row, peak = min(peaks, key=lambda pair: pair[1])
        lines.append(f"{name(row)} takes the least memory: {peak:.0f} MiB.")
    return lines


def overhead(rows: Sequence[Row]) -> list[str]:
    """What the runner adds to the runtime's own call, at most."""
    added_us = [p50_us(row) - row["invoke_us"]["p50"] for row in rows if row["invoke_us"]]
    if not added_us:
        return []
    return [
        "From picture to label the runner adds to the runtime's own call, by the medians, "
        f"{min(added_us):.1f} to {max(added_us):.1f} us."
    ]


def steadiness(rows: Sequence[Row]) -> str:
    """How far the rounds of one row differ: more than a few per cent on a machine that is busy."""
    spreads = {}
    for row in rows:
        rounds = sorted(us for launch in row["rounds_us"] for us in launch)
        middle_half = percentile(rounds, 75) - percentile(rounds, 25)
        spreads[name(row)] = middle_half / percentile(rounds, 50)
    most = max(spreads, key=lambda row: spreads[row])
    return (
        f"From round to round the median latency of a row varies by at most {spreads[most]:.1%} "
        f"(interquartile range); {most} varies most."
    )


def find(rows: Sequence[Row], artifact: str, runtime: str) -> Row | None:
    """The row of that name."""
    matches = (row for row in rows if (row["artifact"], row["runtime"]) == (artifact, runtime))
    return next(matches, None)
