"""The drawing: the model itself on the page, and test images to try it with."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from pipeline.artifacts import NATIVE_WASM, ROOT
from pipeline.report.gather import ReportData
from pipeline.report.page import TEMPLATES, Picture

SCRIPTS = (
    *(ROOT / "device" / "web" / name for name in ("lenet5.js", "digit.js")),
    TEMPLATES / "draw.js",
)
IMAGES = 10  # half of them the hardest


@dataclass(frozen=True)
class Drawing:
    """What the page needs for it."""

    script: str
    module: str  # the WebAssembly in base64
    threshold: float  # of probability; below it an answer is 'unsure'; 0: none is
    labels: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @property
    def script_hash(self) -> str:
        """As a content security policy names a script."""
        return f"sha256-{base64.b64encode(sha256(self.script.encode()).digest()).decode()}"


def drawing(report: ReportData, folder: Path) -> Drawing | None:
    """The drawing, or None without the WebAssembly that it runs."""
    module = folder / NATIVE_WASM
    if not module.is_file():
        return None
    return Drawing(
        "\n".join(path.read_text("utf-8") for path in SCRIPTS),
        base64.b64encode(module.read_bytes()).decode(),
        report.training.get("confidence", {}).get("threshold") or 0.0,
        report.data.label_names,
        tuple(
            Picture(report.data.test.images[i], f"{report.label(i)} (image {i})", ())
            for i in choose_images(report)
        ),
    )


def choose_images(report: ReportData) -> list[int]:
    """The first test images, and those whose true class the int8 model finds least probable."""
    labels = report.data.test.labels
    order = np.arange(len(labels))
    if report.int8 is not None:
        order = np.argsort(report.int8[order, labels], kind="stable")
    hardest = order[: IMAGES // 2].tolist()
    first = [i for i in range(min(IMAGES, len(labels))) if i not in hardest]
    return first[: IMAGES - len(hardest)] + hardest
