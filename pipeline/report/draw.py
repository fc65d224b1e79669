"""The drawing: the model itself on the page, and test images to try it with."""

from __future__ import annotations

import base64
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import NATIVE_WASM, ROOT
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
        "script": script,
        "script_hash": f"sha256-{digest}",  # as a content security policy names a script
        "module": base64.b64encode(module.read_bytes()).decode(),
        "threshold": report.threshold,
        "labels": report.data.label_names,
        "pictures": [
            Picture(images[i], f"{report.label(i)} (image {i})") for i in choose_images(report)
        ],
    }


def choose_images(report: ReportData) -> list[int]:
    """The first test images, and those whose true class the int8 model finds least probable."""
    labels = report.data.test.labels
    order = np.arange(len(labels))
    if report.int8 is not None:
        order = np.argsort(report.int8[order, labels], kind="stable")
    hardest = order[: IMAGES // 2].tolist()
    first = [i for i in range(min(IMAGES, len(labels))) if i not in hardest]
    return first[: IMAGES - len(hardest)] + hardest
