"""The readme stage: README's table and docs/results.md from one run, never typed by hand."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device.bench import rows as bench_rows
from pipeline.artifacts import (
    BENCH_JSON,
    CONVERTED,
    FLOAT_MODEL,
    FP32_TFLITE,
    INT8_TFLITE,
    NATIVE_SOURCE,
    NATIVE_WASM,
    PARITY_JSON,
    PHOTOS_JSON,
    PI_MATRIX_JSON,
    TIMINGS_JSON,
    TRAIN_JSON,
    describe_machine,
)
from pipeline.bench.findings import findings
from pipeline.bench.result import read_result
from pipeline.files import read_json, write_bytes, write_json
from pipeline.parity.judge import format_table
from pipeline.pi_test.matrix import format_matrix
from pipeline.table import insert_generated, markdown_table

RESULTS = Path("docs/results.json")
PAGES = {"README.md": "summary", "docs/results.md": "details"}  # by what is inserted there
EXPORT_STAGES = ("train", "export", "native", "parity", "bundle")
WHERE_IT_RUNS = {
    FP32_TFLITE: "64-bit Pis; 32-bit with Python 3.11",
    INT8_TFLITE: "64-bit Pis; 32-bit with Python 3.11",
    NATIVE_SOURCE: "every Pi, with or without Python",
    NATIVE_WASM: "every browser",
}


def collect(folder: Path) -> dict[str, Any]:
    """What the pages show of one run of `make export` and of what was measured with it.

    Args:
        folder: The artifacts of that run.

    Returns:
        train, parity, sizes_bytes, seconds and machine, as `docs/results.json` keeps them; pi,
        photos and bench, where `make pi-test`, `make photos` and `make bench` were run.

    Raises:
        UserError: A stage has not been run by `make export`.
    """
    training = read_json(folder / TRAIN_JSON)
    parity = read_json(folder / PARITY_JSON)
    timings = read_json(folder / TIMINGS_JSON, *EXPORT_STAGES)
    for row in parity["rows"]:
        row["flips"] = len(row["flips"])
    files = sorted({row["artifact"] for row in parity["rows"]})
    optional = {
        name: read_json(folder / file)
        for name, file in (("pi", PI_MATRIX_JSON), ("photos", PHOTOS_JSON))
        if (folder / file).is_file()
    }
    if (folder / BENCH_JSON).is_file():
        bench = read_result(folder / BENCH_JSON)
        optional["bench"] = {
            **bench,
            "rows": [without_rounds(row) for row in bench_rows.single_rows(bench)],
            "findings": findings(bench),
        }
    keys = ("recipe", "seed", "parameters", "epochs", "seconds", "val_accuracy", "test_accuracy")
    return {
        "machine": describe_machine(),
        "train": {key: training[key] for key in keys},
        "parity": parity,
        "sizes_bytes": {name: (folder / name).stat().st_size for name in files},
        "seconds": {stage: timings[stage] for stage in EXPORT_STAGES},
        **optional,
    }


def without_rounds(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of bench.json without the figures of each round."""
    return {key: value for key, value in row.items() if key not in ("rounds_us", "quantiles_us")}


def render(results: Mapping[str, Any]) -> dict[str, str]:
    """The generated parts, in Markdown: "summary" and "details"."""
    return {"summary": summary(results), "details": details(results)}


def summary(results: Mapping[str, Any]) -> str:
    """README's part: what `make export` ends with, and a row an artifact."""
    train, parity = results["train"], results["parity"]
    passed = {row["artifact"]: row for row in parity["rows"] if row["status"] == "pass"}
    timed = [row for row in results.get("bench", {}).get("rows", ()) if row["status"] == "ok"]
    timed.sort(key=lambda row: -float(row["latency_us"]["p50"]))
    fastest = {row["artifact"]: row for row in timed}  # the last, that is the fastest, stays
    rows = []
    for artifact in (*CONVERTED, NATIVE_SOURCE, NATIVE_WASM):
        if artifact not in passed:
            continue
        best, time = fastest.get(artifact), ""
        if best:
            runtime = best["runtime"] if best["runtime"] != "native" else "a call from Python"
            time = f"{best['latency_us']['p50']:.1f} us, {runtime}"
        size_bytes = best["size_bytes"] if best else results["sizes_bytes"][artifact]
        where = WHERE_IT_RUNS.get(artifact, "64-bit Pis")
        accuracy = f"{passed[artifact]['accuracy']:.2%}"
        rows.append([artifact, accuracy, f"{size_bytes / 1000:.0f} kB", time, where])
    header = ["artifact", "accuracy", "size", "time for an image", "where it runs"]
    return "\n\n".join(
        [
            "`make export` ends with",
            f"    {FLOAT_MODEL}: {train['test_accuracy']:.2%} of the test images right, "
            f"{train['parameters']:,} parameters\n"
            f"    parity: {parity['status']}, {len(passed)} artifacts on "
            f"{len({row['runtime'] for row in parity['rows']})} runtimes, "
            f"{parity['reference']['n']:,} images each",
            markdown_table(header, rows),
            f"Measured on: {results['machine']}.",
        ]
    )


def details(results: Mapping[str, Any]) -> str:
    """All tables of docs/results.md."""
    train, seconds = results["train"], results["seconds"]
    sizes = sorted(results["sizes_bytes"].items(), key=lambda pair: int(pair[1]))
    parts = [
        f"Measured on: {results['machine']}.",
        "## The float model",
        f"Recipe `{train['recipe']}`, seed {train['seed']}: {train['parameters']:,} parameters, "
        f"{train['val_accuracy']:.2%} on the validation images, **{train['test_accuracy']:.2%}** "
        f"on the {results['parity']['reference']['n']:,} test images, after "
        f"{train['seconds']:.0f} s of training.",
        "## Parity",
        f"**{results['parity']['status']}**: every artifact on every runtime, all test images. "
        "'same bits': it passed, and every output is tflite-runtime's to the last bit.",
        format_table(results["parity"]),
        "## Size and time to build",
        markdown_table(["artifact", "kB"], [[name, f"{size / 1000:.1f}"] for name, size in sizes]),
        markdown_table(
            ["stage", "seconds"], [[name, f"{value:.0f}"] for name, value in seconds.items()]
        ),
    ]
    if "bench" in results:
        bench = results["bench"]
        parts += [
            "## Speed",
            "A picture in, label and probability out, one at a time on one thread (`make bench`). "
            f"Compared with {bench['method']['baseline']}. {bench['method']['p90_confidence']}.",
            markdown_table(bench_rows.HEADER, bench_rows.table_cells(bench)),
            # Without the last column, so that it fits the page.
            markdown_table(
                bench_rows.DETAIL_HEADER[:-1], [row[:-1] for row in bench_rows.detail_cells(bench)]
            ),
            "\n".join(f"- {line}" for line in bench["findings"]),
        ]
    if "pi" in results:
        parts += [
            "## Emulated Raspberry Pis",
            "`make pi-test`; 'same bits': every output is, bit for bit, what the development "
            "machine gave; a number: the greatest difference of a probability.",
            format_matrix(results["pi"], results["parity"]),
        ]
    if "photos" in results:
        photos = results["photos"]
        digits, empties = (sum(row["n"] for row in photos[k]) for k in ("digits", "empties"))
        parts += [
            "## Photographs",
            f"Of {digits} generated photographs of digits (`make photos`) a plain resize is read "
            f"right {photos['raw_resize_accuracy']:.1%}, `device/photo` "
            f"{photos['accuracy']:.1%}; of {empties} without a digit {photos['refused_share']:.1%} "
            "are refused.",
        ]
    return "\n\n".join(parts)


def run(args: argparse.Namespace) -> int:
    """Write `docs/results.json` from a run, and the pages from it."""
    results = collect(args.out)
    write_json(RESULTS, results)
    for name, part in PAGES.items():
        page = Path(name)
        text = insert_generated(page.read_text("utf-8"), render(results)[part], "make readme", name)
        write_bytes(page, text.encode())
    print(", ".join([*PAGES, str(RESULTS)]))
    return 0
