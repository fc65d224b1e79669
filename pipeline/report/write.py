"""The report stage: `report.html` and `MODEL_CARD.md`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pipeline.artifacts import MISREAD_PNG, MODEL_CARD, NATIVE_WASM, REPORT_HTML
from pipeline.data import Dataset
from pipeline.data import load as load_data
from pipeline.files import write_bytes
from pipeline.report import first_screen, measured_sections, model_card, model_sections
from pipeline.report.draw import drawing
from pipeline.report.gather import ReportData, gather
from pipeline.report.page import Section, render_page

SECTIONS: tuple[Callable[[ReportData], Section], ...] = (
    model_sections.parity,
    model_sections.errors,
    measured_sections.speed,
    measured_sections.boards,
    measured_sections.on_device,
    measured_sections.pi_matrix,
    measured_sections.robustness,
    measured_sections.photographs,
    measured_sections.seeds,
    model_sections.training,
    model_sections.noise,
    model_sections.built,
)


def run(args: argparse.Namespace) -> int:
    for section in write(args.out, load_data(args.data)):
        if section.problem:
            print(f"{section.title}: {section.problem}")
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
    draw = drawing(report, folder)
    if draw is None:
        problem = f"{NATIVE_WASM} is missing: run `make native`"
        sections.append(Section("Draw a digit", problem=problem))
    page = render_page(
        title="LeNet-5: from training to the device",
        verdict=first_screen.verdict(report),
        figures=first_screen.figures(report),
        draw=draw,
        sections=[section for section in sections if not section.problem],
        missing=[section for section in sections if section.problem],
    )
    write_bytes(folder / REPORT_HTML, page.encode())
    write_bytes(folder / MODEL_CARD, model_card.render(report).encode())
    (folder / MISREAD_PNG).parent.mkdir(exist_ok=True)
    write_bytes(folder / MISREAD_PNG, model_card.misread_picture(report))
    return sections
