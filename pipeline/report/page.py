"""What the page is made of, and the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.report.svg import Plot

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Bar:
    """A table cell that shows how much of a budget is used."""

    label: str  # what is written
    used: float  # the share, 0 (nothing) to 1 (all); above: over budget


@dataclass(frozen=True)
class Table:
    """A table; the first column heads its rows."""

    caption: str  # what it shows
    header: Sequence[str]  # the columns' names
    rows: Sequence[Sequence[str | tuple[Bar, ...]]]  # cells: a text, or bars below each other


@dataclass(frozen=True)
class Picture:
    """A test image."""

    pixels: NDArray[np.uint8]  # (28, 28), white ink on black
    title: str
    lines: Sequence[str]  # what the models say of it

    @property
    def source(self) -> str:
        """A data URI: a PNG with black ink on white."""
        from PIL import Image

        stream = io.BytesIO()
        Image.fromarray(255 - self.pixels).save(stream, "PNG", optimize=True)
        return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    title: str
    takeaway: str = ""  # the one sentence to keep, from the figures
    problem: str = ""  # why it has no content; "" if it has
    text: Sequence[str] = field(default=())  # paragraphs
    plots: Sequence[Plot] = field(default=())
    tables: Sequence[Table] = field(default=())
    pictures: Sequence[Picture] = field(default=())

    @property
    def anchor(self) -> str:
        return "section-" + re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def environment() -> jinja2.Environment:
    """Jinja2 that escapes every value in HTML and leaves no name undefined."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render_page(**parts: Any) -> str:
    """The HTML of the page from what page.html.j2 names."""
    style = Markup((TEMPLATES / "page.css").read_text("utf-8"))
    return environment().get_template("page.html.j2").render(**parts, style=style, Markup=Markup)
