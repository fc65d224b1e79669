"""From what `rounds.py` measured to the rows of bench.json, and to a table for a reader."""

from __future__ import annotations

import hashlib
import math
from typing import Any, Mapping, Sequence

from .rounds import Benchmark, BenchSubject, Effort, Measurement

# MLPerf Inference: so many queries bound the 90th percentile to half a percent with 99 %
# confidence (policies/inference_rules.adoc, "Number of queries": 23,886, in units of 2**13).
MLPERF_P90_CALLS = 24_576
SCHEMA_VERSION = 3


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the least value that so many per cent do not exceed.

    Args:
        ordered: Ascending, at least one.
        percent: Above 0, at most 100.
    """
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summarize_us(times_ns: Sequence[int]) -> dict[str, float]:
    """min, p50, p90, p99 and mean in us."""
    ordered = sorted(times_ns)
    figures = {
        "min": ordered[0],
        "p50": percentile(ordered, 50),
        "p90": percentile(ordered, 90),
        "p99": percentile(ordered, 99),
        "mean": sum(ordered) / len(ordered),
    }
    return {key: round(value / 1000, 3) for key, value in figures.items()}


def quantiles_us(times_ns: Sequence[int]) -> list[float]:
    """The 0th to 100th percentile in us, for a plot of the distribution."""
    ordered = sorted(times_ns)
    percents = [percentile(ordered, percent) for percent in range(101)]
    return [round(value / 1000, 3) for value in percents]


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def median_ci95(values: Sequence[float]) -> tuple[float, float] | None:
    """A 95 % confidence interval of the median, from order statistics.

    It assumes nothing about the distribution, which for times has a long tail: each value lies
    below the median with probability 1/2, so that their number is binomial.

    Returns:
        (lower, upper); None for fewer than 6 values, which no two of can bound so surely.

    Source: H. A. David and H. N. Nagaraja, "Order Statistics", 3rd edition, 2003, section 7.1.
    """
    ordered, n = sorted(values), len(values)
    below, rank = 0.0, -1  # P(at most `rank` values lie below the median)
    while below + math.comb(n, rank + 1) / 2.0**n <= 0.025:
        rank += 1
        below += math.comb(n, rank) / 2.0**n
    return (ordered[rank], ordered[n - 1 - rank]) if rank >= 0 else None


Launches = Sequence[Sequence[float]]  # in each launch of a subject, a figure of each round


def round_medians_us(cell: Measurement, kind: str = "call") -> list[list[float]]:
    """The median duration in us of each round, by launch; launches without a round left out."""
    return [
        [round(median(burst[kind]) / 1000, 4) for burst in launch]
        for launch in cell.launches
        if launch
    ]


def ratios_of(values: Launches, baseline: Launches) -> list[float]:
    """For each launch the median of the ratios of its rounds, as far as both were measured.

    What the machine does in a round hits both, so that the ratio is taken there. Rounds that follow
    each other are alike, and a process keeps what luck it had with its memory: only the launches
    are independent of each other.
    """
    return [
        median([value / base for value, base in zip(launch, base_launch)])
        for launch, base_launch in zip(values, baseline)
    ]


def describe_cell(
    cell: Measurement, baseline: Measurement | None, cold: list[dict[str, float]]
) -> dict[str, Any]:
    """One row of bench.json.

    Args:
        cell: What was measured.
        baseline: What its ratio is taken to; None: no ratio.
        cold: Its cold starts.
    """
    kinds = {kind: [t for burst in cell.rounds for t in burst[kind]] for kind in cell.rounds[0]}
    rounds_us = round_medians_us(cell)
    medians_us = [median(launch) for launch in rounds_us]
    reasons = [cell.reason, cell.throttling]
    if lost := sum(1 for start in cold if not start):
        reasons.append(f"{lost} of {len(cold)} cold starts failed")
    reason = "; ".join(filter(None, reasons))
    row: dict[str, Any] = {
        **new_row(cell.subject, cell.threads, cell.batch),
        "runtime_version": cell.runtime_version,
        "size_bytes": cell.size_bytes,
        "status": "invalid" if reason else "ok",
        "reason": reason,
        "accuracy": cell.accuracy,
        "calls": len(kinds["call"]),
        "latency_us": summarize_us(kinds["call"]),
        "quantiles_us": quantiles_us(kinds["call"]),
        "throughput_ips": round(cell.batch * 1e9 * len(kinds["call"]) / sum(kinds["call"]), 1),
        "rounds": {
            "p50_us": rounds_us,
            "median_us": round(median(medians_us), 4),
            "p50_ci95_us": median_ci95(medians_us),
            "iqr_pct": round(100 * spread([us for launch in rounds_us for us in launch]), 2),
        },
    }
    if "invoke" in kinds:
        row["invoke_us"] = summarize_us(kinds["invoke"])
    if baseline is not None:
        ratios = ratios_of(rounds_us, round_medians_us(baseline))
        row["ratio_to_baseline"], row["ratio_ci95"] = median(ratios), median_ci95(ratios)
        row |= describe_cold_starts(cold)
    return row


def new_row(subject: BenchSubject, threads: int, batch: int) -> dict[str, Any]:
    """A row of bench.json in which nothing has been measured yet."""
    data = subject.artifact.read_bytes() if subject.artifact.is_file() else None
    return {
        "artifact": subject.file,
        "runtime": subject.runtime,
        "runtime_version": None,
        "threads": threads,
        "batch": batch,
        "status": "not_run",
        "reason": "",
        "accuracy": None,
        "calls": 0,
        "latency_us": None,
        "invoke_us": None,
        "throughput_ips": None,
        "cold_start_ms": None,
        "peak_rss_mib": None,
        "size_bytes": None,
        "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
        "ratio_to_baseline": None,
        "ratio_ci95": None,
    }


def describe_cold_starts(starts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians over the processes that worked."""
    starts = [start for start in starts if start]
    if not starts:
        return {}
    figures: dict[str, Any] = {
        part: round(median([start[part] for start in starts]), 2)
        for part in ("interpreter", "import", "load", "first", "total")
    }
    figures["total_ci95"] = median_ci95([start["total"] for start in starts])
    figures["processes"] = len(starts)
    peaks = [start["peak_rss_mib"] for start in starts if start["peak_rss_mib"] is not None]
    peak = round(median(peaks), 1) if peaks else None
    return {"cold_start_ms": figures, "peak_rss_mib": peak}


def spread(values: Sequence[float]) -> float:
    """The interquartile range over the median."""
    ordered = sorted(values)
    return (percentile(ordered, 75) - percentile(ordered, 25)) / percentile(ordered, 50)


def describe(benchmark: Benchmark) -> dict[str, Any]:
    """What bench.json holds.

    Args:
        benchmark: After `run`; when it was interrupted, what was measured until then is told.
    """
    cells = [cell for cell in benchmark.cells if cell.rounds]
    cells.sort(key=lambda cell: (benchmark.subjects.index(cell.subject), cell.threads, cell.batch))
    return {
        "schema_version": SCHEMA_VERSION,
        "host": {**benchmark.host, "before": benchmark.before, "after": benchmark.after},
        "method": {
            **describe_method(benchmark.effort, benchmark.core, cells),
            "images": len(benchmark.images),
            "seconds": round(benchmark.seconds, 1),
            "interrupted": benchmark.interrupted,
        },
        "rows": make_rows(benchmark, cells),
    }


def make_rows(benchmark: Benchmark, cells: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The rows: one image on one thread first, in the order of the subjects, then the others."""
    rows = []
    single = {cell.subject: cell for cell in cells if cell.threads == cell.batch == 1}
    baseline = next(iter(single.values()), None)
    for subject in benchmark.subjects:
        if subject in single:
            cold = benchmark.cold.get(subject, [])
            rows.append(describe_cell(single[subject], baseline, cold))
        else:
            reason = benchmark.failed.get(subject, "interrupted before its first round")
            rows.append({**new_row(subject, 1, 1), "reason": reason})
    others = [cell for cell in cells if cell.threads > 1 or cell.batch > 1]
    return rows + [describe_cell(cell, None, []) for cell in others]


def describe_method(effort: Effort, core: str, cells: Sequence[Measurement]) -> dict[str, Any]:
    """How it was measured, in figures and words."""
    single = [cell for cell in cells if cell.threads == cell.batch == 1]
    # As made, not as planned: fewer when it was interrupted, and of a subject with a share.
    fewest = min((sum(len(burst["call"]) for burst in cell.rounds) for cell in single), default=0)
    verb = "reach" if fewest >= MLPERF_P90_CALLS else "are below"
    overheads_ns = [cell.timer_overhead_ns for cell in cells]
    return {
        "baseline": cells[0].subject.name if cells else None,
        "launches": effort.launches,
        "rounds_per_launch": effort.rounds,
        "calls_per_round": effort.calls,
        "calls": effort.launches * effort.rounds * effort.calls,
        "p90_confidence": f"{fewest:,}, the fewest calls of a row, {verb} the "
        f"{MLPERF_P90_CALLS:,} of MLPerf's rule for p90 at 99 % confidence",
        "pinned_core": None if core == "any" else int(core),
        "timer_overhead_ns": median(overheads_ns) if overheads_ns else None,
        "latency": "Classifier.classify: a uint8 28x28 image in, label and probability out; of "
        "batches, Classifier.predict; the timer's overhead is not subtracted",
        "invoke": "the runtime's own call alone, on an input that is in place",
        "percentiles": "nearest rank, over all timed calls",
        "rounds_order": "random in each round, all subjects loaded and asleep meanwhile",
        "ratio": "of the medians of the same round; the median over the rounds of a launch, then "
        "over the launches, with the 95 % interval of a median from order statistics",
        "size": "of the file that is loaded: of C, the library that it is compiled to",
        "cold_start": "medians of fresh processes, files in the page cache, modules compiled, one "
        "BLAS thread",
        "peak_rss": "VmHWM of the processes of the cold starts, median",
    }


# --- For a reader ---------------------------------------------------------------------------

HEADER = (
    *("artifact", "runtime", "status", "size, kB", "accuracy", "p50, us", "p90, us", "p99, us"),
    *("ratio (95 % CI)", "images/s", "cold start, ms", "peak memory, MiB"),
)


def three_figures(value: float) -> str:
    """Such as 0.0000123, 1.23, 123 and 12,300: never with an exponent."""
    return f"{float(f'{value:.3g}'):,.10f}".rstrip("0").rstrip(".")


def single_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one image at a time on one thread."""
    return [row for row in result["rows"] if row["threads"] == row["batch"] == 1]


def valid_rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of `single_rows` whose figures may be used: of no throttled one, for one."""
    return [row for row in single_rows(result) if row["status"] == "ok"]


def table_cells(result: Mapping[str, Any]) -> list[list[str]]:
    """The rows of one image at a time on one thread, as texts under `HEADER`."""
    return [row_cells(row) for row in single_rows(result)]


def row_cells(row: dict[str, Any]) -> list[str]:
    """One row's texts; empty where nothing was measured."""

    def text(value: Any, form: str) -> str:
        return "" if value is None else format(value, form)

    latency = row["latency_us"] or dict.fromkeys(("p50", "p90", "p99"))
    ratio = "" if row["ratio_to_baseline"] is None else three_figures(row["ratio_to_baseline"])
    if row["ratio_ci95"]:
        ratio += " ({} to {})".format(*map(three_figures, row["ratio_ci95"]))
    return [
        row["artifact"],
        f"{row['runtime']} {row['runtime_version'] or ''}".strip(),
        row["status"],
        text(row["size_bytes"] and row["size_bytes"] / 1000, ".1f"),
        text(row["accuracy"], ".2%"),
        *(text(latency[key], ".1f") for key in ("p50", "p90", "p99")),
        ratio,
        text(row["throughput_ips"], ",.0f"),
        text(row["cold_start_ms"] and row["cold_start_ms"]["total"], ".0f"),
        text(row["peak_rss_mib"], ".0f"),
    ]


DETAIL_HEADER = (
    *("artifact", "runtime", "min, us", "mean, us", "invoke alone, us"),
    *("spread of rounds, %", "calls", "cold starts"),
)


def detail_cells(result: Mapping[str, Any]) -> list[list[str]]:
    """What a call consists of and how steady it was, as texts under `DETAIL_HEADER`."""
    return [
        [
            row["artifact"],
            row["runtime"],
            f"{row['latency_us']['min']:.1f}",
            f"{row['latency_us']['mean']:.1f}",
            f"{row['invoke_us']['p50']:.1f}" if row["invoke_us"] else "",
            f"{row['rounds']['iqr_pct']:.1f}",
            f"{row['calls']:,}",
            str(row["cold_start_ms"]["processes"]) if row["cold_start_ms"] else "",
        ]
        for row in valid_rows(result)
    ]


def format_result(result: dict[str, Any]) -> str:
    """The table, why rows are missing, and how it was measured; for a terminal."""
    rows = [list(HEADER), *table_cells(result)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += describe_problems(result)
    host, method = result["host"], result["method"]
    lines.append(f"{host['board']}, {host['cpu']}, {host['cores']} cores, {host['kernel']}")
    lines.append(
        f"{method['p90_confidence']}; ratio to {method['baseline']}; accuracy of "
        f"{method['images']:,} images"
    )
    return "\n".join(lines)


def describe_problems(result: Mapping[str, Any]) -> list[str]:
    """One line for each row that is not ok, and one for a run that was broken off."""
    lines = [
        f"{row['artifact']} on {row['runtime']}, {row['threads']} threads, batch {row['batch']}: "
        f"{row['status']}: {row['reason']}"
        for row in result["rows"]
        if row["status"] != "ok"
    ]
    if result["method"].get("interrupted"):
        lines.append("interrupted: the figures are of the rounds until then")
    return lines
