"""What a benchmark says, in words that are computed from its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from device.bench.rows import median_ci95, name, percentile, ratios_of, three_figures, valid_rows
from device.runner import RUNTIMES

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

    def __str__(self) -> str:
        value, low, high = map(three_figures, (self.value, self.low, self.high))
        return f"{value} times (95 % CI {low} to {high})"


def ratio_of(slow: Row, fast: Row) -> Ratio | None:
    """The ratio of two rows' latencies; None with too few rounds for an interval."""
    ratios = ratios_of(slow["rounds_us"], fast["rounds_us"])
    interval = median_ci95(ratios)
    return Ratio(median(ratios), *interval) if interval else None


def p50_us(row: Row) -> float:
    """The median latency."""
    return float(row["latency_us"]["p50"])


def reads_worse(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a row's accuracy is far below the best one's; False where images had no labels."""
    known = [other["accuracy"] for other in rows if other["accuracy"] is not None]
    return row["accuracy"] is not None and bool(row["accuracy"] < max(known) - READS_WORSE)


def rows_to_ship(result: Mapping[str, Any]) -> list[Row]:
    """The valid rows that a device can run (Keras and WebAssembly are for others), fastest first.

    Without those that read far worse than the best.
    """
    single = valid_rows(result)
    runtimes = {runtime for names in RUNTIMES.values() for runtime in names}
    usable = [row for row in single if row["runtime"] in runtimes and not reads_worse(row, single)]
    return sorted(usable, key=p50_us)


def findings(result: Mapping[str, Any]) -> list[str]:
    """What bench.json says, of rows that are ok: nothing unmeasured is recommended."""
    single = valid_rows(result)
    worse = [row for row in single if reads_worse(row, single)]
    lines = [
        f"{name(row)} reads only {row['accuracy']:.2%} of the images right: it is left out of all "
        "that follows."
        for row in worse
    ]
    if rows := rows_to_ship(result):
        shipped = set(map(name, rows))
        timed = [row for row in result["rows"] if row["status"] == "ok" and name(row) in shipped]
        keras = [
            row for row in single if row["runtime"] == "keras" and not reads_worse(row, single)
        ]
        lines += [*what_to_ship(rows), *against_keras(keras, rows[0]), *float_or_int8(rows)]
        lines += [throughput(timed), *start_and_memory(rows), *overhead(rows), steadiness(rows)]
    return lines


def what_to_ship(rows: Sequence[Row]) -> Iterator[str]:
    """The fastest row, and the smallest file when that is another one."""
    fastest, *others = rows
    equals = [name(row) for row in others if (r := ratio_of(row, fastest)) and r.low <= 1.0]
    yield (
        f"The fastest is {name(fastest)}: a median of {p50_us(fastest):.1f} µs "
        "for an image"
        + (f"; it is not shown that {', '.join(equals)} takes longer." if equals else ".")
    )
    smallest = min(rows, key=lambda row: (row["size_bytes"], p50_us(row)))
    if smallest["size_bytes"] < fastest["size_bytes"] and (slower := ratio_of(smallest, fastest)):
        # What is loaded counts, not its source.
        library = " as a compiled library" if smallest["runtime"] == "native" else ""
        yield (
            f"The smallest is {smallest['artifact']}, {smallest['size_bytes'] / 1000:.1f} kB"
            f"{library}, {fastest['size_bytes'] / smallest['size_bytes']:.2g} times smaller; on "
            f"{smallest['runtime']}, where it is fastest, it takes {slower} as long."
        )


def against_keras(keras: Sequence[Row], fastest: Row) -> Iterator[str]:
    """How much the fastest gains on the model that people start from."""
    for row in keras:
        if gain := ratio_of(row, fastest):
            yield f"{name(row)} takes {gain} as long as {name(fastest)}."


def float_or_int8(rows: Sequence[Row]) -> Iterator[str]:
    """Which of the two is faster, on each runtime that ran both."""
    by_name = {name(row): row for row in rows}
    for row in sorted(rows, key=name):
        int8 = by_name.get(name(row).replace("fp32", "int8"), row)
        ratio, inverse = ratio_of(int8, row), ratio_of(row, int8)
        if int8 is row or not ratio or not inverse:
            continue
        says, twin = f"On {row['runtime']}", f"({int8['artifact']})."
        if ratio.low <= 1 <= ratio.high:
            yield f"{says} float32 and int8 take the same time: {ratio}."
        elif ratio.value > 1:
            yield f"{says} int8 takes {ratio} as long as float32 {twin}"
        else:
            yield f"{says} float32 takes {inverse} as long as int8 {twin}"


def throughput(rows: Sequence[Row]) -> str:
    """The most images a second, and how many times those of one thread they are."""
    best = max(rows, key=lambda row: float(row["throughput_ips"]))
    threads = "one thread" if best["threads"] == 1 else f"{best['threads']} threads"
    images = f"batches of {best['batch']}" if best["batch"] > 1 else "one image at a time"
    gains = [
        f"{best['throughput_ips'] / row['throughput_ips']:.2g}"
        for row in rows
        if best["threads"] > row["threads"] == 1
        and (name(row), row["batch"]) == (name(best), best["batch"])
    ]
    more = "no more than" if gains == ["1"] else f"{''.join(gains)} times as many as"
    return (
        f"The most images a second, {best['throughput_ips']:,.0f}, come from {name(best)} with "
        f"{images} and {threads}{f', {more} with one thread' if gains else ''}."
    )


def start_and_memory(rows: Sequence[Row]) -> Iterator[str]:
    """The quickest start and the least memory."""
    if started := [row for row in rows if row["cold_start_ms"]]:
        row = min(started, key=lambda row: float(row["cold_start_ms"]["total"]))
        yield (
            "{0} starts quickest: {total:.0f} ms (interpreter {interpreter:.0f}, import "
            "{import:.0f}, load {load:.1f}, first answer {first:.1f})."
        ).format(name(row), **row["cold_start_ms"])
    if weighed := [row for row in rows if row["peak_rss_mib"]]:
        row = min(weighed, key=lambda row: float(row["peak_rss_mib"]))
        yield f"{name(row)} takes the least memory: {row['peak_rss_mib']:.0f} MiB."


def overhead(rows: Sequence[Row]) -> Iterator[str]:
    """What the runner adds to the runtime's own call, at most."""
    added_us = [p50_us(row) - row["invoke_us"]["p50"] for row in rows if row["invoke_us"]]
    if added_us:
        yield (
            f"The runner adds {min(added_us):.1f} to {max(added_us):.1f} µs to the runtime's own "
            "call, by the medians."
        )


def steadiness(rows: Sequence[Row]) -> str:
    """How far the rounds of one row differ: more than a few per cent on a machine that is busy."""
    spreads = {}
    for row in rows:
        rounds = sorted(us for launch in row["rounds_us"] for us in launch)
        middle_half = percentile(rounds, 75) - percentile(rounds, 25)
        spreads[name(row)] = middle_half / percentile(rounds, 50)
    most = max(spreads, key=lambda row: spreads[row])
    return (
        f"{most} is the least steady: from round to round its median varies by "
        f"{spreads[most]:.1%} (interquartile range)."
    )
