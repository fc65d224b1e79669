"""The bench stage: time every artifact on every runtime, or show and compare earlier results."""

from __future__ import annotations

import argparse

from device.bench_rounds import FULL, Effort
from pipeline.artifacts import BENCH_JSON
from pipeline.bench import compare
from pipeline.bench import measure as bench
from pipeline.bench.result import read_result
from pipeline.data import load as load_data
from pipeline.files import UserError, make_folder, write_bytes


def run(args: argparse.Namespace) -> int:
    """Run the stage; 1 if no row is valid, or if one has regressed."""
    # First: what cannot be read or written is found before the minutes of measuring.
    before = read_result(args.compare) if args.compare else None
    path = None if args.show else args.json or args.out / BENCH_JSON
    for output in filter(None, (path, args.csv, args.markdown)):
        make_folder(output.parent)
        if output.is_dir():
            raise UserError(f"{output}: a folder; name a file")
    if path is None:
        result = read_result(args.show)
        print(bench.format_markdown(result))
    else:
        result = bench.measure(args.out, load_data(args.data), FULL if args.full else Effort())
        try:
            print(bench.format_markdown(result))
        finally:  # a full disk does not lose the figures unseen, a closed pipe not the file
            bench.keep(result, path)
        if result["method"]["interrupted"]:
            raise KeyboardInterrupt
    if not any(row["status"] == "ok" for row in result["rows"]):
        return 1
    if args.csv:
        write_bytes(args.csv, bench.format_csv(result).encode())
    if args.markdown:
        write_bytes(args.markdown, (bench.format_markdown(result) + "\n").encode())
    if before is None:
        return 0
    changes = compare.compare(before, result, args.max_regression)
    print(f"\nCompared with {args.compare}:\n\n{compare.format_changes(changes)}")
    if any(before["host"][key] != result["host"][key] for key in ("cpu", "cores")):
        print("\nThese were two machines: the changes say nothing about the code.")
    return 1 if any(change.verdict for change in changes) else 0
