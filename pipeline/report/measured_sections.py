"""The sections on what was measured with the artifacts: speed, other systems, other images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device.bench import rows as bench_rows
from device.bench.rows import three_figures
from pipeline.bench.findings import findings
from pipeline.report import plots
from pipeline.report.gather import ReportData
from pipeline.report.page import Section, Table
from pipeline.report.plots import short
from pipeline.studies import photos as studied_photos
from pipeline.studies.accuracy import artifact_cells, count_seeds, pair_cells
from pipeline.studies.robustness import table_cells


def speed(report: ReportData) -> Section:
    return describe_bench(report.bench, "latency")


def speed_on_device(report: ReportData) -> Section:
    return describe_bench(report.device, "device-latency")


def describe_bench(bench: Mapping[str, Any], plot: str) -> Section:
    """What a result of the benchmark says, its plot if it has a valid row, and its tables."""
    # Computed anew, for the file may be a stranger's.
    takeaway, *said = [*findings(bench), *bench_rows.describe_problems(bench)] or ["No valid row."]
    timed = bench_rows.valid_rows(bench)
    facts = {**bench["host"], **bench["method"]}
    tables = (
        Table("One image a call, one thread", bench_rows.HEADER, bench_rows.table_cells(bench)),
        Table(
            "The runtime's own call, size, start",
            bench_rows.DETAIL_HEADER,
            bench_rows.detail_cells(bench),
        ),
        Table(
            "Where and how it was measured",
            ("what", "value"),
            [(key.replace("_", " "), _plain(value)) for key, value in facts.items()],
        ),
    )
    drawn = [plots.latency(timed, plot)] if timed else []
    return Section(takeaway, text=said, plots=drawn, tables=tables)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return "unknown" if value is None else str(value)


def boards(report: ReportData) -> Section:
    receipts = report.boards
    rows = []
    for receipt in receipts:
        choice, tried = receipt["choice"], receipt["rows"]
        used = [row for row in tried if choice and choice.items() <= row.items()]
        problems = [f"{bench_rows.name(row)}: {row['reason']}" for row in tried if row["reason"]]
        rows.append(
            (
                f"{receipt['board']}, {receipt['system']}",
                f"{sum(row['verified'] for row in tried)} of {len(tried)}",
                "".join(map(bench_rows.name, used)) or "nothing",
                "".join(three_figures(row["latency_us"]) for row in used if row["latency_us"]),
                "; ".join([*problems, *filter(None, [receipt["throttled"]])]),
                f"Python {receipt['python']}, {receipt['time']}",
                (receipt["bundle_sha256"] or "")[:12],
            )
        )
    proven = sum(bool(receipt["choice"]) for receipt in receipts)
    header = ("board", "verified", "uses", "time for an image, µs", "problems", "when", "bundle")
    takeaway = f"{proven} of {len(receipts)} boards have a model that answered as it should there."
    return Section(takeaway, tables=(Table("Receipts", header, rows),))


def pi_matrix(report: ReportData) -> Section:
    """Systems by runtimes: emulated, so of results and not of speed."""
    matrix = report.pi
    cells = matrix["cells"]
    runtimes = dict.fromkeys(cell["runtime"] for cell in cells)
    systems: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        bits = "same bits" if cell["bit_identical"] else cell["status"]
        of_system = systems.setdefault(f"{cell['os']} {cell['arch']}", {})
        of_system.setdefault(cell["runtime"], []).append(f"{short(cell['artifact'])}: {bits}")
    rows = [
        (system, *("; ".join(found.get(runtime, ["-"])) for runtime in runtimes))
        for system, found in systems.items()
    ]
    failed = [
        f"{c['artifact']} on {c['os']} {c['arch']}, {c['runtime']}: {c['status']}: {c['reason']}"
        for c in cells
        if c["status"] != "pass"
    ]
    takeaway = (
        f"{len(cells) - len(failed)} of {len(cells)} combinations of artifact, runtime and system "
        f"pass on {len(systems)} emulated systems: {matrix['status']}."
    )
    text = (
        f"{matrix['bundle']} was installed there, verified, and read the test images. 'same bits': "
        "each output is, bit for bit, this machine's. Emulation says nothing about speed.",
        *failed,
    )
    table = Table("How each was proven", ("system", *runtimes), rows)
    return Section(takeaway, text=text, tables=(table,))


def robustness(report: ReportData) -> Section:
    rows = report.robustness["rows"]
    worst = min(rows, key=lambda row: float(row["accuracy"]["int8"]))
    takeaway = (
        f"int8 reads {worst['accuracy']['int8']:.1%} (float {worst['accuracy']['float']:.1%}) at "
        f"the worst: {worst['distortion']} of {worst['strength']:g} {worst['unit']}."
    )
    table = Table("Accuracy on distorted test images", *table_cells(rows))
    return Section(takeaway, plots=(plots.robustness(rows),), tables=(table,))


def photographs(report: ReportData) -> Section:
    photos = report.photos
    tables = [Table(*table) for table in studied_photos.tables(photos)]
    text = (f"Read by {photos['model']}.",)
    return Section(studied_photos.summary(photos), text=text, tables=tables)


def seeds(report: ReportData) -> Section:
    result = report.seeds
    tables, takeaways = [], []
    for block in result["recipes"]:
        recipe, count = f"Recipe {block['recipe']}", count_seeds(block)
        takeaways.append(
            f"{recipe} errs on {1 - block['mean_test_accuracy']:.2%} of the test images, mean of "
            f"{count}."
        )
        tables.append(Table(f"{recipe}, {count}", *artifact_cells(block)))
        for part, what in (("wild", "read right"), ("non_digits_sure", "answered")):
            if shares := pair_cells(block[part]):
                caption = f"{recipe}, generated images that are {what}, mean"
                tables.append(Table(caption, ("images", "float", "int8"), shares))
    machines = dict.fromkeys(block["machine"] for block in result["recipes"])
    text = (
        "Each seed was trained, converted and judged by itself; the intervals are Student's. "
        f"Measured on: {'; '.join(machines)}.",
    )
    return Section(" ".join(takeaways), text=text, tables=tables)
