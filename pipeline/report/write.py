"""The report stage: `report.html` and `MODEL_CARD.md`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pipeline.artifacts import MODEL_CARD, REPORT_HTML
from pipeline.data import Dataset
from pipeline.data import load as load_data
from pipeline.files import write_bytes
from pipeline.report import measured_sections, model_card, model_sections
from pipeline.report.gather import ReportData, gather
from pipeline.report.page import Section, render_page


def run(args: argparse.Namespace) -> int:
    for section in write(args.out, load_data(args.data)):
        if section.problem or section.doubt:
            print(f"{section.title}: {section.problem or section.doubt}")
    print(f"{args.out / REPORT_HTML}, {args.out / MODEL_CARD}")
    return 0


def write(folder: Path, data: Dataset) -> list[Section]:
    """Write both files; the same results give the same bytes.

    Args:
        folder: The artifacts.
        data: The data set.

    Returns:
        The sections of the page; one without data says why.

    Raises:
        UserError: There is no trained model, or it is not of this data set.
    """
    report = gather(folder, data)
    sections = [describe(report) for describe in SECTIONS]
    page = render_page("LeNet-5: from training to the device", summarise(report), sections)
    write_bytes(folder / REPORT_HTML, page.encode())
    write_bytes(folder / MODEL_CARD, model_card.render(report).encode())
    return sections


SECTIONS: tuple[Callable[[ReportData], Section], ...] = (
    model_sections.built,
    model_sections.training,
    model_sections.sample_digits,
    model_sections.confusion,
    model_sections.parity,
    model_sections.gallery,
    model_sections.noise,
    model_sections.weights,
    measured_sections.speed,
    measured_sections.footprint,
    measured_sections.on_device,
    measured_sections.pi_matrix,
    measured_sections.robustness,
    measured_sections.photographs,
    measured_sections.seeds,
)


def summarise(report: ReportData) -> list[str]:
    training = report.training
    lines = [
        f"Recipe {training['recipe']}, seed {training['seed']}: {training['parameters']:,} "
        f"parameters, {training['test_accuracy']:.2%} of {len(report.data.test):,} test images."
    ]
    if report.parity.value is not None:
        rows = report.parity.value["rows"]
        passed = sum(row["status"] == "pass" for row in rows)
        lines.append(
            f"Parity with the float model: {report.parity.value['status']} "
            f"({passed} of {len(rows)} artifacts and runtimes pass)."
        )
    return lines
