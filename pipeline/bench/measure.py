"""The benchmark of the development machine: every artifact on every runtime that reads it.

The measuring is `device/bench`'s, the same as on a device; here is what it measures.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device.bench import rows as bench_rows
from device.bench.processes import BenchSubject
from device.bench.rounds import FULL, Benchmark, Effort
from pipeline.artifacts import FLOAT_MODEL, NATIVE_WASM, ROOT
from pipeline.artifacts import subjects as artifact_subjects
from pipeline.bench.findings import findings
from pipeline.data import Dataset
from pipeline.files import write_json
from pipeline.progress import progress
from pipeline.table import markdown_table

KERAS_SHARE = 0.2  # of the calls and cold starts, unless the full effort is asked for


def subjects(folder: Path, effort: Effort) -> tuple[BenchSubject, ...]:
    """What is measured: the Keras model, which is the baseline, and all that parity judges.

    Args:
        folder: It holds the artifacts.
        effort: With the full one Keras is measured as often as the others.
    """
    chosen = [
        BenchSubject(
            folder / FLOAT_MODEL,
            "keras",
            folder=ROOT,
            module="pipeline.bench.keras_model",
            share=1.0 if effort is FULL else KERAS_SHARE,
        )
    ]
    for judged in artifact_subjects():
        if judged.artifact == NATIVE_WASM:
            continue  # its time in a browser is another: the report measures it there
        chosen.append(BenchSubject(folder / judged.artifact, judged.runtime, str(judged.python)))
    return tuple(chosen)


def measure(folder: Path, data: Dataset, effort: Effort) -> dict[str, Any]:
    """Measure every artifact on every runtime.

    Args:
        folder: It holds the artifacts.
        data: The data set; the images are of its test split.
        effort: How much is measured.

    Returns:
        What bench.json holds.
    """
    test = data.test
    benchmark = Benchmark(subjects(folder, effort), effort, test.images, test.labels, progress)
    benchmark.run()
    return bench_rows.describe(benchmark)


def keep(result: Mapping[str, Any], path: Path) -> None:
    """Write a result, but never an incomplete one in place of a complete one.

    Args:
        result: Of `measure`. Without a row that is ok nothing is written.
        path: Such as bench.json; what an interrupted run has goes to bench-interrupted.json.

    Raises:
        UserError: It cannot be written.
    """
    if not any(row["status"] == "ok" for row in result["rows"]):
        print(f"bench: no row is ok; {path} is not written", file=sys.stderr)
        return
    if result["method"]["interrupted"]:
        path = path.with_name(f"{path.stem}-interrupted{path.suffix}")
        print(f"bench: interrupted; the figures until then are in {path}", file=sys.stderr)
    write_json(path, result)


def format_markdown(result: Mapping[str, Any]) -> str:
    """The tables, what they say and how it was measured, in Markdown."""
    host, method = result["host"], result["method"]
    measured_on = f"Measured on {host['board']}, {host['cpu']}, {host['cores']} cores, "
    measured_on += f"{host['system']}, Python {host['python']}; {method['p90_confidence']}"
    if method["baseline"] is not None:  # None when no round was finished, as the overhead
        measured_on += f"; the baseline is {method['baseline']}"
    if method["timer_overhead_ns"] is not None:
        measured_on += f"; a timed call of nothing takes {method['timer_overhead_ns']:.0f} ns"
    parts = [
        markdown_table(bench_rows.HEADER, bench_rows.table_cells(result)),
        markdown_table(bench_rows.DETAIL_HEADER, bench_rows.detail_cells(result)),
        "Images a second:",
        format_throughput(result),
        "\n".join(f"- {line}" for line in bench_rows.describe_problems(result)),
        "\n".join(f"- {line}" for line in findings(result)),
        f"{measured_on}.",
    ]
    return "\n\n".join(filter(None, parts))


def format_throughput(result: Mapping[str, Any]) -> str:
    """Images a second by threads and batch, as a Markdown table; empty where not measured."""
    rows = [row for row in result["rows"] if row["throughput_ips"] is not None]
    columns = sorted({(row["threads"], row["batch"]) for row in rows})
    cells: dict[tuple[str, str], dict[tuple[int, int], str]] = {}
    for row in rows:
        line = cells.setdefault((row["artifact"], row["runtime"]), {})
        line[row["threads"], row["batch"]] = f"{row['throughput_ips']:,.0f}"
    header = [f"{threads} thr., batch {batch}" for threads, batch in columns]
    lines = [[*key, *(line.get(c, "") for c in columns)] for key, line in cells.items()]
    return markdown_table(["artifact", "runtime", *header], lines)
