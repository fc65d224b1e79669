"""The plots of the page: training, errors, time, robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from device.bench.rows import three_figures
from pipeline.artifacts import subjects
from pipeline.report.page import Plot
from pipeline.report.svg import BLUE, COLORS, MUTED, VERMILION, style, to_svg

RUNTIME_COLORS = dict(zip(dict.fromkeys(s.runtime for s in subjects()), COLORS, strict=False))
MAX_NAME = 12  # characters of a class's name
MAX_NUMBERED_CLASSES = 20  # more leave no room for a number in each cell


def new_figure(height: float) -> Figure:
    """A phone's screen shows it at its full size, a desktop two beside each other."""
    return Figure(figsize=(4.5, height), layout="constrained")  # inches


def loss(history: Mapping[str, Sequence[float]]) -> Plot:
    """Training and, where there is one, validation loss."""
    # An easy data set ends at a loss of 0, which a log scale does not have.
    curves = {
        name: np.maximum(history[f"{name}_loss"], 1e-6)
        for name in ("train", "validation")
        if f"{name}_loss" in history
    }
    n, last = len(history["train_loss"]), history["train_loss"][-1]
    text = f"Cross-entropy loss over {n} points, ending at {last:.4f} in training."
    unit = "step" if "step" in history else "epoch"
    caption = f"Loss by {unit}, on a log scale."
    return _curves("loss", history[unit], curves, (unit, "cross-entropy, nats"), text, caption)


def accuracy(history: Mapping[str, Sequence[float]]) -> Plot:
    """Training accuracy and that on validation (or, for the cookbook recipe, test) images."""
    unit = "step" if "step" in history else "epoch"
    other = "test" if "test_accuracy" in history else "validation"
    curves = {name: 100 * np.asarray(history[f"{name}_accuracy"]) for name in ("train", other)}
    text = f"Accuracy by {unit}, ending at {curves[other][-1]:.2f} % on {other} images."
    caption = f"Accuracy by {unit}."
    if other != "test":
        caption += " Training images are distorted, the others are not."
    return _curves("accuracy", history[unit], curves, (unit, "accuracy, %"), text, caption)


def _curves(
    name: str,
    steps: Sequence[float],
    curves: Mapping[str, NDArray[np.float64]],
    axis_labels: tuple[str, str],
    text: str,
    caption: str,
) -> Plot:
    """A solid and a dashed curve over the training."""
    with style():
        figure = new_figure(2.8)
        axes = figure.add_subplot(xlabel=axis_labels[0], ylabel=axis_labels[1])
        if name == "loss":
            axes.set_yscale("log")
            plain_log_axis(axes.yaxis, np.concatenate(list(curves.values())).tolist())
        lines = zip(curves.items(), COLORS, ("-", "--"), strict=False)
        for (label, values), color, line in lines:
            axes.plot(steps, values, color=color, linestyle=line, label=label)
        axes.legend()
        return Plot(name, to_svg(figure, name, text), caption)


def confusion(
    title: str, labels: NDArray[np.uint8], predicted: NDArray[np.intp], class_names: Sequence[str]
) -> Plot:
    """The confusion matrix of (N,) true and predicted classes; the title says whose."""
    name = "confusion-int8"
    classes = len(class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    wrong = counts - np.diag(np.diag(counts))
    names = [shorten(class_name) for class_name in class_names]
    with style():
        figure = new_figure(4.5)
        axes = figure.add_subplot(xlabel="predicted class", ylabel="true class")
        axes.grid(False)
        for row, column in np.argwhere(counts).tolist():
            count, right = int(counts[row, column]), row == column
            strength = 0.3 if right else 0.15 + 0.45 * count / wrong.max()
            color = BLUE if right else VERMILION
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, alpha=strength))
            if classes <= MAX_NUMBERED_CLASSES:
                size = min(8.5, 85 / classes)
                axes.text(column, row, str(count), ha="center", va="center", fontsize=size)
        rotation = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(classes), names, rotation=rotation)
        axes.set_yticks(range(classes), names)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
        axes.tick_params(length=0)
        text = f"{title}: {counts.sum() - wrong.sum()} of {counts.sum()} images on the diagonal"
        for row, column in sorted(np.argwhere(wrong).tolist(), key=lambda at: -wrong[*at])[:3]:
            text += f"; {wrong[row, column]} of {class_names[row]} read as {class_names[column]}"
        caption = f"{title}: images by true and predicted class; errors in orange."
        return Plot(name, to_svg(figure, name, text + "."), caption)


def latency(rows: Sequence[Mapping[str, Any]], name: str) -> Plot:
    """The distribution function of each row's latency, as a plot of that name."""
    limit_us = axis_limit([row["latency_us"]["p99"] for row in rows])
    with style():
        figure = new_figure(3.1 + 0.19 * len(rows))
        axes = figure.add_subplot(
            xlabel="latency of a call, µs (log scale)", ylabel="share of calls, %", xscale="log"
        )
        parts = []
        for row in rows:
            subject = f"{short(row['artifact'])}, {row['runtime']}"
            parts.append(f"{subject}: {three_figures(row['latency_us']['p50'])} µs")
            axes.plot(
                row["quantiles_us"],
                np.linspace(0, 100, len(row["quantiles_us"])),
                color=RUNTIME_COLORS.get(row["runtime"], MUTED),
                linestyle="--" if "int8" in row["artifact"] else "-",
                label=parts[-1],
            )
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


def robustness(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Accuracy by strength of each distortion, float and int8, from rows of `robustness.json`."""
    kinds = dict.fromkeys(row["distortion"] for row in rows if row["unit"])
    plain = [row["accuracy"] for row in rows if not row["unit"]]
    panel_rows = -(-len(kinds) // 2)
    with style():
        figure = new_figure(0.4 + 1.65 * panel_rows)
        grid = figure.subplots(panel_rows, 2, squeeze=False, sharey=True).ravel().tolist()
        for axes in grid[len(kinds) :]:
            axes.remove()
        for axes, kind in zip(grid, kinds, strict=False):
            own = [row for row in rows if row["distortion"] == kind]
            strengths = [row["strength"] for row in own]
            for name, color, form in (("float", BLUE, "o-"), ("int8", VERMILION, "s--")):
                values = [100 * row["accuracy"][name] for row in own]
                axes.plot(strengths, values, form, color=color, markersize=4, label=name)
                if plain:
                    axes.axhline(100 * plain[0][name], color=color, linewidth=0.6)
            axes.set_title(kind, loc="left")
            axes.set(xlabel=own[0]["unit"], ylabel="accuracy, %")
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


def plain_log_axis(axis: Axis, values: Sequence[float]) -> None:
    """Few, plain numbers on a logarithmic axis: "0.5", where matplotlib would use mathtext."""
    decades = np.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def short(artifact: str) -> str:
    """An artifact's name without what all have in common."""
    return artifact.rpartition("/")[2].removeprefix("lenet5_").removeprefix("lenet5.")


def shorten(text: str) -> str:
    """A name that fits a tick."""
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
