"""The readme stage: README's table and docs/results.md from one run, never typed by hand."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device.bench import rows as bench_rows
from pipeline import artifacts
from pipeline.bench.findings import findings
from pipeline.bench.result import read_result
from pipeline.files import read_json, write_bytes, write_json
from pipeline.parity.judge import format_table
from pipeline.pi_test.matrix import format_matrix
from pipeline.report.page import render
from pipeline.studies.photos import summary as describe_photos
from pipeline.table import insert_generated, markdown_table

RESULTS = Path("docs/results.json")
PAGES = {"README.md": "readme.md.j2", "docs/results.md": "results.md.j2"}  # what fills each
EXPORT_STAGES = ("train", "export", "native", "parity", "bundle")
WHERE_IT_RUNS = {
    artifacts.FP32_TFLITE: "64-bit Pis; 32-bit with Python 3.11",
    artifacts.INT8_TFLITE: "64-bit Pis; 32-bit with Python 3.11",
    artifacts.NATIVE_SOURCE: "every Pi, with or without Python",
    artifacts.NATIVE_WASM: "every browser",
}


def collect(folder: Path) -> dict[str, Any]:
    """What `docs/results.json` holds: one run of `make export`, and what was measured with it.

    Raises:
        UserError: A stage has not been run by `make export`.
    """
    training = read_json(folder / artifacts.TRAIN_JSON)
    parity = read_json(folder / artifacts.PARITY_JSON)
    timings = read_json(folder / artifacts.TIMINGS_JSON, *EXPORT_STAGES)
    for row in parity["rows"]:
        row["flips"] = len(row["flips"])
    files = sorted({row["artifact"] for row in parity["rows"]})
    optional = {
        name: read_json(folder / file)
        for name, file in (("pi", artifacts.PI_MATRIX_JSON), ("photos", artifacts.PHOTOS_JSON))
        if (folder / file).is_file()
    }
    if (folder / artifacts.BENCH_JSON).is_file():
        bench = read_result(folder / artifacts.BENCH_JSON)
        optional["bench"] = {
            **bench,
            "rows": [
                {key: row[key] for key in row if key not in ("rounds_us", "quantiles_us")}
                for row in bench_rows.single_rows(bench)
            ],
            "findings": findings(bench),
        }
    keys = ("recipe", "seed", "parameters", "epochs", "seconds", "val_accuracy", "test_accuracy")
    return {
        "machine": artifacts.describe_machine(),
        "train": {key: training[key] for key in keys},
        "parity": parity,
        "sizes_bytes": {name: (folder / name).stat().st_size for name in files},
        "seconds": {stage: timings[stage] for stage in EXPORT_STAGES},
        **optional,
    }


def generated(page: str, results: Mapping[str, Any]) -> str:
    """The generated part of one of `PAGES`, in Markdown."""
    parity, pi, photos = results["parity"], results.get("pi"), results.get("photos")
    sizes = sorted(results["sizes_bytes"].items(), key=lambda pair: int(pair[1]))
    return render(
        PAGES[page],
        **{"bench": None, **results},
        model=artifacts.FLOAT_MODEL,
        artifacts=artifact_table(results),
        passed=len({row["artifact"] for row in parity["rows"] if row["status"] == "pass"}),
        runtimes=len({row["runtime"] for row in parity["rows"]}),
        parity_table=format_table(parity),
        sizes=[[name, f"{size / 1000:.1f}"] for name, size in sizes],
        stages=[[name, f"{value:.0f}"] for name, value in results["seconds"].items()],
        bench_rows=bench_rows,
        matrix=pi and format_matrix(pi, parity),
        photographs=photos and describe_photos(photos),
    ).strip()


def artifact_table(results: Mapping[str, Any]) -> str:
    """A row for each artifact that is at par, with its best time."""
    passed = {row["artifact"]: row for row in results["parity"]["rows"] if row["status"] == "pass"}
    timed = [row for row in results.get("bench", {}).get("rows", ()) if row["status"] == "ok"]
    timed.sort(key=lambda row: -float(row["latency_us"]["p50"]))
    fastest = {row["artifact"]: row for row in timed}  # the last, that is the fastest, stays
    rows = []
    for artifact in (*artifacts.CONVERTED, artifacts.NATIVE_SOURCE, artifacts.NATIVE_WASM):
        if artifact not in passed:
            continue
        best, time = fastest.get(artifact), ""
        if best:
            runtime = best["runtime"] if best["runtime"] != "native" else "a call from Python"
            time = f"{best['latency_us']['p50']:.1f} µs, {runtime}"
        size_bytes = best["size_bytes"] if best else results["sizes_bytes"][artifact]
        where = WHERE_IT_RUNS.get(artifact, "64-bit Pis")
        accuracy = f"{passed[artifact]['accuracy']:.2%}"
        rows.append([artifact, accuracy, f"{size_bytes / 1000:.0f} kB", time, where])
    header = ["artifact", "accuracy", "size", "time for an image", "where it runs"]
    return markdown_table(header, rows)


def run(args: argparse.Namespace) -> int:
    """Write `docs/results.json` from a run, and the pages from it."""
    results = collect(args.out)
    write_json(RESULTS, results)
    for name in PAGES:
        page = Path(name)
        part = generated(name, results)
        text = insert_generated(page.read_text("utf-8"), part, "make readme", name)
        write_bytes(page, text.encode())
    print(", ".join([*PAGES, str(RESULTS)]))
    return 0
