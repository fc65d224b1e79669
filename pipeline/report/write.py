"""The report stage: `report.html` and `MODEL_CARD.md`."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import artifacts
from pipeline.data import Dataset
from pipeline.data import load as load_data
from pipeline.files import write_bytes
from pipeline.report import first_screen, measured_sections, model_card, model_sections
from pipeline.report.draw import drawing, shape
from pipeline.report.gather import gather
from pipeline.report.page import TEMPLATES, render

SECTIONS = (  # title, what it needs of `ReportData`, what makes it
    ("Parity with the float model", "parity", model_sections.parity),
    ("What it reads wrongly", "probabilities", model_sections.errors),
    ("Speed", "bench", measured_sections.speed),
    ("Boards", "boards", measured_sections.boards),
    ("Speed on a device", "device", measured_sections.speed_on_device),
    ("Emulated Raspberry Pis", "pi", measured_sections.pi_matrix),
    ("Robustness", "robustness", measured_sections.robustness),
    ("Photographs", "photos", measured_sections.photographs),
    ("Accuracy over seeds", "seeds", measured_sections.seeds),
    ("Training", "training", model_sections.training),
    ("Quantization noise by layer", "parity", model_sections.noise),
    ("Files, hashes and versions", "training", model_sections.built),
)


def run(args: argparse.Namespace) -> int:
    for title, problem in write(args.out, load_data(args.data)).items():
        print(f"{title}: {problem}")
    print(f"{args.out / artifacts.REPORT_HTML}, {args.out / artifacts.MODEL_CARD}")
    return 0


def write(folder: Path, data: Dataset) -> dict[str, str]:
    """Write both files; the same results give the same bytes.

    Args:
        folder: The artifacts.
        data: The data set.

    Returns:
        Of each section that is left out of the page, why.

    Raises:
        UserError: There is no trained model, or it is not of this data set.
    """
    report = gather(folder, data)
    problems = report.problems
    missing = {title: problems[needed] for title, needed, _ in SECTIONS if needed in problems}
    draw = drawing(report, folder)
    if draw is None:
        missing[f"Draw a {shape(report)}"] = (
            f"{artifacts.NATIVE_WASM} is missing: run `make native`"
        )
    page = render(
        "page.html.j2",
        title="LeNet-5: from training to the device",
        style=(TEMPLATES / "page.css").read_text("utf-8"),
        verdict=first_screen.verdict(report),
        figures=first_screen.figures(report),
        draw=draw,
        sections={title: make(report) for title, _, make in SECTIONS if title not in missing},
        missing=missing,
    )
    write_bytes(folder / artifacts.REPORT_HTML, page.encode())
    write_bytes(folder / artifacts.MODEL_CARD, model_card.text(report).encode())
    (folder / artifacts.MISREAD_PNG).parent.mkdir(exist_ok=True)
    write_bytes(folder / artifacts.MISREAD_PNG, model_card.misread_picture(report))
    return missing
