"""`runner.py receipt`: every model proves itself on every runtime here, and the fastest is chosen.

Each answers the golden images in a process of its own. Those that answer right are timed as `bench`
times them, for a few seconds. device.json, beside the models, holds what came of it, and
`runner.py` uses its choice where no model and no runtime is named.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Sequence

import numpy as np
from bench.machine import board_name, read_throttled
from bench.processes import BenchSubject, Worker, WorkerError
from bench.rounds import Benchmark, Effort
from bench.rows import aligned, measured_row
from commands import one_line
from info import runtime_version
from manifest import GOLDEN, RECEIPT, RECEIPT_VERSION, bundle_sha256, read_golden
from runner import HERE, Classifier, InputError, usable_runtimes
from verify import check_hashes, compare, read_promises


def run(args: argparse.Namespace) -> int:
    """Write device.json, print its table and PASS; FAIL where nothing answers right.

    Returns:
        The exit code: 0 or 1. A model that fails on one runtime is not used there, no more.

    Raises:
        InputError: There is no bundle, it is damaged, or no runtime is installed.
    """
    hashes, tolerances = read_promises(HERE)
    if problems := check_hashes(HERE, hashes):
        print("\n".join(f"differs  {one_line(problem)}" for problem in problems) + "\nFAIL")
        return 1
    runtimes = {name: usable_runtimes(HERE / name) for name in tolerances}
    subjects = [
        BenchSubject(HERE / name, runtime) for name, names in runtimes.items() for runtime in names
    ]
    if not subjects:
        raise InputError("no model could be run: install a runtime")
    receipt = judge(subjects)
    if receipt["choice"] is not None:
        write(HERE / RECEIPT, receipt)
    print(format_receipt(receipt))
    print("PASS" if receipt["choice"] else "FAIL")
    return 0 if receipt["choice"] else 1


def judge(subjects: Sequence[BenchSubject]) -> dict[str, Any]:
    """What device.json holds."""
    rows = [prove(subject) for subject in subjects]
    benchmark = time_those([s for s, row in zip(subjects, rows) if row["verified"]])
    for subject, row in zip(subjects, rows):
        if row["verified"]:
            add_times(row, subject, benchmark)
    timed = [row for row in rows if row["latency_us"] is not None]
    fastest = min(timed, key=lambda row: row["latency_us"], default=None)
    throttling = max((m.throttling for m in benchmark.measurements), default="")
    return {
        "schema_version": RECEIPT_VERSION,
        "board": board_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bundle_sha256": bundle_sha256(HERE),
        # What was wrong while it was timed, "" for nothing; None where the machine does not tell.
        "throttled": None if read_throttled() is None else throttling,
        "rows": rows,
        "choice": fastest and {key: fastest[key] for key in ("artifact", "runtime")},
    }


def prove(subject: BenchSubject) -> dict[str, Any]:
    """A row without times: whether a model answers the golden images right, asked in a process."""
    worker = Worker(replace(subject, module="receipt"), 1, "any", HERE / GOLDEN)
    try:
        said = worker.receive()
    except WorkerError as error:
        said = {"runtime_version": None, "reason": str(error)}
    finally:
        worker.stop()
    return {
        "artifact": subject.file,
        "runtime": subject.runtime,
        "runtime_version": said["runtime_version"],
        "sha256": read_promises(HERE)[0][subject.file],
        "verified": not said["reason"],
        "reason": said["reason"],
        "latency_us": None,
        "invoke_us": None,
    }


def main(argv: Sequence[str], started_ns: int) -> int:
    """`serve MODEL RUNTIME`, in a process of its own: print the reason against it as JSON."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a runtime may greet on standard output
    model, runtime = Path(argv[1]), argv[2]
    version, reasons = None, []
    try:
        classifier = Classifier(model, runtime)
        version = runtime_version(runtime)
        name, golden = str(model.relative_to(HERE)), read_golden(HERE)
        got = classifier.predict(golden["images"]).probabilities
        reasons = compare(got, golden[name], read_promises(HERE)[1][name])
    except InputError as error:
        reasons = [str(error)]
    reply = {"runtime_version": version, "reason": "; ".join(reasons)}
    print(json.dumps(reply), file=replies, flush=True)
    return 0


def time_those(subjects: Sequence[BenchSubject]) -> Benchmark:
    """Time them against each other, by one image at a time on one thread."""
    # One launch tells which is faster; more would only say how sure that is.
    effort = Effort(launches=1, rounds=8, calls=32, offline_rounds=0, cold_starts=0)
    images, no_labels = read_golden(HERE)["images"], np.empty(0, np.uint8)
    quiet = contextlib.nullcontext(lambda done, total, what: None)
    benchmark = Benchmark(subjects, effort, images, no_labels, lambda title: quiet)
    benchmark.measure()
    return benchmark


def add_times(row: dict[str, Any], subject: BenchSubject, benchmark: Benchmark) -> None:
    """The medians of a row's calls in us, or why there are none."""
    found = {m.subject: m for m in benchmark.measurements if m.is_single}.get(subject)
    if found is None:
        row["reason"] = benchmark.failed[subject]
    elif found.reason or not found.bursts:
        row["reason"] = found.reason or "could not be timed"
    else:
        figures = measured_row(found, None, [])
        row.update({key: figures[key]["p50"] for key in ("latency_us", "invoke_us")})


def write(path: Path, receipt: dict[str, Any]) -> None:
    """Write it whole or not at all."""
    partial = path.with_suffix(".new")
    try:
        with partial.open("w") as file:
            file.write(json.dumps(receipt, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def format_receipt(receipt: dict[str, Any]) -> str:
    """The table, a line of what throttled the machine, and the choice."""
    cells = [("artifact", "runtime", "version", "us an image")]
    for row in receipt["rows"]:
        reason = one_line(row["reason"])
        figure = f"not used: {reason}" if reason else f"{row['latency_us']:.1f}"
        cells.append((row["artifact"], row["runtime"], row["runtime_version"] or "", figure))
    lines = aligned(cells)
    if receipt["throttled"]:
        lines.append(f"while it was timed, this machine had: {receipt['throttled']}")
    if choice := receipt["choice"]:
        lines.append(f"chosen: {choice['artifact']} on {choice['runtime']}")
    return "\n".join(lines)
