"""A matplotlib figure as SVG that a page can hold: themed, deterministic, with unique ids."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Figures are drawn in these stand-ins; the page gives each its colour, one for light and one for
# dark. The series are Okabe and Ito's palette, which colour-blind readers can tell apart.
VARIABLES = ("ink", "muted", "grid", "blue", "vermilion", "green", "purple", "orange", "sky")
STAND_INS = tuple(f"#{i:02d}{i:02d}{i:02d}" for i in range(11, 11 + len(VARIABLES)))
INK, MUTED, GRID, *COLORS = STAND_INS
BLUE, VERMILION, *_ = COLORS
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and the file is small
    "text.parse_math": False,  # a class may be called "$x$"
    **{"font.family": "sans-serif", "axes.titleweight": "bold"},
    **{"font.size": 9.5, "axes.labelsize": 9.5, "axes.titlesize": 10.5, "legend.fontsize": 9},
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6},
}


@contextmanager
def style() -> Iterator[None]:
    """Draw within this block."""
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
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\sid=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    for stand_in, variable in zip(STAND_INS, VARIABLES, strict=True):
        text = text.replace(stand_in, f"var(--{variable})")
    # Without a size of its own it takes the width of the column; the viewBox keeps its shape.
    start, end = text.split(">", 1)
    start = re.sub(r' (width|height)="[^"]*"', "", start)
    start = start.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"')
    return f"{start}>{end}".rstrip()
