"""The published recipe's figures, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data import Dataset
from pipeline.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_DIGITS = range(30, 36)  # the six test digits that the recipe shows


def draw(
    folder: Path, history: Mapping[str, list[float]], data: Dataset, answers: NDArray[np.intp]
) -> None:
    """Draw loss, accuracy and six sample digits into a folder.

    Args:
        folder: Receives `loss.png`, `accuracy.png` and `digits.png`.
        history: Of the training, as `train.json` holds it.
        data: The data set.
        answers: (n,), the model's classes of the first n test images.
    """
    _save(_loss(history), folder / "loss.png")
    _save(_accuracy(history), folder / "accuracy.png")
    _save(_digits(data, answers), folder / "digits.png")


def _steps(history: Mapping[str, list[float]]) -> tuple[str, list[float]]:
    unit = "step" if "step" in history else "epoch"
    return unit, history[unit]


def _loss(history: Mapping[str, list[float]]) -> Figure:
    from matplotlib.figure import Figure

    unit, steps = _steps(history)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(title=f"Softmax loss per {unit}", xlabel=unit, ylabel="softmax loss")
    axes.plot(steps, history["train_loss"], "k-")
    return figure


def _accuracy(history: Mapping[str, list[float]]) -> Figure:
    """Train accuracy as a black line, test (or validation) accuracy as red dashes."""
    from matplotlib.figure import Figure

    unit, steps = _steps(history)
    other = "test" if "test_accuracy" in history else "validation"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(title=f"Train and {other} accuracy", xlabel=unit, ylabel="accuracy")
    axes.plot(steps, history["train_accuracy"], "k-", label="train")
    axes.plot(steps, history[f"{other}_accuracy"], "r--", label=other)
    axes.legend(loc="lower right")
    return figure


def _digits(data: Dataset, answers: NDArray[np.intp]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    for position, i in enumerate(range(SAMPLE_DIGITS.start, len(answers)), 1):
        axes = figure.add_subplot(2, 3, position)
        axes.imshow(data.test.images[i], cmap="gray_r")
        actual, pred = data.label_names[data.test.labels[i]], data.label_names[answers[i]]
        axes.set_title(f"Actual: {actual} Pred: {pred}", fontsize=10)
        axes.set_axis_off()
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
