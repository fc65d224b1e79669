"""Images a second of this project's training loop and of plain `model.fit`, in turn.

Both train the same network on the same images, already distorted, with AdamW in batches of 128;
`model.fit` is compiled by XLA, as Keras does where it can. Each round times one pass of each, so
that a machine that is busy for a while slows both. Distorting images, which a thread does beside
the loop, is timed by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from pipeline.artifacts import TRAINING_SPEED_JSON
from pipeline.config import EpochRecipe, load_recipe
from pipeline.data import Dataset, preprocess
from pipeline.data import load as load_data
from pipeline.files import UserError, write_json
from pipeline.table import markdown_table
from pipeline.train import epochs, lenet5
from pipeline.train.augment import augment

IMAGES = 12_800
ROUNDS = 5


def run(args: argparse.Namespace) -> int:
    data = load_data(args.data)
    lenet5.import_tensorflow()
    speeds = measure(data)
    write_json(args.out / TRAINING_SPEED_JSON, speeds)
    print(format_speeds(speeds))
    return 0


def measure(data: Dataset, images: int = IMAGES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Images a second of our loop, of `model.fit` and of the augmentation, timed in turn.

    Args:
        data: The data set; its first training images are used.
        images: How many; what is left of a batch is left out.
        rounds: Passes of each, after one that compiles.

    Raises:
        UserError: There are fewer images than a batch.
    """
    recipe = load_recipe("best")
    assert isinstance(recipe, EpochRecipe)
    recipe = dataclasses.replace(recipe, epochs=1)
    images = min(images, len(data.train)) // recipe.batch_size * recipe.batch_size
    if images == 0:
        raise UserError(
            f"{data.source}: fewer than a batch of {recipe.batch_size} training images; add some"
        )
    x, y = data.train.images[:images], data.train.labels[:images]

    def distort() -> None:
        augment(x, y, (recipe.seed,), recipe.augmentation)

    ways: dict[str, Callable[[], None]] = {
        "pipeline/train/epochs.py": _own_loop(recipe, data.classes, x, y),
        "model.fit": _keras_fit(recipe, data.classes, x, y),
        "pipeline/train/augment.py, one thread": distort,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if number > 0:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
    return describe({name: [images / s for s in taken] for name, taken in seconds.items()})


def _own_loop(recipe: EpochRecipe, classes: int, x: Any, y: Any) -> Callable[[], None]:
    import tensorflow as tf

    weights = [tf.constant(value) for value in lenet5.build(classes).get_weights()]
    zeros = [tf.zeros_like(value) for value in weights]
    rates, decays = epochs.schedule(recipe, len(x))
    run_epoch = epochs.compile_epoch(recipe, classes, recipe.batch_size)
    images, labels = tf.constant(x), tf.constant(y.astype("int32"))

    def run() -> None:
        state = (weights, zeros, zeros, weights)
        _, totals = run_epoch(state, tf.constant(0), images, labels, rates[0], decays[0])
        totals.numpy()  # waits for it

    return run


def _keras_fit(recipe: EpochRecipe, classes: int, x: Any, y: Any) -> Callable[[], None]:
    import keras

    model = lenet5.build(classes)
    optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=True)
    images = preprocess(x)

    def run() -> None:
        model.fit(images, y, batch_size=recipe.batch_size, epochs=1, verbose=0)

    return run


def describe(rounds: dict[str, list[float]]) -> dict[str, Any]:
    """What `training-speed.json` holds: images a second by name, their median and each round's."""
    return {name: {"median": statistics.median(r), "rounds": r} for name, r in rounds.items()}


def format_speeds(speeds: dict[str, Any]) -> str:
    """The same as a Markdown table."""
    rows = []
    for name, of in speeds.items():
        least, most = min(of["rounds"]), max(of["rounds"])
        rows.append([name, f"{of['median']:,.0f}", f"{least:,.0f} to {most:,.0f}"])
    return markdown_table(["what", "images a second, median", "rounds"], rows)
