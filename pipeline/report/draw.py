"""The drawing: the model itself on the page, and test images to try it with."""

from __future__ import annotations

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import NATIVE_WASM, ROOT
from pipeline.parity.judge import SAME_BITS_AS
from pipeline.report.gather import ReportData
from pipeline.report.page import TEMPLATES, Picture

WEB = ROOT / "device" / "web"
SCRIPTS = (WEB / "lenet5.js", WEB / "digit.js", TEMPLATES / "draw.js")
IMAGES = 10  # half of them the hardest


def drawing(report: ReportData, folder: Path) -> dict[str, Any] | None:
    """What the template needs for it; None without the WebAssembly that it runs."""
    module = folder / NATIVE_WASM
    if not module.is_file():
        return None
    script = "\n".join(path.read_text("utf-8") for path in SCRIPTS)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    images = report.data.test.images
    return {
        "takeaway": takeaway(report),
        "shape": shape(report),
        "script": script,
        "script_hash": f"sha256-{digest}",  # as a content security policy names a script
        "module": base64.b64encode(module.read_bytes()).decode(),
        "threshold": report.threshold,
        "labels": report.data.label_names,
        "knows_hardest": report.int8 is not None,
        "pictures": [
            Picture(images[i], f"{report.label(i)} (image {i})") for i in choose_images(report)
        ],
    }


def shape(report: ReportData) -> str:
    """What one draws."""
    return "digit" if report.data.shows_digits else "picture"


def takeaway(report: ReportData) -> str:
    """How far it is proven that the page answers as the others do."""
    rows = report.parity["rows"] if report.parity else []
    row = next((row for row in rows if row["artifact"] == NATIVE_WASM), None)
    if row is None or row["status"] != "pass":
        return "This is the int8 model in your browser. Parity has not confirmed its answers."
    same = f"gave the same bits as {' on '.join(SAME_BITS_AS)}"
    if not row["bit_identical"]:
        same = "agreed with the float model within the budget"
    return f"This is the int8 model in your browser. On all {row['n']:,} test images it {same}."


def choose_images(report: ReportData) -> list[int]:
    """The first test images, and last those whose true class int8 finds least probable."""
    labels, hardest = report.data.test.labels, []
    if report.int8 is not None:
        of_truth = report.int8[np.arange(len(labels)), labels]
        hardest = np.argsort(of_truth, kind="stable")[: IMAGES // 2].tolist()
    first = [i for i in range(min(IMAGES, len(labels))) if i not in hardest]
    return first[: IMAGES - len(hardest)] + hardest
