"""What a reader should know first: ship or not and why, and five numbers with their comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from device.bench.rows import three_figures
from pipeline.artifacts import FP32_TFLITE, INT8_TFLITE
from pipeline.bench.findings import p50_us, ratio_of, rows_to_ship
from pipeline.parity.statistics import wilson_ci95
from pipeline.report.gather import ReportData
from pipeline.report.page import named, problem


class Verdict(NamedTuple):
    """Whether to ship: nothing that was checked failed, and parity was checked."""

    ships: bool
    title: str  # it in a sentence, and what to ship
    reasons: list[str]  # why, a sentence each


def verdict(report: ReportData) -> Verdict:
    if report.parity is None:
        return Verdict(False, "Do not ship: parity is not known.", [report.problems["parity"]])
    rows, receipts = report.parity["rows"], _receipts(report)
    idle = [row for row in rows if row["status"] == "not_run"]
    failed = [
        problem(named(row), row)
        for row in rows
        if row["status"] == "fail" or (row in idle and not row["allowed"])
    ]
    failed += failed_binaries(report.parity)
    failed += [
        problem(f"{named(cell)}, on the emulated {cell['os']} {cell['arch']},", cell)
        for cell in _cells(report)
        if cell["status"] == "fail"
    ]
    failed += [
        f"{r['board']}: no model answered as it should." for r in receipts if not r["choice"]
    ]
    if failed:
        return Verdict(False, "Do not ship: a check failed.", failed)
    reasons = [parity_in_words(report.parity), *(problem(named(row), row) for row in idle)]
    if not receipts:
        reasons.append("No real board has confirmed it yet: `make deploy PI=user@host`.")
    fastest = rows_to_ship(report.bench)[:1] if report.bench else []
    return Verdict(True, f"Ship it: {''.join(map(named, fastest)) or INT8_TFLITE}.", reasons)


def _receipts(report: ReportData) -> list[dict[str, Any]]:
    return report.boards["receipts"] if report.boards else []


def parity_in_words(parity: Mapping[str, Any]) -> str:
    passed = sum(row["status"] == "pass" for row in parity["rows"])
    return (
        f"{passed} of {len(parity['rows'])} pairs of artifact and runtime pass parity with the "
        f"float model on {parity['reference']['n']:,} test images."
    )


def _cells(report: ReportData) -> list[dict[str, Any]]:
    return report.pi["cells"] if report.pi else []


def failed_binaries(parity: Mapping[str, Any]) -> list[str]:
    """Which of the compiled files answers wrongly on which processor, and how."""
    return [
        problem(f"{row['file']} on {row['processor']}", row)
        for row in parity["binaries"]
        if row["status"] == "fail"
    ]


Figure = tuple[str, str]  # the number, and what to compare it with; "?" and why it is not known


def figures(report: ReportData) -> dict[str, Figure]:
    """The five numbers of the first screen, by their titles."""
    accuracy, against_float = _of_parity(report)
    return {
        "Accuracy of int8": accuracy,
        "int8 against float": against_float,
        "Time for an image, here": _time(report),
        "Size of int8": _size(report),
        "Boards proven": _boards(report),
    }


def _of_parity(report: ReportData) -> tuple[Figure, Figure]:
    rows = report.parity["rows"] if report.parity else []
    row = next((row for row in rows if row["artifact"] == INT8_TFLITE and row["n"]), None)
    if row is None:
        unknown = "?", report.problems.get("parity", "run `make export`")
        return unknown, unknown
    n, right = row["n"], round(row["accuracy"] * row["n"])
    least, most = (f"{100 * bound:.2f}" for bound in wilson_ci95(right, n))
    low, high = row["delta_ci95_pp"]
    wrong = f"95 % interval {least} to {most} %; {n - right:,} of {n:,} wrong"
    differ = f"95 % interval {low:+.2f} to {high:+.2f}; {len(row['flips'])} answers differ"
    return (f"{row['accuracy']:.2%}", wrong), (f"{row['delta_pp']:+.2f} pp", differ)


def _time(report: ReportData) -> Figure:
    """Of the best row, and how many times as long the next runtime takes."""
    rows = rows_to_ship(report.bench) if report.bench else []
    if not rows:
        return "?", report.problems.get("bench", "no valid row: run `make bench`")
    first, compared = rows[0], named(rows[0])
    other = next((row for row in rows if row["runtime"] != first["runtime"]), None)
    if other:
        ratio = ratio_of(other, first)
        times = three_figures(ratio.value if ratio else p50_us(other) / p50_us(first))
        compared += f"; next: {named(other)}, {times} times as long"
    return f"{three_figures(p50_us(first))} µs", compared


def _size(report: ReportData) -> Figure:
    int8, float32 = map(report.sizes_bytes.get, (INT8_TFLITE, FP32_TFLITE))
    if int8 is None or float32 is None:
        return "?", "run `make export`"
    times = f"{float32 / int8:.1f} times as much"
    return f"{int8 / 1000:.0f} kB", f"{INT8_TFLITE}; float32 takes {float32 / 1000:.0f} kB, {times}"


def _boards(report: ReportData) -> Figure:
    receipts = _receipts(report)
    tried = f"of {len(receipts)} with a receipt" if receipts else "no board has a receipt"
    systems, others = (
        {(c["os"], c["arch"]) for c in _cells(report) if (c["status"] == "pass") == passes}
        for passes in (True, False)
    )
    emulated = f"{len(systems - others)} of {len(systems | others)} emulated systems pass"
    if report.pi is None:
        emulated = f"emulated systems: {report.problems['pi']}"
    return str(sum(bool(r["choice"]) for r in receipts)), f"{tried}; {emulated}"
