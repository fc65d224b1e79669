"""From what `rounds.py` measured to the rows of bench.json, and to tables for a reader."""

from __future__ import annotations

import hashlib
import math
from statistics import median
from typing import Any, Mapping, Sequence

from .machine import describe_machine
from .processes import COLD_START_PARTS, BenchSubject
from .rounds import Benchmark, Measurement

SCHEMA_VERSION = 3  # pipeline/bench/result.py says what a result holds, and checks files
ALL_FIGURES = (  # that a row without any has as None
    *("runtime_version", "accuracy", "calls", "latency_us", "invoke_us", "quantiles_us"),
    *("throughput_ips", "rounds_us", "cold_start_ms", "peak_rss_mib", "size_bytes"),
    *("ratio_to_baseline", "ratio_ci95"),
)
# MLPerf Inference: so many queries bound the 90th percentile to half a percent with 99 %
# confidence (policies/inference_rules.adoc, "Number of queries": 23,886, in units of 2**13).
MLPERF_P90_CALLS = 24_576
NOTES = [
    "latency_us: for one image Classifier.classify, a uint8 28x28 image in, label and probability "
    "out; for more Classifier.predict; the clock's own time is included",
    "invoke_us: the runtime's own call alone, on an input that is in place",
    "percentiles: nearest rank, of all timed calls",
    "rounds: each times every row once, in a new random order; the others are loaded and asleep",
    "ratio_to_baseline: of the median latencies in the same round; the median of a launch's "
    "rounds, then of the launches, with its 95 % confidence interval from order statistics",
    "size_bytes: of the file that is loaded; of C, its compiled library",
    "cold_start_ms: median of new processes; files are in the page cache, Python's modules are "
    "compiled, BLAS has one thread",
    "peak_rss_mib: median of the same processes, VmHWM",
]


# --- Figures --------------------------------------------------------------------------------


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of ascending values; 0 gives the least."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def quantiles_us(times_ns: Sequence[int]) -> list[float]:
    """The 0th to 100th percentile in us."""
    ordered = sorted(times_ns)
    return [round(percentile(ordered, percent) / 1000, 3) for percent in range(101)]


def summarize_us(times_ns: Sequence[int]) -> dict[str, float]:
    """Least, percentiles and mean in us."""
    quantiles = quantiles_us(times_ns)
    mean = round(sum(times_ns) / len(times_ns) / 1000, 3)
    p50, p90, p99 = quantiles[50], quantiles[90], quantiles[99]
    return {"min": quantiles[0], "p50": p50, "p90": p90, "p99": p99, "mean": mean}


def median_ci95(values: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % confidence interval of the median, from order statistics.

    It assumes nothing about the distribution, which for times has a long tail: each value lies
    below the median with probability 1/2, so that their number is binomial.

    Returns:
        (lower, upper); None for fewer than 6 values: even their least and greatest are not enough.

    Source: H. A. David and H. N. Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1.
    """
    ordered, n = sorted(values), len(values)
    below, rank = 0.0, -1  # P(at most `rank` values lie below the median)
    while below + math.comb(n, rank + 1) / 2.0**n <= 0.025:
        rank += 1
        below += math.comb(n, rank) / 2.0**n
    return (ordered[rank], ordered[n - 1 - rank]) if rank >= 0 else None


Launches = Sequence[Sequence[float]]  # in each launch of a subject, a figure of each round


def round_medians_us(measurement: Measurement) -> list[list[float]]:
    """The median duration of each round's calls in us, for each launch that has any."""
    return [
        [round(median(burst["call"]) / 1000, 4) for burst in launch]
        for launch in measurement.launches
        if launch
    ]


def ratios_of(values: Launches, baseline: Launches) -> list[float]:
    """For each launch that both have, the median of the ratios of its rounds.

    The ratio is taken within a round, because what the machine does then slows both. The rounds of
    a launch are alike, since a process keeps its place in memory: only launches are independent.
    """
    return [
        median(value / base for value, base in zip(launch, base_launch))
        for launch, base_launch in zip(values, baseline)
    ]


# --- The result -----------------------------------------------------------------------------


def describe(benchmark: Benchmark) -> dict[str, Any]:
    """What bench.json holds (`pipeline/bench/result.py`), after `run` or what it has of it."""
    measured = [m for m in benchmark.measurements if m.bursts]
    single = {m.subject: m for m in measured if m.is_single}
    baseline = next(iter(single.values()), None)
    rows = []
    for subject in benchmark.subjects:
        if subject in single:
            cold = benchmark.cold_starts.get(subject, [])
            rows.append(measured_row(single[subject], baseline, cold))
        else:
            reason = benchmark.failed.get(subject, "interrupted before its first round")
            rows.append({**new_row(subject, 1, 1), "status": "not_run", "reason": reason})
    rows += [measured_row(m, None, []) for m in measured if not m.is_single]
    states = {"before": benchmark.before, "after": benchmark.after}
    return {
        "schema_version": SCHEMA_VERSION,
        "host": {**describe_machine(), **states},
        "method": describe_method(benchmark, list(single.values())),
        "rows": rows,
    }


def describe_method(benchmark: Benchmark, single: Sequence[Measurement]) -> dict[str, Any]:
    """How it was measured, in figures and words."""
    # As made, not as planned: fewer when it was interrupted, and of a subject with a share.
    fewest = min((sum(len(burst["call"]) for burst in m.bursts) for m in single), default=0)
    overheads_ns = [m.about["timer_overhead_ns"] for m in single]
    first = single[0].subject if single else None
    return {
        "baseline": first and f"{first.file} on {first.runtime}",
        "launches": benchmark.effort.launches,
        "rounds_per_launch": benchmark.effort.rounds,
        "calls_per_round": benchmark.effort.calls,
        "images": len(benchmark.images),
        "pinned_core": benchmark.cores[-1],
        "timer_overhead_ns": median(overheads_ns) if overheads_ns else None,
        "p90_confidence": f"each row has at least {fewest:,} timed calls; MLPerf asks for "
        f"{MLPERF_P90_CALLS:,} to know p90 with 99 % confidence",
        "seconds": round(benchmark.seconds, 1),
        "interrupted": benchmark.interrupted,
        "notes": NOTES,
    }


def new_row(subject: BenchSubject, threads: int, batch: int) -> dict[str, Any]:
    """A row without figures."""
    data = subject.artifact.read_bytes() if subject.artifact.is_file() else None
    return {
        **dict.fromkeys(ALL_FIGURES),
        "artifact": subject.file,
        "runtime": subject.runtime,
        "threads": threads,
        "batch": batch,
        "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
    }


def measured_row(
    measurement: Measurement, baseline: Measurement | None, cold: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One row.

    Args:
        measurement: What was measured, one complete round at least.
        baseline: What it is compared with; None: no ratio.
        cold: Its cold starts, of `time_cold_start`.
    """
    started = [start for start in cold if start]
    failed = len(cold) - len(started)
    reasons = [measurement.reason, measurement.throttling]
    reasons.append(f"{failed} of {len(cold)} cold starts failed" if failed else "")
    reason = "; ".join(filter(None, reasons))
    bursts, rounds_us = measurement.bursts, round_medians_us(measurement)
    calls_ns = [ns for burst in bursts for ns in burst["call"]]
    invokes_ns = [ns for burst in bursts for ns in burst.get("invoke", [])]
    ratios = ratios_of(rounds_us, round_medians_us(baseline)) if baseline else []
    peaks_mib = [s["peak_rss_mib"] for s in started if s["peak_rss_mib"] is not None]
    return {
        **new_row(measurement.subject, measurement.threads, measurement.batch),
        "status": "invalid" if reason else "ok",
        "reason": reason,
        "runtime_version": measurement.about["runtime_version"],
        "size_bytes": measurement.about["size_bytes"],
        "accuracy": measurement.accuracy,
        "calls": len(calls_ns),
        "latency_us": summarize_us(calls_ns),
        "invoke_us": summarize_us(invokes_ns) if invokes_ns else None,
        "quantiles_us": quantiles_us(calls_ns),
        "throughput_ips": round(measurement.batch * 1e9 * len(calls_ns) / sum(calls_ns), 1),
        "rounds_us": rounds_us,
        "cold_start_ms": summarize_cold_starts(started) if started else None,
        "peak_rss_mib": round(median(peaks_mib), 1) if peaks_mib else None,
        "ratio_to_baseline": median(ratios) if ratios else None,
        "ratio_ci95": median_ci95(ratios),
    }


def summarize_cold_starts(started: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians over the processes."""
    parts = (*COLD_START_PARTS, "total")
    medians = {part: round(median(start[part] for start in started), 2) for part in parts}
    return {**medians, "processes": len(started)}


# --- For a reader ---------------------------------------------------------------------------

HEADER = ("artifact", "runtime", "accuracy", "p50, µs", "p90, µs", "p99, µs", "than the baseline")
DETAIL_HEADER = (
    *("artifact", "runtime", "invoke, µs", "size, kB", "cold start, ms", "peak memory, MiB"),
    "calls",
)


def three_figures(value: float) -> str:
    """Such as 0.0000123, 1.23, 123 and 12,300: never with an exponent."""
    return f"{float(f'{value:.3g}'):,.10f}".rstrip("0").rstrip(".")


def faster_or_slower(ratio: float) -> str:
    """A ratio of latencies in words: "1,530 times faster", "1.4 times slower", "as fast"."""
    factor = three_figures(max(ratio, 1 / ratio))
    if factor == "1":
        return "as fast"
    return f"{factor} times {'faster' if ratio < 1 else 'slower'}"


def single_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one image at a time on one thread."""
    return [row for row in result["rows"] if row["threads"] == row["batch"] == 1]


def valid_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of `single_rows` whose figures may be used: of no throttled one, for one."""
    return [row for row in single_rows(result) if row["status"] == "ok"]


def table_cells(result: Mapping[str, Any]) -> list[list[str]]:
    """Latency, as texts under `HEADER`; of a row that is not ok its status."""
    cells = []
    for row in single_rows(result):
        texts = ["", row["status"], "", "", ""]
        if row["status"] == "ok":
            ratio = row["ratio_to_baseline"]
            is_baseline = ratio is None or name(row) == result["method"]["baseline"]
            latency = [f"{row['latency_us'][key]:.1f}" for key in ("p50", "p90", "p99")]
            compared = "" if is_baseline else faster_or_slower(ratio)
            texts = [cell(row["accuracy"], ".2%"), *latency, compared]
        cells.append([row["artifact"], row["runtime"], *texts])
    return cells


def detail_cells(result: Mapping[str, Any]) -> list[list[str]]:
    """Size, start and memory of the valid rows, as texts under `DETAIL_HEADER`."""
    return [
        [
            row["artifact"],
            row["runtime"],
            cell(row["invoke_us"] and row["invoke_us"]["p50"], ".1f"),
            cell(row["size_bytes"] / 1000, ".1f"),
            cell(row["cold_start_ms"] and row["cold_start_ms"]["total"], ".0f"),
            cell(row["peak_rss_mib"], ".0f"),
            cell(row["calls"], ",d"),
        ]
        for row in valid_rows(result)
    ]


def cell(value: Any, form: str) -> str:
    """A figure's text; empty where nothing was measured."""
    return "" if value is None else format(value, form)


def name(row: Mapping[str, Any]) -> str:
    """Such as "lenet5_int8.tflite on tflite-runtime"."""
    return f"{row['artifact']} on {row['runtime']}"


def format_result(result: Mapping[str, Any]) -> str:
    """The tables, why rows are missing, and how it was measured; for a terminal."""
    lines = [*aligned([HEADER, *table_cells(result)]), ""]
    lines += [*aligned([DETAIL_HEADER, *detail_cells(result)]), ""]
    lines += describe_problems(result)
    host, method = result["host"], result["method"]
    lines.append(f"{host['board']}, {host['cpu']}, {host['cores']} cores, {host['system']}")
    lines.append(f"baseline: {method['baseline']}; {method['p90_confidence']}")
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def describe_problems(result: Mapping[str, Any]) -> list[str]:
    """One line for each row that is not ok, and one for a run that was broken off."""
    lines = []
    for row in result["rows"]:
        threads, batch = row["threads"], row["batch"]
        where = "" if threads == batch == 1 else f", threads: {threads}, batch: {batch}"
        if row["status"] != "ok":
            lines.append(f"{name(row)}{where}: {row['status']}: {row['reason']}")
    if result["method"]["interrupted"]:
        lines.append("interrupted: the figures are of the rounds until then")
    return lines
