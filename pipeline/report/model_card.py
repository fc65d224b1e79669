"""The model card: Markdown with the front matter that Hugging Face reads.

Source of the format: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import collections
import io
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from device.bench import rows as bench_rows
from pipeline.artifacts import FLOAT_MODEL, MISREAD_PNG, PROJECT
from pipeline.parity.judge import format_table
from pipeline.report.gather import ReportData
from pipeline.report.measured_sections import BENCH_HEADER, DETAIL_HEADER
from pipeline.report.page import environment
from pipeline.studies.robustness import table_cells
from pipeline.table import markdown_table

MNIST_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"
MNIST_DATASET = {"name": "MNIST", "type": "ylecun/mnist", "config": "mnist", "split": "test"}
CARD_COLUMNS = ("artifact", "runtime", "p50, µs", "p90, µs", "cold start, ms", "peak memory, MiB")
MAX_MISREAD = 60
TASK = {"type": "image-classification", "name": "Image Classification"}


def render(report: ReportData) -> str:
    matter = front_matter(report)
    # JSON is YAML, and json.dumps escapes whatever a folder or a class may be called.
    lines = [f"{key}: {json.dumps(value)}" for key, value in matter.items()]
    photos, distorted = report.photos.value, report.robustness.value
    return (
        environment()
        .get_template("model_card.md.j2")
        .render(
            front_matter="\n".join(lines),
            training=report.training,
            data=report.data,
            is_mnist=report.data.sha256 == MNIST_SHA256,
            labels=", ".join(map(plain, report.data.label_names)),
            commit=report.commit,
            tools=", ".join(f"{name} {version}" for name, version in report.tools.items()),
            files=files_table(report),
            parity=format_table(report.parity.value) if report.parity.value else "",
            host=report.bench.value["host"] if report.bench.value else {},
            bench=bench_table(report.bench.value) if report.bench.value else "",
            robustness=markdown_table(*table_cells(distorted["rows"])) if distorted else "",
            photos=photos,
            minutes=report.training["seconds"] / 60,
            threshold=report.training.get("confidence", {}).get("threshold"),
            misread=misread_table(report),
            shown=len(misread(report)[:MAX_MISREAD]),
            version=report.version,
            picture=MISREAD_PNG,
        )
    )


def misread(report: ReportData) -> list[tuple[int, int]]:
    """Test images that int8 reads wrongly, and as what, the surest first."""
    int8 = report.int8
    if int8 is None:
        return []
    read = int8.argmax(axis=1)
    wrong = np.flatnonzero(read != report.data.test.labels)
    surest = wrong[np.argsort(-int8[wrong].max(axis=1), kind="stable")]
    return [(int(i), int(read[i])) for i in surest]


def misread_table(report: ReportData) -> str:
    """Which class is read as which how often, the most frequent first; "" if none is."""
    names = report.data.label_names
    pairs = collections.Counter((report.label(i), names[read]) for i, read in misread(report))
    cells = [[plain(label), plain(read), str(n)] for (label, read), n in pairs.most_common(10)]
    return markdown_table(["it is", "it is read as", "images"], cells) if cells else ""


def misread_picture(report: ReportData) -> bytes:
    """The first of `misread` as a PNG, rows of ten, black ink on white."""
    from PIL import Image

    chosen = [i for i, _ in misread(report)[:MAX_MISREAD]]
    sheet = np.full((28 * max(1, -(-len(chosen) // 10)), 280), 255, np.uint8)
    for at, i in enumerate(chosen):
        top, left = 28 * (at // 10), 28 * (at % 10)
        sheet[top : top + 28, left : left + 28] = 255 - report.data.test.images[i]
    stream = io.BytesIO()
    image = Image.fromarray(sheet)
    image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def front_matter(report: ReportData) -> dict[str, Any]:
    """The metadata: licence, tags, data set, and the measured accuracies as a model-index."""
    is_mnist = report.data.sha256 == MNIST_SHA256
    name = report.data.source.resolve().name
    dataset = MNIST_DATASET if is_mnist else {"name": name, "type": name, "split": "test"}
    metrics = [_metric(FLOAT_MODEL, report.training["test_accuracy"])]
    if report.parity.value is not None:
        artifacts = {
            row["artifact"]: row["accuracy"]
            for row in reversed(report.parity.value["rows"])
            if row["status"] == "pass"
        }
        metrics += [_metric(artifact, artifacts[artifact]) for artifact in sorted(artifacts)]
    matter: dict[str, Any] = {
        "license": "mit",
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "lenet", "mnist", "tflite", "onnx", "int8"],
    }
    if is_mnist:
        matter["datasets"] = [MNIST_DATASET["type"]]
    else:
        matter["tags"].remove("mnist")
    results = [{"task": TASK, "dataset": dataset, "metrics": metrics}]
    return {
        **matter,
        "metrics": ["accuracy"],
        "model-index": [{"name": PROJECT, "results": results}],
    }


def _metric(artifact: str, accuracy: float) -> dict[str, Any]:
    return {"type": "accuracy", "value": accuracy, "name": f"Accuracy of {artifact}"}


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>~&$-])", r"\\\1", text)


def files_table(report: ReportData) -> str:
    rows = []
    for name, size in report.sizes_bytes.items():
        contract = _contract(report, name)
        rows.append([f"`{name}`", contract, f"{size / 1000:.1f}", f"`{report.hashes[name][:16]}`"])
    return markdown_table(["file", "input and output", "size, kB", "SHA-256 begins"], rows)


def _contract(report: ReportData, name: str) -> str:
    if name == FLOAT_MODEL:
        return f"float32 (batch, 32, 32, 1), 0 to 1 -> float32 (batch, {report.data.classes})"
    return " -> ".join(map(_tensor, report.contracts[name].values()))


def _tensor(tensor: Mapping[str, Any]) -> str:
    text = f"{tensor['dtype']} ({', '.join(map(str, tensor['shape']))})"
    if "scale" in tensor:
        text += f", scale {tensor['scale']:.6g}, zero point {tensor['zero_point']}"
    return text


def bench_table(bench: Mapping[str, Any]) -> str:
    """Latency of one image a call on one thread, start and memory, of the rows that are valid."""
    header = (*BENCH_HEADER, *DETAIL_HEADER)
    columns = [header.index(name) for name in CARD_COLUMNS]
    valid = {**bench, "rows": bench_rows.valid_rows(bench)}
    rows = zip(bench_rows.table_cells(valid), bench_rows.detail_cells(valid), strict=True)
    cells = [[*speed, *detail] for speed, detail in rows]
    return markdown_table(CARD_COLUMNS, [[row[i] for i in columns] for row in cells])
