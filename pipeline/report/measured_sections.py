"""The sections on what was measured with the artifacts: speed, other systems, other images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device.bench import rows as bench_rows
from device.bench.rows import three_figures
from pipeline.bench.findings import findings
from pipeline.report import plots
from pipeline.report.gather import ReportData
from pipeline.report.page import Section, Table, named, problem
from pipeline.report.plots import short
from pipeline.studies import photos as studied_photos
from pipeline.studies.accuracy import artifact_cells, count_seeds, pair_cells
from pipeline.studies.robustness import table_cells

BOARDS = {  # by the processor that qemu plays
    **{"arm1176": "Pi 1 and Zero", "cortex-a7": "Pi 2", "cortex-a53": "Pi 3 and Zero 2 W"},
    **{"cortex-a72": "Pi 4", "cortex-a76": "Pi 5", "max": "qemu's own processor"},
}


def speed(report: ReportData) -> Section:
    return describe_bench(report.bench, "latency")


def speed_on_device(report: ReportData) -> Section:
    return describe_bench(report.device, "device-latency")


def describe_bench(bench: Mapping[str, Any], plot: str) -> Section:
    """What a result of the benchmark says, its plot if it has a valid row, and its tables."""
    # Computed anew, for the file may be a stranger's.
    takeaway, *said = [*findings(bench), *bench_rows.describe_problems(bench)] or ["No valid row."]
    timed = bench_rows.valid_rows(bench)
    host, method = bench["host"], bench["method"]
    said.append(
        f"Measured on {host['cpu']} ({host['board']}), {host['cores']} cores, {host['system']}, "
        f"Python {host['python']}: {method['launches']} launches of "
        f"{method['rounds_per_launch']} rounds; {method['p90_confidence']}."
    )
    tables = (
        Table(
            f"One image a call, one thread; the baseline is {method['baseline']}",
            bench_rows.HEADER,
            bench_rows.table_cells(bench),
        ),
        Table(
            "The runtime's own call, size, start",
            bench_rows.DETAIL_HEADER,
            bench_rows.detail_cells(bench),
        ),
    )
    drawn = [plots.latency(timed, plot)] if timed else []
    return Section(takeaway, text=said, plots=drawn, tables=tables)


def boards(report: ReportData) -> Section:
    receipts, refused = report.boards["receipts"], report.boards["refused"]
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
    takeaway = f"{proven} of {len(receipts)} boards have a model that answers as it should."
    return Section(takeaway, text=refused, tables=(Table("Receipts", header, rows),))


def pi_matrix(report: ReportData) -> Section:
    """Boards by runtimes: emulated, so of results and not of speed."""
    cells = report.pi["cells"]
    runtimes = dict.fromkeys(cell["runtime"] for cell in cells)
    boards: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        board = f"{BOARDS.get(cell['cpu'], cell['cpu'])}, {cell['os']} {cell['arch']}"
        proof = f"{short(cell['artifact'])}: {describe_cell(cell)}"
        boards.setdefault(board, {}).setdefault(cell["runtime"], []).append(proof)
    rows = [
        (board, *("; ".join(found.get(runtime, ["-"])) for runtime in runtimes))
        for board, found in boards.items()
    ]
    failed = [
        problem(f"{named(cell)}, on {cell['os']} {cell['arch']},", cell)
        for cell in cells
        if cell["status"] != "pass"
    ]
    takeaway = (
        f"{len(cells) - len(failed)} of {len(cells)} combinations of board, runtime and artifact "
        "pass on emulated Raspberry Pis."
    )
    text = (
        f"On each, {report.pi['bundle']} was installed and read test images. 'same bits' means "
        "that every output is, bit for bit, this machine's; a number is the greatest difference "
        "of a probability. Emulation says nothing about speed.",
        *failed,
    )
    table = Table("How each was proven", ("board", *runtimes), rows)
    return Section(takeaway, text=text, tables=(table,))


def describe_cell(cell: Mapping[str, Any]) -> str:
    """How a cell of the matrix was proven, and on how many images."""
    if cell["status"] != "pass":
        return str(cell["status"]).replace("_", " ")
    how = "same bits" if cell["bit_identical"] else f"{cell['max_abs_dp']:.1e}"
    return f"{how} on {cell['n']:,} images"


def robustness(report: ReportData) -> Section:
    rows = report.robustness["rows"]
    worst = min(rows, key=lambda row: float(row["accuracy"]["int8"]))
    takeaway = (
        f"int8 reads fewest images right with a {worst['distortion']} of {worst['strength']:g} "
        f"{worst['unit']}: {worst['accuracy']['int8']:.1%}; float reads "
        f"{worst['accuracy']['float']:.1%}."
    )
    table = Table("Accuracy on distorted test images", *table_cells(rows))
    return Section(takeaway, plots=(plots.robustness(rows),), tables=(table,))


def photographs(report: ReportData) -> Section:
    photos = report.photos
    text = "Each kind of photograph was read without an error."
    # Of some fifty kinds only those with an error; docs/photographs.md has all.
    wrong = {
        "digits": [row for row in photos["digits"] if row["find_digit_correct"] < row["n"]],
        "empties": [row for row in photos["empties"] if row["refused"] < row["n"]],
    }
    tables = [
        Table(f"{caption}: kinds with an error", header, rows)
        for caption, header, rows in studied_photos.tables({**photos, **wrong, "timings": []})
        if rows
    ]
    if tables:
        kinds = len(photos["digits"]) + len(photos["empties"])
        text = f"{sum(map(len, wrong.values()))} of {kinds} kinds of photograph have an error."
    text += f" The model is {photos['model']}."
    return Section(studied_photos.summary(photos), text=(text,), tables=tables)


def seeds(report: ReportData) -> Section:
    block, count = report.seeds, count_seeds(report.seeds)
    takeaway = (
        f"With {count}, recipe {block['recipe']} reads {1 - block['mean_test_accuracy']:.2%} of "
        f"the test images wrongly on average; this model reads "
        f"{1 - report.training['test_accuracy']:.2%} wrongly."
    )
    tables = [Table(f"Mean of {count}", *artifact_cells(block))]
    for part, what in (("wild", "read right"), ("non_digits_sure", "answered, though no digits")):
        if shares := pair_cells(block[part]):
            caption = f"Generated images that are {what}; mean of {count}"
            tables.append(Table(caption, ("images", "float", "int8"), shares))
    text = (f"Each seed was trained, converted and judged by itself on {block['machine']}.",)
    return Section(takeaway, text=text, tables=tables)
