"""The published recipe's figures, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data import Dataset
from pipeline.files import atomic_path
from pipeline.train.training import TrainResult, load_model, predict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_DIGITS = range(30, 36)  # the six test digits that the recipe shows


def draw(folder: Path, result: TrainResult, data: Dataset, model_path: Path) -> None:
    """Draw loss, accuracy and six sample digits.

    Args:
        folder: Receives `loss.png`, `accuracy.png` and `digits.png`.
        result: The training's result.
        data: The data set.
        model_path: The trained model.
    """
    _save(_loss(result), folder / "loss.png")
    _save(_accuracy(result), folder / "accuracy.png")
    _save(_digits(data, model_path), folder / "digits.png")


def _steps(result: TrainResult) -> tuple[str, list[float]]:
    unit = "step" if "step" in result.history else "epoch"
    return unit, result.history[unit]


def _loss(result: TrainResult) -> Figure:
    from matplotlib.figure import Figure

    unit, steps = _steps(result)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(title=f"Softmax loss per {unit}", xlabel=unit, ylabel="softmax loss")
    axes.plot(steps, result.history["train_loss"], "k-")
    return figure


def _accuracy(result: TrainResult) -> Figure:
    """Train accuracy as a black line, test (or validation) accuracy as red dashes."""
    from matplotlib.figure import Figure

    unit, steps = _steps(result)
    other = "test" if "test_accuracy" in result.history else "validation"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(title=f"Train and {other} accuracy", xlabel=unit, ylabel="accuracy")
    axes.plot(steps, result.history["train_accuracy"], "k-", label="train")
    axes.plot(steps, result.history[f"{other}_accuracy"], "r--", label=other)
    axes.legend(loc="lower right")
    return figure


def _digits(data: Dataset, model_path: Path) -> Figure:
    from matplotlib.figure import Figure

    indices = [i for i in SAMPLE_DIGITS if i < len(data.test)]
    images, labels = data.test.images[indices], data.test.labels[indices]
    predicted = predict(load_model(model_path), images).argmax(axis=1)
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    for position, (image, label, guess) in enumerate(zip(images, labels, predicted, strict=True)):
        axes = figure.add_subplot(2, 3, position + 1)
        axes.imshow(image, cmap="gray_r")
        actual, pred = data.label_names[int(label)], data.label_names[int(guess)]
        axes.set_title(f"Actual: {actual} Pred: {pred}", fontsize=10)
        axes.set_axis_off()
    return figure


def _save(figure: Figure, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
