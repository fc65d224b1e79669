"""Train the float model: recipe and data in, `lenet5.keras` and `train.json` out."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import re
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import FLOAT_MODEL, TRAIN_JSON
from pipeline.config import CookbookRecipe, Recipe, load_recipe
from pipeline.data import Dataset, Images, Labels, Probabilities, preprocess, warn
from pipeline.data import load as load_data
from pipeline.files import UserError, atomic_path, first_line, sha256, write_json
from pipeline.train import cookbook, distillation, epochs, figures, lenet5
from pipeline.train.confidence import Confidence, answers, choose_threshold
from pipeline.train.temperature import (
    expected_calibration_error,
    find_temperature,
    fold_temperature,
)

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class TrainResult:
    """What one training run gave; `train.json` holds it."""

    recipe: str
    seed: int
    parameters: int  # trainable parameters of the network
    epochs: float  # passes over the training images (a fraction for the cookbook recipe)
    steps: int  # updates of the weights
    seconds: float  # wall-clock time of training alone, that of its teachers included
    teacher_seconds: float  # of the teachers and their answers, which other seeds share
    cores: int | None  # of this machine; None: unknown
    val_accuracy: float  # 0..1
    test_accuracy: float  # 0..1
    test_calibration_error: float  # expected calibration error on the test set, 0..1
    confidence: Confidence  # the threshold below which an answer is unsure, and what it gives
    label_names: tuple[str, ...]  # one name a class
    data_sha256: str  # of the data set, so that a later stage knows that they belong together
    model_sha256: str  # of `lenet5.keras`, for the same reason
    history: dict[str, list[float]]  # lists by name; what they are depends on the recipe


def run(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.recipe)
    dataset = load_data(args.data)
    warn(dataset)
    lenet5.import_tensorflow()
    teachers = args.out / distillation.TEACHERS
    result = train(Path(args.recipe).stem, recipe, dataset, args.out, teachers)
    path = args.out / FLOAT_MODEL
    got = predict(load_model(path), dataset.test.images[: figures.SAMPLE_DIGITS.stop])
    figures.draw(args.out / "figures", result.history, dataset, got.argmax(axis=1))
    print(
        f"{path}: recipe {result.recipe}, {result.parameters:,} parameters, "
        f"{result.seconds:.0f} s; validation {result.val_accuracy:.2%}, "
        f"test {result.test_accuracy:.2%}"
    )
    if result.confidence.threshold is None:
        print(
            f"no threshold for --min-confidence: of {len(dataset.validation)} validation images, "
            "too few are right, or too few there to tell"
        )
    return 0


def train(name: str, recipe: Recipe, data: Dataset, out: Path, teachers: Path) -> TrainResult:
    """Train, evaluate and write the float model.

    The same recipe, data and machine give the same weights bit for bit.

    Args:
        name: The recipe's name, for the record.
        recipe: Its settings.
        data: The data set.
        out: The folder that `lenet5.keras` and `train.json` are written to.
        teachers: The folder that keeps the teachers of a recipe that has some.

    Returns:
        What `train.json` holds.

    Raises:
        UserError: Training diverged: a weight is NaN or infinite.
    """
    import keras
    import tensorflow as tf

    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(recipe.seed)
    model = lenet5.build(data.classes)
    model.summary(print_fn=print)
    start, teacher_seconds = time.perf_counter(), 0.0
    if isinstance(recipe, CookbookRecipe):
        history = cookbook.fit(model, recipe, data)
        steps, batch_size = recipe.steps, recipe.batch_size
    else:
        draw: Callable[[int], epochs.Epoch] = functools.partial(epochs.distort, recipe, data)
        if recipe.distillation:
            draw, teacher_seconds = distillation.teach(recipe, recipe.distillation, data, teachers)
            start = time.perf_counter()
        history, weights = epochs.fit(model.get_weights(), recipe, data, draw)
        model.set_weights(weights)
        logits = epochs.answer(weights, data.validation.images)
        fold_temperature(model, find_temperature(logits, data.validation.labels))
        steps, batch_size = epochs.count_steps(recipe, len(data.train)), recipe.batch_size
    seconds = time.perf_counter() - start + teacher_seconds
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise UserError(f"recipe {name}: training diverged; lower its learning_rate")

    with atomic_path(out / FLOAT_MODEL) as temporary:
        _save(model, temporary)
    validation = predict(model, data.validation.images)
    test = predict(model, data.test.images)
    threshold = choose_threshold(validation, data.validation.labels)
    result = TrainResult(
        recipe=name,
        seed=recipe.seed,
        parameters=int(model.count_params()),
        epochs=round(steps * batch_size / len(data.train), 3),
        steps=steps,
        seconds=round(seconds, 2),
        teacher_seconds=round(teacher_seconds, 2),
        cores=os.cpu_count(),
        val_accuracy=accuracy(validation, data.validation.labels),
        test_accuracy=accuracy(test, data.test.labels),
        test_calibration_error=expected_calibration_error(test, data.test.labels),
        confidence=Confidence(
            threshold,
            validation=answers(validation, data.validation.labels, threshold or 0.0),
            test=answers(test, data.test.labels, threshold or 0.0),
        ),
        label_names=data.label_names,
        data_sha256=data.sha256,
        model_sha256=sha256(out / FLOAT_MODEL),
        history=history,
    )
    write_json(out / TRAIN_JSON, dataclasses.asdict(result))
    return result


def _save(model: keras.Model, path: Path) -> None:
    """Save without the time and addresses in memory: equal weights give equal bytes."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(files["metadata.json"])
    del metadata["date_saved"]
    files["metadata.json"] = json.dumps(metadata).encode()
    numbers: dict[bytes, bytes] = {}  # Keras numbers what layers share by where it lay in memory
    files["config.json"] = re.sub(
        rb'(?<="shared_object_id": )\d+',
        lambda match: numbers.setdefault(match[0], str(len(numbers)).encode()),
        files["config.json"],
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980


def load_model(path: Path) -> keras.Model:
    """Load a float model; raises UserError if it is missing, unreadable or not LeNet-5."""
    import keras

    if not path.is_file():
        raise UserError(f"{path}: missing; run `make export`")
    try:
        with zipfile.ZipFile(path) as archive:  # from Python 3.13 on, Keras reads it unchecked
            if altered := archive.testzip():
                raise ValueError(f"{altered} is damaged")
        model = keras.saving.load_model(path, compile=False)
        lenet5.check_parameters(model, int(model.output_shape[-1]))
    except Exception as error:  # Keras raises whatever zip, JSON and HDF5 readers raise
        raise UserError(
            f"{path}: not a readable LeNet-5 ({first_line(error)}); delete it and run `make export`"
        ) from None
    return model


def require_float_model(path: Path, training: Mapping[str, Any]) -> None:
    """Raise UserError for a float model that is missing or, by its `train.json`, another one."""
    if not path.is_file():
        raise UserError(f"{path}: missing; run `make export`")
    if training.get("model_sha256") != sha256(path):
        raise UserError(
            f"{path}: its SHA-256 is not the one in {TRAIN_JSON}; delete it and run `make export`"
        )


def predict(model: keras.Model, images: Images) -> Probabilities:
    """Probabilities that the float model gives for images, float32 (N, classes)."""
    starts = range(0, len(images), 1000)
    batches = [model(preprocess(images[i : i + 1000]), training=False) for i in starts]
    return np.concatenate([np.asarray(batch, np.float32) for batch in batches])


def accuracy(probabilities: NDArray[np.floating], labels: Labels) -> float:
    """Share of the images whose most probable class is the true one, 0..1."""
    return float((probabilities.argmax(axis=1) == labels).mean())
