"""`runner.py bench`: time each model of a folder on each runtime that is installed here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np


def run(runner: Any, args: argparse.Namespace) -> int:
    """Time every model on every installed runtime, each in a process of its own, and print it.

    Args:
        runner: The module `runner`.
        args: `model` (one, or a folder of them), `runtime`, `full`, `json`.

    Returns:
        The exit code: 0, 1 when nothing could be timed, 130 after Ctrl-C.

    Raises:
        InputError: There is nothing to time, or the golden vectors are damaged.
    """
    bench, rounds, rows, machine, photo = map(
        runner.part_of_bundle, ("bench", "bench_rounds", "bench_rows", "machine", "photo")
    )
    if args.model.is_dir():
        folder: Path = args.model
        models = sorted(folder.iterdir()) + sorted(folder.glob("native/*.c"))
    elif args.model.is_file():
        folder, models = runner.bundle_folder(args.model), [args.model]
    else:
        raise runner.InputError(f"{args.model}: no such model")
    isa_flags = machine.isa_flags()
    subjects = [
        rounds.Subject(model, variant)
        for model in filter(runner.has_runtime, models)
        for runtime in runner.RUNTIMES.get(model.suffix, ())
        if args.runtime in ("auto", runtime) and runner.is_installed(runtime)
        for variant in bench.variants(runtime, isa_flags)
    ]
    if not subjects:
        raise runner.InputError(f"{args.model}: no model that an installed runtime reads")
    images, labels = images_to_time(runner, folder)
    session = rounds.Session(
        subjects,
        rounds.FULL if args.full else rounds.Effort(),
        *(images, labels, machine, rounds.lines_on_stderr),
        time_photo=lambda: bench.time_photo(photo, images[0]),
    )
    session.run()
    result = rows.describe(session)
    print(json.dumps(result, indent=2) if args.json else rows.format_result(result))
    if session.interrupted:
        return 130
    return 0 if any(row["status"] == "ok" for row in result["rows"]) else 1


def images_to_time(runner: Any, folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The golden images and their labels; noise without labels where there are none.

    Returns:
        uint8 (N, 28, 28), and uint8 (N,) or None.

    Raises:
        InputError: The golden vectors are damaged.
    """
    golden = runner.part_of_bundle("golden")
    if not (folder / golden.NAME).is_file():
        return np.random.default_rng(0).integers(0, 256, (256, 28, 28), np.uint8), None
    arrays = golden.read_golden(folder, runner)
    return arrays["images"], arrays["labels"]
