"""Distillation: wide teachers answer distorted images once, and the network learns the answers.

Source: G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015.
docs/adr/0031-distillation.md says what it gains.

The teachers and their answers are files in one folder, made once for every seed of the network.
Each is kept as soon as it is finished, so that an interrupted run goes on where it was. They are
never shipped.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.logits import softmax
from pipeline.config import Distillation, EpochRecipe
from pipeline.data import Dataset
from pipeline.files import atomic_path, make_folder, read_json, sha256, write_json
from pipeline.progress import progress
from pipeline.train import epochs, lenet5
from pipeline.train.epochs import Epoch, Weights
from pipeline.train.key import training_key

TEACHERS = "teachers"  # the folder, in that of all artifacts
Arrays = dict[str, NDArray[Any]]
MADE = "made.json"  # the key of what lies in the folder; SHA-256 and seconds of each file


def teach(
    recipe: EpochRecipe, how: Distillation, data: Dataset, folder: Path
) -> tuple[Callable[[int], Epoch], float]:
    """Train the teachers and let them answer, as far as that is not done.

    Args:
        recipe: The network's recipe; the teachers see the same distortions.
        how: The settings of distillation.
        data: The data set.
        folder: Where teachers and answers are kept.

    Returns:
        The images, labels and answers of an epoch of the network, counted from 0; and the seconds
        that the teachers and their answers took, in this run or an earlier one.
    """
    teachers = [
        dataclasses.replace(
            recipe,
            seed=seed,
            epochs=how.teacher_epochs,
            weight_decay=how.teacher_weight_decay,
            distillation=None,
        )
        for seed in range(how.teachers)
    ]
    of_pool = dataclasses.replace(teachers[0], seed=how.teachers)  # distortions of its own
    kept = _Kept(folder, training_key((teachers, of_pool, how.width, how.temperature), data))
    for number, teacher in enumerate(teachers, 1):
        title = f"teacher {number} of {how.teachers}"
        kept.make(f"teacher-{number}.npz", partial(_train, teacher, how, data, title))
    files = [kept.read(f"teacher-{number}.npz") for number in range(1, how.teachers + 1)]
    weights = [[file[str(i)] for i in range(len(file))] for file in files]
    with progress("teachers' answers") as report:
        for epoch in range(how.pool_epochs):
            kept.make(_name(epoch), partial(_answer, of_pool, how, weights, data, epoch))
            report(epoch + 1, how.pool_epochs, "")

    def draw(epoch: int) -> Epoch:
        pool = kept.read(_name(epoch % how.pool_epochs))
        rng = np.random.default_rng((recipe.seed, epoch))
        order = rng.permutation(len(pool["labels"]))
        return Epoch(pool["images"][order], pool["labels"][order], pool["answers"][order])

    return draw, kept.seconds


def _name(epoch: int) -> str:
    return f"epoch-{epoch + 1}.npz"


def _train(recipe: EpochRecipe, how: Distillation, data: Dataset, title: str) -> Arrays:
    import keras

    keras.utils.set_random_seed(recipe.seed)
    fresh = lenet5.build(data.classes, width=how.width).get_weights()
    _, weights = epochs.fit(fresh, recipe, data, partial(epochs.distort, recipe, data), title)
    return {str(i): value for i, value in enumerate(weights)}


def _answer(
    recipe: EpochRecipe, how: Distillation, teachers: list[Weights], data: Dataset, epoch: int
) -> Arrays:
    """A distorted epoch with the mean of the teachers' softened probabilities."""
    images, labels, _ = epochs.distort(recipe, data, epoch)
    answers = []
    for weights in teachers:
        z = epochs.answer(weights, images)  # (N, classes)
        answers.append(softmax(z / np.float32(how.temperature)))
    mean: NDArray[np.float32] = np.mean(answers, axis=0)
    return {"images": images, "labels": labels, "answers": mean.astype(np.float16)}


class _Kept:
    """Files of arrays in a folder; of another key or damaged, they are made again."""

    def __init__(self, folder: Path, key: str) -> None:
        make_folder(folder)
        self.folder = folder
        path = folder / MADE
        self.made = read_json(path) if path.is_file() else {}
        if self.made.get("key") != key:
            for old in folder.glob("*.npz"):
                old.unlink()
            self.made = {"key": key, "files": {}}
            write_json(path, self.made)

    def make(self, name: str, make: Callable[[], Arrays]) -> None:
        path, files = self.folder / name, self.made["files"]
        if name in files and path.is_file() and sha256(path) == files[name]["sha256"]:
            return
        start = time.perf_counter()
        arrays = make()
        with atomic_path(path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
        seconds = round(time.perf_counter() - start, 2)
        files[name] = {"sha256": sha256(path), "seconds": seconds}
        write_json(self.folder / MADE, self.made)

    def read(self, name: str) -> Arrays:
        with np.load(self.folder / name) as arrays:
            return dict(arrays)

    @property
    def seconds(self) -> float:
        return sum(file["seconds"] for file in self.made["files"].values())
