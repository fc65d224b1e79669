"""`runner.py bench`: time each model of a folder on each runtime that is installed here."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Iterator

import numpy as np
from commands import one_line
from manifest import GOLDEN, bundle_folder, read_golden
from runner import HERE, InputError, usable_runtimes

from .processes import BenchSubject
from .rounds import FULL, Benchmark, Effort, ReportProgress
from .rows import describe, format_result


def run(args: argparse.Namespace) -> int:
    """Time every model on every installed runtime, each in a process of its own, and print it.

    Args:
        args: `model` (one, or a folder of them; None: the bundle's), `runtime`, `full`, `json`.

    Returns:
        The exit code: 0, 1 when nothing could be timed, 130 after Ctrl-C.

    Raises:
        InputError: There is nothing to time, or the golden vectors are damaged.
    """
    given: Path = args.model or HERE
    if given.is_dir():
        folder, models = given, sorted(given.iterdir()) + sorted(given.glob("native/*.c"))
    elif given.is_file():
        folder, models = bundle_folder(given), [given]
    else:
        raise InputError(f"{given}: no such model; name one with --model")
    subjects = [
        BenchSubject(model, runtime)
        for model in models
        for runtime in usable_runtimes(model)
        if args.runtime in ("auto", runtime)
    ]
    if not subjects:
        raise InputError(f"{given}: no installed runtime reads it: pip install ai-edge-litert")
    effort = FULL if args.full else Effort()
    benchmark = Benchmark(subjects, effort, *images_to_time(folder), lines_on_stderr)
    benchmark.run()
    result = describe(benchmark)
    text = json.dumps(result, indent=2) if args.json else format_result(result)
    print("\n".join(map(one_line, text.split("\n"))))
    if benchmark.interrupted:
        return 130
    return 0 if any(row["status"] == "ok" for row in result["rows"]) else 1


def images_to_time(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The golden images and labels, uint8 (N, 28, 28) and (N,); else noise and no labels."""
    if not (folder / GOLDEN).is_file():
        noise = np.random.default_rng(0).integers(0, 256, (256, 28, 28), np.uint8)
        return noise, np.empty(0, np.uint8)
    arrays = read_golden(folder)
    return arrays["images"][: len(arrays["labels"])], arrays["labels"]


@contextlib.contextmanager
def lines_on_stderr(title: str) -> Iterator[ReportProgress]:
    """A progress report of a line each."""
    yield lambda done, total, what: print(
        f"{title} {done}/{total} {what}", file=sys.stderr, flush=True
    )
