"""The sections on what was measured with the artifacts: speed, other systems, other images."""

from __future__ import annotations

from typing import Any

from device.bench import rows as bench_rows
from device.bench.rows import three_figures
from pipeline.bench.findings import findings
from pipeline.report import plots
from pipeline.report.gather import ReportData, Source
from pipeline.report.page import Section, Table
from pipeline.report.plots import short
from pipeline.studies import photos as studied_photos
from pipeline.studies.accuracy import artifact_cells, pair_cells
from pipeline.studies.robustness import table_cells

BENCH_HEADER, DETAIL_HEADER = (
    tuple(name.replace(", us", ", µs") for name in header)
    for header in (bench_rows.HEADER, bench_rows.DETAIL_HEADER)
)


def speed(report: ReportData) -> Section:
    return _bench_section("Speed", report.bench, "latency")


def on_device(report: ReportData) -> Section:
    return _bench_section("Speed on a device", report.device, "device-latency")


def _bench_section(title: str, source: Source[dict[str, Any]], plot: str) -> Section:
    """What a result of the benchmark says, its plot if it has a valid row, and its tables."""
    bench = source.value
    if bench is None:
        return Section(title, problem=source.problem)
    # Computed anew, for the file may be a stranger's.
    takeaway, *said = [*findings(bench), *bench_rows.describe_problems(bench)] or ["No valid row."]
    timed = bench_rows.valid_rows(bench)
    drawn = [plots.latency(timed, plot)] if timed else []
    facts = {**bench["host"], **bench["method"]}
    tables = [
        Table("One image a call, one thread", BENCH_HEADER, bench_rows.table_cells(bench)),
        Table("The runtime's own call, size, start", DETAIL_HEADER, bench_rows.detail_cells(bench)),
        Table(
            "Where and how it was measured",
            ("what", "value"),
            [(key.replace("_", " "), _plain(value)) for key, value in facts.items()],
        ),
    ]
    return Section(title, takeaway, text=said, plots=drawn, tables=tables)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return "unknown" if value is None else str(value)


def boards(report: ReportData) -> Section:
    title = "Boards"
    receipts = report.boards.value
    if receipts is None:
        return Section(title, problem=report.boards.problem)
    rows = []
    for receipt in receipts:
        choice, tried = receipt["choice"], receipt["rows"]
        times_us = {(row["artifact"], row["runtime"]): row["latency_us"] for row in tried}
        chosen = tuple(choice[key] for key in ("artifact", "runtime")) if choice else ()
        wrong = [f"{row['artifact']} on {row['runtime']}: {row['reason']}" for row in tried]
        wrong = [why for why, row in zip(wrong, tried, strict=True) if row["reason"]]
        rows.append(
            (
                f"{receipt['board']}, {receipt['system']}",
                f"{sum(row['verified'] for row in tried)} of {len(tried)}",
                " on ".join(chosen) or "nothing",
                three_figures(times_us[chosen]) if times_us.get(chosen) else "",
                "; ".join([*wrong, *filter(None, [receipt["throttled"]])]),
                f"Python {receipt['python']}, {receipt['time']}",
                (receipt["bundle_sha256"] or "")[:12],
            )
        )
    proven = sum(bool(receipt["choice"]) for receipt in receipts)
    header = ("board", "verified", "uses", "time for an image, µs", "problems", "when", "bundle")
    takeaway = f"{proven} of {len(receipts)} boards have a model that answered as it should there."
    return Section(title, takeaway, tables=(Table("Receipts", header, rows),))


def pi_matrix(report: ReportData) -> Section:
    """Systems by runtimes: emulated, so of results and not of speed."""
    title = "Emulated Raspberry Pis"
    matrix = report.pi.value
    if matrix is None:
        return Section(title, problem=report.pi.problem)
    runtimes = dict.fromkeys(cell["runtime"] for cell in matrix["cells"])
    systems: dict[str, dict[str, list[str]]] = {}
    for cell in matrix["cells"]:
        bits = "same bits" if cell["bit_identical"] else cell["status"]
        of_system = systems.setdefault(f"{cell['os']} {cell['arch']}", {})
        of_system.setdefault(cell["runtime"], []).append(f"{short(cell['artifact'])}: {bits}")
    rows = [
        (system, *("; ".join(found.get(runtime, ["-"])) for runtime in runtimes))
        for system, found in systems.items()
    ]
    failed = [
        f"{c['artifact']} on {c['os']} {c['arch']}, {c['runtime']}: {c['status']}: {c['reason']}"
        for c in matrix["cells"]
        if c["status"] != "pass"
    ]
    takeaway = (
        f"{len(matrix['cells']) - len(failed)} of {len(matrix['cells'])} combinations of artifact, "
        f"runtime and system pass on {len(systems)} emulated systems: {matrix['status']}."
    )
    text = (
        f"{matrix['bundle']} was installed there, verified, and read the test images. 'same bits': "
        "each output is, bit for bit, this machine's. Emulation says nothing about speed.",
        *failed,
    )
    table = Table("How each was proven", ("system", *runtimes), rows)
    return Section(title, takeaway, text=text, tables=(table,))


def robustness(report: ReportData) -> Section:
    title = "Robustness"
    result = report.robustness.value
    if result is None:
        return Section(title, problem=report.robustness.problem)
    header, cells = table_cells(result["rows"])
    worst = min(result["rows"], key=lambda row: float(row["accuracy"]["int8"]))
    takeaway = (
        f"int8 reads {worst['accuracy']['int8']:.1%} (float {worst['accuracy']['float']:.1%}) at "
        f"the worst: {worst['distortion']} of {worst['strength']:g} {worst['unit']}."
    )
    return Section(
        title,
        takeaway,
        plots=(plots.robustness(result["rows"]),),
        tables=(Table("Accuracy on distorted test images", header, cells),),
    )


def photographs(report: ReportData) -> Section:
    title = "Photographs"
    photos = report.photos.value
    if photos is None:
        return Section(title, problem=report.photos.problem)
    return Section(
        title,
        studied_photos.summary(photos),
        text=(f"Read by {photos['model']}.",),
        tables=[Table(*table) for table in studied_photos.tables(photos)],
    )


def seeds(report: ReportData) -> Section:
    title = "Accuracy over seeds"
    result = report.seeds.value
    if result is None:
        return Section(title, problem=report.seeds.problem)
    tables = []
    for block in result["recipes"]:
        recipe = f"Recipe {block['recipe']}, "
        tables.append(Table(f"{recipe}{len(block['seeds'])} seeds", *artifact_cells(block)))
        for part, what in (("wild", "read right"), ("non_digits_sure", "answered")):
            if shares := pair_cells(block[part]):
                caption = f"{recipe}generated images that are {what}, mean"
                tables.append(Table(caption, ("images", "float", "int8"), shares))
    text = (
        "Each seed was trained, converted and judged by itself; the intervals are Student's. "
        f"Measured on: {result['machine']}.",
    )
    takeaway = " ".join(
        f"Recipe {block['recipe']} errs on {1 - block['mean_test_accuracy']:.2%} of the test "
        f"images, mean of {len(block['seeds'])} seeds."
        for block in result["recipes"]
    )
    return Section(title, takeaway, text=text, tables=tables)
