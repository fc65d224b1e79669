"""The plots of what was measured with the models: time, robustness, photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device.bench.rows import three_figures
from pipeline.report.plots import new_figure, panels, plain_log_axis, short
from pipeline.report.svg import (
    BLUE,
    GREEN,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    Plot,
    style,
    to_svg,
)

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)

BenchRow = Mapping[str, Any]  # of `bench.json`


def name_of(row: BenchRow) -> str:
    """Such as "int8.tflite, tflite-runtime"."""
    return f"{short(row['artifact'])}, {row['runtime']}"


def runtime_colors(rows: Sequence[BenchRow]) -> dict[str, str]:
    """A colour for each runtime; what remains is grey."""
    runtimes = dict.fromkeys(row["runtime"] for row in rows)
    colors = [*COLORS, *[MUTED] * len(runtimes)]
    return dict(zip(runtimes, colors, strict=False))


def latency(rows: Sequence[BenchRow], name: str = "latency") -> Plot:
    """The distribution function of each row's latency, as a plot of that name."""
    colors = runtime_colors(rows)
    limit_us = axis_limit([row["latency_us"]["p99"] for row in rows])
    with style():
        figure = new_figure(3.1 + 0.19 * len(rows))
        axes = figure.add_subplot(
            xlabel="latency of a call, µs (log scale)", ylabel="share of calls, %", xscale="log"
        )
        parts = []
        for row in rows:
            line = "--" if "int8" in row["artifact"] else "-"
            values = row["quantiles_us"]
            shares = np.linspace(0, 100, len(values))
            parts.append(f"{name_of(row)}: {three_figures(row['latency_us']['p50'])} µs")
            color = colors[row["runtime"]]
            axes.plot(values, shares, color=color, linestyle=line, label=parts[-1])
        least_us = min(row["latency_us"]["min"] for row in rows)
        plain_log_axis(axes.xaxis, (least_us, limit_us))
        axes.set(xlim=(least_us / 1.2, limit_us * 1.2), ylim=(0, 100))
        figure.legend(loc="outside lower left", ncols=1, title="median; solid: float, dashed: int8")
        text = f"Cumulative distribution of latency; medians: {'; '.join(parts)}."
        caption = (
            "How large a share of the calls took at most so long, one image a call. The axis ends "
            f"at {three_figures(limit_us * 1.2)} µs."
        )
        return Plot(name, to_svg(figure, name, text), caption)


def axis_limit(values: Sequence[float]) -> float:
    """Where an axis should end: the largest value that is not ten times the median of all.

    One row (Keras) can be so far from the others that they could not be told apart.
    """
    return max(value for value in values if value <= 10 * float(np.median(values)))


def pareto(timed: Sequence[BenchRow]) -> list[Plot]:
    """Latency, accuracy and size at once; what no other row beats in all three stands out.

    Args:
        timed: The rows.

    Returns:
        The plot, or none where no row has an accuracy.
    """
    rows = [row for row in timed if row["accuracy"] is not None]
    if not rows:
        return []
    colors = runtime_colors(rows)
    best = pareto_front(
        [(row["latency_us"]["p50"], -row["accuracy"], row["size_bytes"]) for row in rows]
    )
    with style():
        figure = new_figure(3.4 + 0.19 * len(colors))
        axes = figure.add_subplot(
            xlabel="median latency, µs (log scale)", ylabel="accuracy, %", xscale="log"
        )
        for i, row in enumerate(rows):
            color = colors[row["runtime"]]
            x, y = row["latency_us"]["p50"], 100 * row["accuracy"]
            fill = color if i in best else "none"
            area = row["size_bytes"] / 1000
            axes.scatter(x, y, s=area, color=color, facecolor=fill, alpha=0.75, linewidth=1.5)
            if i in best:
                text, at = str(best.index(i) + 1), (0, 10 + 9 * (best.index(i) % 3))
                axes.annotate(text, (x, y), xytext=at, textcoords="offset points", ha="center")
        plain_log_axis(axes.xaxis, [row["latency_us"]["p50"] for row in rows])
        axes.margins(0.15, 0.3)
        low, high = axes.dataLim.intervaly
        if high - low < 0.05:  # all alike: a twentieth of a point around, not matplotlib's tenth
            axes.set_ylim(low - 0.05, high + 0.05)
        for runtime, color in colors.items():
            axes.plot([], [], "o", color=color, label=runtime)
        figure.legend(loc="outside lower left", ncols=2)
        names = "; ".join(f"{k}: {name_of(rows[i])}" for k, i in enumerate(best, 1))
        text = f"Accuracy against median latency. Not beaten in latency, accuracy and size: {names}"
        caption = (
            "Accuracy against latency; the area of a disc is the size of the file. Filled: no "
            f"other row is at least as good in latency, accuracy and size. {names}."
        )
        if left_out := [name_of(row) for row in timed if row not in rows]:
            caption += (
                f" Without an accuracy on all images and so not drawn: {', '.join(left_out)}."
            )
        return [Plot("pareto", to_svg(figure, "pareto", text + "."), caption)]


def pareto_front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Indices of the points that no other dominates, ascending.

    All costs are to be small: a point dominates another if it is nowhere larger and somewhere
    smaller.
    """

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    return [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]


def robustness(rows: Sequence[BenchRow]) -> Plot:
    """Accuracy by strength of each distortion, float and int8, from rows of `robustness.json`."""
    kinds = dict.fromkeys(row["distortion"] for row in rows if row["unit"])
    plain = [row["accuracy"] for row in rows if not row["unit"]]
    lines = (("float", BLUE, "o-"), ("int8", VERMILION, "s--"))
    with style():
        figure = new_figure(0.4 + 1.65 * -(-len(kinds) // 2))
        grid = panels(figure, len(kinds), sharey=True)
        for axes, kind in zip(grid, kinds, strict=True):
            own = [row for row in rows if row["distortion"] == kind]
            for name, color, form in lines:
                values = [100 * row["accuracy"][name] for row in own]
                strengths = [row["strength"] for row in own]
                axes.plot(strengths, values, form, color=color, markersize=4, label=name)
                if plain:
                    axes.axhline(100 * plain[0][name], color=color, linewidth=0.6)
            axes.set_title(kind, loc="left")
            axes.set_xlabel(own[0]["unit"])
            axes.set_ylabel("accuracy, %")
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2)
        worst = max(rows, key=lambda row: abs(row["accuracy"]["float"] - row["accuracy"]["int8"]))
        gap = 100 * (worst["accuracy"]["int8"] - worst["accuracy"]["float"])
        at = f"{worst['distortion']} {worst['strength']:g} {worst['unit']}".strip()
        text = (
            f"Accuracy under {', '.join(kinds)}, by strength. The largest difference of int8 from "
            f"float is {gap:+.2f} percentage points, at {at}."
        )
        return Plot("robustness", to_svg(figure, "robustness", text), f"{text} Thin: undistorted.")
