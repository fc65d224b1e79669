"""What the page is made of, and how templates are filled."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from device.bench.rows import name
from pipeline.table import markdown_table

MAX_CELL = 40  # characters in a line of a phone's table
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Plot:
    """A figure of the page."""

    name: str  # unique on the page
    svg: str
    caption: str  # what a reader sees below it


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

    @property
    def is_wide(self) -> bool:
        """Whether a phone or a tablet has no room for it: many columns, or long cells."""
        return len(self.header) > 4 or any(
            len(cell) > MAX_CELL for row in self.rows for cell in row
        )


@dataclass(frozen=True)
class Picture:
    """A test image."""

    pixels: NDArray[np.uint8]  # (28, 28), white ink on black
    title: str
    lines: Sequence[str] = ()  # what the models say of it

    @property
    def source(self) -> str:
        """A data URI: a PNG with black ink on white."""
        return "data:image/png;base64," + base64.b64encode(png(255 - self.pixels)).decode()


@dataclass(frozen=True)
class Section:
    """What a section of the page holds."""

    takeaway: str  # the one sentence to keep, from the figures
    text: Sequence[str] = ()  # paragraphs
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def png(pixels: NDArray[np.uint8], scale: int = 1) -> bytes:
    """Grey (height, width) pixels as a PNG file, each of them `scale` pixels wide and high."""
    from PIL import Image

    stream = io.BytesIO()
    large = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(large).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def named(row: Mapping[str, Any]) -> str:
    """Such as "lenet5_int8.tflite on tflite-runtime"."""
    return f"{row['artifact']}, compiled" if row["runtime"] == "native" else name(row)


def problem(subject: str, row: Mapping[str, Any]) -> str:
    """Why a row of results, of that subject, is no "pass"."""
    verb = "did not run" if row["status"] == "not_run" else "failed"
    return f"{subject} {verb}: {row['reason'] or 'for no known reason'}."


def with_code(text: str) -> Markup:
    """HTML of a text: what stands between `backticks` is code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>~&$-])", r"\\\1", text)


def render(template: str, **values: Any) -> str:
    """Fill a template; in HTML every value is escaped, and no name may be undefined."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(plain=plain, as_it_is=Markup, with_code=with_code)
    environment.globals["markdown_table"] = markdown_table
    return environment.get_template(template).render(**values)
