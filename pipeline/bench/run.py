"""The bench stage: time every artifact on every runtime, or show and compare earlier results.

The measuring is `device/bench`'s, the same as on a device; here is what it measures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from device.bench import rows as bench_rows
from device.bench.processes import BenchSubject
from device.bench.rounds import FULL, Benchmark, Effort
from pipeline import artifacts, wasm
from pipeline.bench import compare
from pipeline.bench.findings import findings
from pipeline.bench.result import read_result
from pipeline.data import Dataset
from pipeline.data import load as load_data
from pipeline.files import write_json
from pipeline.progress import progress
from pipeline.table import markdown_table

KERAS_SHARE = 0.2  # of the calls and cold starts, unless the full effort is asked for


def run(args: argparse.Namespace) -> int:
    """Run the stage; 1 if no row is valid, or if one has regressed."""
    # First: what cannot be read is found before the minutes of measuring.
    before = read_result(args.compare) if args.compare else None
    if args.show:
        result = read_result(args.show)
        print(format_markdown(result))
    else:
        effort = FULL if args.full else Effort()
        result = measure(args.out, load_data(args.data), effort)
        try:
            print(format_markdown(result))
        finally:  # a full disk does not lose the figures unseen, a closed pipe not the file
            keep(result, args.out / artifacts.BENCH_JSON)
        if result["method"]["interrupted"]:
            raise KeyboardInterrupt
    if not any(row["status"] == "ok" for row in result["rows"]):
        return 1
    if before is None:
        return 0
    changes = compare.compare(before, result, args.max_regression)
    print(f"\nCompared with {args.compare}:\n\n{compare.format_changes(changes)}")
    if any(before["host"][key] != result["host"][key] for key in ("cpu", "cores")):
        print("\nThese were two machines: the changes say nothing about the code.")
    return 1 if any(change.verdict for change in changes) else 0


def subjects(folder: Path, effort: Effort) -> Iterator[BenchSubject]:
    """What is measured: the Keras model, which is the baseline, and all that parity judges.

    With the full effort Keras is measured as often as the others.
    """
    # The runner has no part in these two.
    others: dict[str, Any] = {"folder": artifacts.ROOT, "module": "pipeline.bench.other_workers"}
    share = 1.0 if effort is FULL else KERAS_SHARE
    yield BenchSubject(folder / artifacts.FLOAT_MODEL, "keras", share=share, **others)
    for judged in artifacts.subjects():
        worker = others if judged.runtime == wasm.RUNTIME else {}
        path, python = folder / judged.artifact, str(judged.python)
        yield BenchSubject(path, judged.runtime, python, **worker)


def measure(folder: Path, data: Dataset, effort: Effort) -> dict[str, Any]:
    """Measure every artifact on every runtime, on test images; returns what bench.json holds."""
    test, timed = data.test, tuple(subjects(folder, effort))
    benchmark = Benchmark(timed, effort, test.images, test.labels, progress)
    benchmark.run()
    return bench_rows.describe(benchmark)


def keep(result: Mapping[str, Any], path: Path) -> None:
    """Write a result, but never an incomplete one in place of a complete one.

    Without a row that is ok nothing is written. What an interrupted run has goes to
    bench-interrupted.json.

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
    measured = {
        (row["artifact"], row["runtime"], row["threads"], row["batch"]): row["throughput_ips"]
        for row in result["rows"]
        if row["throughput_ips"] is not None
    }
    columns = sorted({key[2:] for key in measured})
    lines = [
        [*subject, *(bench_rows.cell(measured.get((*subject, *c)), ",.0f") for c in columns)]
        for subject in dict.fromkeys(key[:2] for key in measured)
    ]
    header = [f"{threads} thr., batch {batch}" for threads, batch in columns]
    return markdown_table(["artifact", "runtime", *header], lines)
