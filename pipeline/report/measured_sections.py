"""The sections on what was measured with the artifacts: speed, other systems, other images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from device.bench import rows as bench_rows
from pipeline.bench.findings import findings
from pipeline.pi_test.matrix import matrix_table
from pipeline.report import bench_plots
from pipeline.report.bench_plots import BenchRow
from pipeline.report.gather import ReportData, Source
from pipeline.report.page import Section, Table
from pipeline.report.svg import Plot
from pipeline.studies import photos as studied_photos
from pipeline.studies.accuracy import artifact_cells, pair_cells
from pipeline.studies.robustness import table_cells

BENCH_HEADER, DETAIL_HEADER = (
    tuple(name.replace(", us", ", µs") for name in header)
    for header in (bench_rows.HEADER, bench_rows.DETAIL_HEADER)
)


def speed(report: ReportData) -> Section:
    return _bench_section("Latency and throughput", report.bench, _speed_plots)


def on_device(report: ReportData) -> Section:
    return _bench_section("Latency on a device", report.device, _device_plots)


def _bench_section(
    title: str, source: Source[dict[str, Any]], draw: Callable[[dict[str, Any]], list[Plot]]
) -> Section:
    """What a result of the benchmark says, its plots if it has a valid row, and its tables."""
    bench = source.value
    if bench is None:
        return Section(title, source.problem)
    plots = draw(bench) if bench_rows.valid_rows(bench) else []
    return Section(title, "", source.doubt, _said(bench), plots, _bench_tables(bench))


def _speed_plots(bench: dict[str, Any]) -> list[Plot]:
    timed = bench_rows.valid_rows(bench)
    plots = [bench_plots.latency(timed)]
    if compared := [row for row in timed if row["ratio_to_baseline"] is not None]:
        plots.append(bench_plots.ratio(compared, str(bench["method"]["baseline"])))
    return [*plots, *bench_plots.pareto(timed)]


def _device_plots(bench: dict[str, Any]) -> list[Plot]:
    return [bench_plots.latency(bench_rows.valid_rows(bench), "device-latency")]


def _said(bench: Mapping[str, Any]) -> list[str]:
    """What a benchmark says in words: computed anew, for the file may be a stranger's."""
    return [*findings(bench), *bench_rows.describe_problems(bench)]


def _bench_tables(bench: Mapping[str, Any]) -> list[Table]:
    tables = [
        Table("One image a call, one thread", BENCH_HEADER, bench_rows.table_cells(bench)),
        Table("The runtime's own call, size, start", DETAIL_HEADER, bench_rows.detail_cells(bench)),
    ]
    batches = [row for row in bench["rows"] if row["threads"] > 1 or row["batch"] > 1]
    if batches:
        tables.append(_batch_table(batches))
    return [*tables, _machine(bench)]


def _batch_table(rows: Sequence[BenchRow]) -> Table:
    cells = [
        (
            bench_plots.name_of(row),
            str(row["threads"]),
            str(row["batch"]),
            row["status"],
            f"{row['throughput_ips']:,.0f}" if row["throughput_ips"] else "",
        )
        for row in rows
    ]
    header = ("artifact, runtime", "threads", "batch", "status", "images/s")
    return Table("Throughput with more threads or images a call", header, cells)


def _machine(bench: Mapping[str, Any]) -> Table:
    """The machine and the method, as the file tells them."""
    facts = {**bench["host"], **bench["method"]}
    cells = [(key.replace("_", " "), _plain(value)) for key, value in facts.items()]
    return Table("Where and how it was measured", ("what", "value"), cells)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return "unknown" if value is None else str(value)


def footprint(report: ReportData) -> Section:
    title = "Cold start and memory"
    bench = report.bench.value
    if bench is None:
        return Section(title, report.bench.problem)
    rows = bench_rows.valid_rows(bench)
    started = [row for row in rows if row["cold_start_ms"]]
    weighed = [row for row in rows if row["peak_rss_mib"] is not None]
    plots = [bench_plots.cold_start(started)] if started else []
    plots += [bench_plots.memory(weighed)] if weighed else []
    problem = "" if plots else "bench.json holds no cold start: run `make bench`"
    return Section(title, problem, report.bench.doubt, plots=plots)


def pi_matrix(report: ReportData) -> Section:
    title = "Raspberry Pi matrix"
    matrix = report.pi.value
    if matrix is None:
        return Section(title, report.pi.problem)
    header, rows = matrix_table(matrix, report.parity.value or {"rows": []})
    failed = [
        f"{c['artifact']} on {c['os']} {c['arch']}, {c['runtime']}: {c['status']}: {c['reason']}"
        for c in matrix["cells"]
        if c["status"] != "pass"
    ]
    text = (
        f"The bundle {matrix['bundle']} was installed and verified on emulated systems: "
        f"{matrix['status']}. 'Same bits' means that every output for every test image is, bit "
        "for bit, what the development machine gave. Emulation says nothing about speed.",
        *failed,
    )
    return Section(title, "", report.pi.doubt, text, tables=(Table("Systems", header, rows),))


def robustness(report: ReportData) -> Section:
    title = "Robustness"
    result = report.robustness.value
    if result is None:
        return Section(title, report.robustness.problem)
    header, cells = table_cells(result["rows"])
    return Section(
        title,
        doubt=report.robustness.doubt,
        plots=(bench_plots.robustness(result["rows"]),),
        tables=(Table("Accuracy on distorted test images", header, cells),),
    )


def photographs(report: ReportData) -> Section:
    title = "Photographs"
    photos = report.photos.value
    if photos is None:
        return Section(title, report.photos.problem)
    return Section(
        title,
        doubt=report.photos.doubt,
        text=(f"{studied_photos.summary(photos)} Read by {photos['model']}.",),
        plots=(bench_plots.photographs(photos["digits"]),),
        tables=[Table(*table) for table in studied_photos.tables(photos)],
    )


def seeds(report: ReportData) -> Section:
    title = "Accuracy over seeds"
    result = report.seeds.value
    if result is None:
        return Section(title, report.seeds.problem)
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
    return Section(title, "", report.seeds.doubt, text, tables=tables)
