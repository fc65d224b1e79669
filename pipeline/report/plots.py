"""The plots of the page: training, errors, time, robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device.bench.rows import three_figures
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

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
WIDTH = 4.5  # inches: a phone's screen shows it at its full size, a desktop two beside each other
MAX_NAME = 12  # characters of a class's name
MAX_NUMBERED_CLASSES = 20  # more leave no room for a number in each cell


def new_figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def loss(history: Mapping[str, Sequence[float]]) -> Plot:
    """Training and, where there is one, validation loss."""
    unit, steps = _steps(history)
    with style():
        figure = new_figure(2.8)
        axes = figure.add_subplot(xlabel=unit, ylabel="cross-entropy, nats", yscale="log")
        curves = [("train", BLUE, "-"), ("validation", VERMILION, "--")]
        # An easy data set ends at a loss of 0, which a log scale does not have.
        shown = {
            n: np.maximum(history[f"{n}_loss"], 1e-6) for n, *_ in curves if f"{n}_loss" in history
        }
        plain_log_axis(axes.yaxis, [float(v) for values in shown.values() for v in values])
        for name, color, line in curves:
            if name in shown:
                axes.plot(steps, shown[name], color=color, linestyle=line, label=name)
        axes.legend()
        last = history["train_loss"][-1]
        text = f"Cross-entropy loss over {len(steps)} points, ending at {last:.4f} in training."
        return Plot("loss", to_svg(figure, "loss", text), f"Loss by {unit}, on a log scale.")


def accuracy(history: Mapping[str, Sequence[float]]) -> Plot:
    """Training accuracy and that on validation (or, for the cookbook recipe, test) images."""
    unit, steps = _steps(history)
    other = "test" if "test_accuracy" in history else "validation"
    with style():
        figure = new_figure(2.8)
        axes = figure.add_subplot(xlabel=unit, ylabel="accuracy, %")
        for name, color, line in (("train", BLUE, "-"), (other, VERMILION, "--")):
            values = 100 * np.asarray(history[f"{name}_accuracy"])
            axes.plot(steps, values, color=color, linestyle=line, label=name)
        axes.legend(loc="lower right")
        last = history[f"{other}_accuracy"][-1]
        text = f"Accuracy by {unit}, ending at {last:.2%} on {other} images."
        note = " Training images are distorted, the others are not." if other != "test" else ""
        return Plot("accuracy", to_svg(figure, "accuracy", text), f"Accuracy by {unit}.{note}")


def _steps(history: Mapping[str, Sequence[float]]) -> tuple[str, Sequence[float]]:
    unit = "step" if "step" in history else "epoch"
    return unit, history[unit]


def confusion(
    name: str,
    title: str,
    labels: NDArray[np.uint8],
    predicted: NDArray[np.intp],
    class_names: Sequence[str],
) -> Plot:
    """The confusion matrix of (N,) true and predicted classes; the title says whose."""
    from matplotlib.patches import Rectangle

    classes = len(class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    wrong = counts - np.diag(np.diag(counts))
    names = [shorten(class_name) for class_name in class_names]
    with style():
        figure = new_figure(4.5)
        axes = figure.add_subplot(xlabel="predicted class", ylabel="true class")
        axes.grid(False)
        for row, column in zip(*np.nonzero(counts), strict=True):
            count, right = int(counts[row, column]), row == column
            strength = 0.3 if right else 0.15 + 0.45 * count / wrong.max()
            color = BLUE if right else VERMILION
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, alpha=strength)
            )
            if classes <= MAX_NUMBERED_CLASSES:
                size = min(8.5, 85 / classes)
                axes.text(column, row, str(count), ha="center", va="center", fontsize=size)
        rotation = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(classes), names, rotation=rotation)
        axes.set_yticks(range(classes), names)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
        axes.tick_params(length=0)
        text = f"{title}: {counts.sum() - wrong.sum()} of {counts.sum()} images on the diagonal"
        for row, column in _largest(wrong):
            text += f"; {wrong[row, column]} of {class_names[row]} read as {class_names[column]}"
        caption = f"{title}: images by true and predicted class; errors in orange."
        return Plot(name, to_svg(figure, name, text + "."), caption)


def _largest(counts: NDArray[np.int_], most: int = 3) -> list[tuple[int, int]]:
    order = np.argsort(-counts, axis=None, kind="stable")[:most]
    cells = [divmod(int(i), counts.shape[1]) for i in order]
    return [cell for cell in cells if counts[cell]]


def name_of(row: Mapping[str, Any]) -> str:
    """Such as "int8.tflite, tflite-runtime"."""
    return f"{short(row['artifact'])}, {row['runtime']}"


def runtime_colors(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A colour for each runtime; what remains is grey."""
    runtimes = dict.fromkeys(row["runtime"] for row in rows)
    colors = [*COLORS, *[MUTED] * len(runtimes)]
    return dict(zip(runtimes, colors, strict=False))


def latency(rows: Sequence[Mapping[str, Any]], name: str) -> Plot:
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


def robustness(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Accuracy by strength of each distortion, float and int8, from rows of `robustness.json`."""
    kinds = dict.fromkeys(row["distortion"] for row in rows if row["unit"])
    plain = [row["accuracy"] for row in rows if not row["unit"]]
    lines = (("float", BLUE, "o-"), ("int8", VERMILION, "s--"))
    with style():
        lines_of_panels = -(-len(kinds) // 2)
        figure = new_figure(0.4 + 1.65 * lines_of_panels)
        grid = figure.subplots(lines_of_panels, 2, squeeze=False, sharey=True).ravel().tolist()
        for axes in grid[len(kinds) :]:
            axes.remove()
        for axes, kind in zip(grid, kinds, strict=False):
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


def plain_log_axis(axis: Axis, values: Sequence[float]) -> None:
    """Few, plain numbers on a logarithmic axis: "0.5", where matplotlib would use mathtext."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
