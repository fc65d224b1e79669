"""A matplotlib figure as SVG that a page can hold: themed, deterministic, with unique ids."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Figures are drawn in these stand-ins; the page gives each its colour, one for light and one for
# dark. The series are Okabe and Ito's palette, which colour-blind readers can tell apart.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = (f"#{i:02d}{i:02d}{i:02d}" for i in range(11, 17))
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    BLUE: "--blue",
    VERMILION: "--vermilion",
    GREEN: "--green",
    PURPLE: "--purple",
    ORANGE: "--orange",
    SKY: "--sky",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and the file is small
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$x$"
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True)
class Plot:
    """A figure of the page."""

    name: str  # unique on the page
    svg: str
    caption: str  # what a reader sees below it


@contextmanager
def style() -> Iterator[None]:
    """Draw within this block."""
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Of a class name in a script that matplotlib's font lacks; the reader's browser has it.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Turn a figure, drawn within `style`, into an <svg> element; always the same bytes.

    Args:
        figure: The figure, drawn in the stand-in colours.
        name: Unique on the page; it becomes part of every id.
        description: What the figure shows, for a reader who cannot see it.
    """
    import matplotlib

    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\sid=")', f"{name}-", text)
    text = re.sub(r'(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    # Without a size of its own it takes the width of the column; the viewBox keeps its shape.
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = escape(description)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).rstrip()
