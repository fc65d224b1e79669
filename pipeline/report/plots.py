"""The plots of the model itself: training, errors, parity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.svg import BLUE, INK, MUTED, PAPER, VERMILION, Plot, style, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

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


def delta(rows: Sequence[Mapping[str, Any]], allowed_loss_pp: float | None) -> Plot:
    """Each artifact's accuracy less the float model's, with its interval and what int8 may lose."""
    with style():
        figure = new_figure(1.1 + 0.42 * len(rows))
        axes = figure.add_subplot(xlabel="accuracy less the float model's, percentage points")
        axes.axvline(0, color=INK, linewidth=1)
        if allowed_loss_pp is not None:
            line = axes.axvline(-allowed_loss_pp, color=VERMILION, linestyle="--", linewidth=1.2)
            name = f"int8 may lose {allowed_loss_pp:.2f} percentage points"
            figure.legend([line], [name], loc="outside lower left")
        labels, parts = [], []
        for y, row in enumerate(rows):
            low, high = row["delta_ci95_pp"]
            axes.plot((low, high), (y, y), color=BLUE, linewidth=2)
            axes.plot(row["delta_pp"], y, "o", color=BLUE)
            labels.append(f"{short(row['artifact'])}, {row['runtime']}")
            parts.append(f"{labels[-1]} {row['delta_pp']:+.2f} ({low:+.2f} to {high:+.2f})")
        label_bars(axes, labels)
        text = "Accuracy difference with 95 % interval: " + "; ".join(parts) + "."
        caption = "Difference of accuracy with its 95 % interval (Newcombe, paired)."
        return Plot("delta", to_svg(figure, "delta", text), caption)


def panels(figure: Figure, count: int, **shared: Any) -> list[Axes]:
    """Axes in two columns, row by row."""
    grid = figure.subplots(-(-count // 2), 2, squeeze=False, **shared).ravel().tolist()
    for axes in grid[count:]:
        axes.remove()
    return grid[:count]


def plain_log_axis(axis: Axis, values: Sequence[float]) -> None:
    """Few, plain numbers on a logarithmic axis: "0.5", where matplotlib would use mathtext."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = np.log10(max(values) / min(values))
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def label_bars(axes: Axes, labels: Sequence[str]) -> None:
    """Write each bar's name above it; beside it, it would take half of a phone's width."""
    for y, label in enumerate(labels):
        axes.annotate(
            label,
            (0, y),
            xycoords=("axes fraction", "data"),
            xytext=(3, 6),
            textcoords="offset points",
            va="bottom",
            fontsize=8.5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5},
        )
    axes.set_ylim(len(labels) - 0.5, -0.85)
    axes.set_yticks([])
    axes.spines["left"].set_color(MUTED)
    axes.grid(axis="y", visible=False)


def short(artifact: str) -> str:
    """An artifact's name without what all have in common."""
    return artifact.rpartition("/")[2].removeprefix("lenet5_").removeprefix("lenet5.")


def shorten(text: str) -> str:
    """A name that fits a tick."""
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
