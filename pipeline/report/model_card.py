"""The model card: Markdown with the front matter that Hugging Face reads.

Source of the format: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from device.bench.rows import valid_rows
from pipeline.artifacts import FLOAT_MODEL, MISREAD_PNG, PROJECT
from pipeline.parity.judge import table_cells as parity_cells
from pipeline.report.gather import ReportData
from pipeline.report.model_sections import misreadings, mistakes
from pipeline.report.page import png, render
from pipeline.studies.robustness import table_cells as robustness_cells

MNIST_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"
MAX_MISREAD = 60


def text(report: ReportData) -> str:
    """The card; its template says which facts it holds."""
    parity, distorted = report.parity, report.robustness
    passed = [row for row in parity["rows"] if row["status"] == "pass"] if parity else []
    first = {row["artifact"]: row["accuracy"] for row in reversed(passed)}  # runtime of each
    non_digits = report.seeds["non_digits_sure"] if report.seeds else {}
    misread = misreadings(report)
    return render(
        "model_card.md.j2",
        report=report,
        project=PROJECT,
        is_mnist=report.data.sha256 == MNIST_SHA256,
        data_name=report.data.source.resolve().name,
        accuracies={
            FLOAT_MODEL: report.training["test_accuracy"],
            **dict(sorted(first.items())),
        },
        contract={name: _contract(report, name) for name in report.sizes_bytes},
        parity=parity and parity_cells(parity),
        timed=valid_rows(report.bench) if report.bench else [],
        robustness=distorted and robustness_cells(distorted["rows"]),
        mistakes=mistakes(report)[:10],
        non_digits=[(name, f"{of['int8']:.0%}") for name, of in non_digits.items()],
        misread=len(misread),
        shown=len(misread[:MAX_MISREAD]),
        picture=MISREAD_PNG,
    )


def misread_picture(report: ReportData) -> bytes:
    """The first of `misreadings` as a PNG, rows of ten, black ink on white."""
    chosen = misreadings(report)[:MAX_MISREAD]
    sheet = np.full((28 * max(1, -(-len(chosen) // 10)), 280), 255, np.uint8)
    for at, (i, _) in enumerate(chosen):
        top, left = 28 * (at // 10), 28 * (at % 10)
        sheet[top : top + 28, left : left + 28] = 255 - report.data.test.images[i]
    return png(sheet, scale=2)


def _contract(report: ReportData, name: str) -> str:
    if name == FLOAT_MODEL:
        return f"float32 (batch, 32, 32, 1), 0 to 1 -> float32 (batch, {report.data.classes})"
    return " -> ".join(map(_tensor, report.contracts[name].values()))


def _tensor(tensor: Mapping[str, Any]) -> str:
    text = f"{tensor['dtype']} ({', '.join(map(str, tensor['shape']))})"
    if "scale" in tensor:
        text += f", scale {tensor['scale']:.6g}, zero point {tensor['zero_point']}"
    return text
