"""What a reader should know first: ship or not and why, and five numbers with their comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device.bench.rows import name, three_figures, valid_rows
from pipeline.artifacts import FP32_TFLITE, INT8_TFLITE
from pipeline.bench.findings import can_be_shipped, p50_us, ratio_of, reads_worse
from pipeline.parity.statistics import wilson_ci95
from pipeline.report.gather import ReportData

UNKNOWN = "?"


@dataclass(frozen=True)
class Verdict:
    """Whether to ship.

    Attributes:
        ships: Nothing that was checked failed, and parity was checked.
        title: It in a sentence, and what to ship.
        reasons: Why, a sentence each.
    """

    ships: bool
    title: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A number of the first screen."""

    what: str
    value: str
    compared: str  # with what it should be compared, in words


def verdict(report: ReportData) -> Verdict:
    parity = report.parity.value
    if parity is None:
        return Verdict(False, "Do not ship: parity is not known.", (report.parity.problem,))
    failed = [
        f"{row['artifact']} on {row['runtime']}: {row['status']}: {row['reason']}"
        for row in parity["rows"]
        if row["status"] == "fail" or (row["status"] == "not_run" and not row["allowed"])
    ]
    cells = report.pi.value["cells"] if report.pi.value else []
    failed += [
        f"{cell['artifact']} on {cell['os']} {cell['arch']}, {cell['runtime']}: {cell['reason']}"
        for cell in cells
        if cell["status"] == "fail"
    ]
    failed += [
        f"{receipt['board']}: no model answered as it should there"
        for receipt in report.boards.value or ()
        if not receipt["choice"]
    ]
    if failed:
        return Verdict(False, "Do not ship: a check failed.", tuple(failed))
    passed = [row for row in parity["rows"] if row["status"] == "pass"]
    reasons = [
        f"{len(passed)} of {len(parity['rows'])} artifacts and runtimes answer as the float model "
        f"does, within the budget, on all {parity['reference']['n']:,} test images."
    ]
    if not report.boards.value:
        reasons.append("No real board has confirmed it yet: `make deploy PI=user@host`.")
    fastest = fastest_rows(report.bench.value)
    what = named(fastest[0]) if fastest else INT8_TFLITE
    return Verdict(True, f"Ship it: {what}.", tuple(reasons))


def fastest_rows(bench: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The best row of each runtime that a device can use, the fastest first."""
    rows = valid_rows(bench) if bench else []
    usable = [row for row in rows if can_be_shipped(row) and not reads_worse(row, rows)]
    best: dict[str, Mapping[str, Any]] = {}
    for row in sorted(usable, key=p50_us):
        best.setdefault(row["runtime"], row)
    return list(best.values())


def named(row: Mapping[str, Any]) -> str:
    """Such as "lenet5_int8.tflite on tflite-runtime"."""
    return f"{row['artifact']}, compiled" if row["runtime"] == "native" else name(row)


def figures(report: ReportData) -> list[Figure]:
    """The five; "?" and the command for what was not measured."""
    return [*_of_parity(report), _time(report), _size(report), _boards(report)]


def _of_parity(report: ReportData) -> list[Figure]:
    titles = ("Accuracy of int8", "int8 against float")
    parity = report.parity.value
    rows = parity["rows"] if parity else []
    row = next((row for row in rows if row["artifact"] == INT8_TFLITE and row["n"]), None)
    if row is None:
        return [Figure(title, UNKNOWN, report.parity.problem or "not run") for title in titles]
    right = round(row["accuracy"] * row["n"])
    least, most = (f"{100 * bound:.2f}" for bound in wilson_ci95(right, row["n"]))
    low, high = row["delta_ci95_pp"]
    return [
        Figure(
            titles[0],
            f"{row['accuracy']:.2%}",
            f"95 % interval {least} to {most} %; {row['n'] - right} of {row['n']:,} wrong",
        ),
        Figure(
            titles[1],
            f"{row['delta_pp']:+.2f} pp",
            f"95 % interval {low:+.2f} to {high:+.2f}; {len(row['flips'])} answers differ",
        ),
    ]


def _time(report: ReportData) -> Figure:
    title = "Time for an image, here"
    fastest = fastest_rows(report.bench.value)
    if not fastest:
        return Figure(title, UNKNOWN, report.bench.problem or "no valid row: run `make bench`")
    first, *others = fastest
    value = f"{three_figures(p50_us(first))} µs"
    if not others:
        return Figure(title, value, f"{named(first)}, the only one measured")
    ratio = ratio_of(others[0], first)
    times = three_figures(ratio.value if ratio else p50_us(others[0]) / p50_us(first))
    return Figure(title, value, f"{named(first)}; next: {named(others[0])}, {times} times as long")


def _size(report: ReportData) -> Figure:
    sizes = report.sizes_bytes
    if not sizes.keys() >= {INT8_TFLITE, FP32_TFLITE}:
        return Figure("Size of int8", UNKNOWN, "run `make export`")
    int8, float32 = sizes[INT8_TFLITE], sizes[FP32_TFLITE]
    compared = (
        f"{INT8_TFLITE}; float32 takes {float32 / 1000:.0f} kB, {float32 / int8:.1f} times as much"
    )
    return Figure("Size of int8", f"{int8 / 1000:.0f} kB", compared)


def _boards(report: ReportData) -> Figure:
    receipts = report.boards.value or []
    proven = [receipt for receipt in receipts if receipt["choice"]]
    cells = report.pi.value["cells"] if report.pi.value else []
    systems = {(cell["os"], cell["arch"]) for cell in cells if cell["status"] == "pass"}
    emulated = f"{len(systems)} emulated systems" if cells else "emulated systems: `make pi-test`"
    tried = f"of {len(receipts)} receipts" if receipts else "no board has sent a receipt"
    return Figure("Boards proven", str(len(proven)), f"{tried}; {emulated}")
