"""The bench stage: time every artifact on every runtime, or show and compare earlier results."""

from __future__ import annotations

import argparse

from device.bench.rounds import FULL, Effort
from pipeline.artifacts import BENCH_JSON
from pipeline.bench import compare, measure
from pipeline.bench.result import read_result
from pipeline.data import load as load_data


def run(args: argparse.Namespace) -> int:
    """Run the stage; 1 if no row is valid, or if one has regressed."""
    # First: what cannot be read is found before the minutes of measuring.
    before = read_result(args.compare) if args.compare else None
    if args.show:
        result = read_result(args.show)
        print(measure.format_markdown(result))
    else:
        effort = FULL if args.full else Effort()
        result = measure.measure(args.out, load_data(args.data), effort)
        try:
            print(measure.format_markdown(result))
        finally:  # a full disk does not lose the figures unseen, a closed pipe not the file
            measure.keep(result, args.out / BENCH_JSON)
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
