"""Training in epochs: AdamW, a cosine schedule, augmentation, averaged weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.augment import augment
from pipeline.config import EpochRecipe
from pipeline.data import Dataset, Split, preprocess
from pipeline.progress import progress

if TYPE_CHECKING:
    import keras

History = dict[str, list[float]]
Weights = list[Any]  # one numpy array a variable


def count_steps(recipe: EpochRecipe, images: int) -> int:
    """The number of updates in a whole run; the last, incomplete batch of an epoch is left out."""
    return recipe.epochs * max(1, images // recipe.batch_size)


def fit(model: keras.Model, recipe: EpochRecipe, data: Dataset) -> History:
    """Train the model in place; it ends with the averaged weights that validated best.

    The weights' exponential moving average is what is validated after each epoch, and the best
    average (by accuracy, then by loss) is kept. The test set is not looked at.

    Args:
        model: A fresh network.
        recipe: The settings.
        data: The data set.

    Returns:
        epoch, train_loss, train_accuracy (on augmented images), validation_loss and
        validation_accuracy, one entry an epoch.
    """
    import tensorflow as tf

    images = tf.constant(preprocess(data.train.images))  # (N, 32, 32, 1)
    labels = tf.constant(data.train.labels.astype(np.int32))  # (N,)
    batch_size = min(recipe.batch_size, len(data.train))
    steps = len(data.train) // batch_size
    average = [tf.Variable(weight) for weight in model.get_weights()]
    train_step = _make_train_step(model, average, recipe, data)
    rng = np.random.default_rng(recipe.seed)
    names = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    history: History = {name: [] for name in names}
    best: tuple[float, float] = (-1.0, -math.inf)
    best_weights: Weights = []
    with progress("train") as report:
        for epoch in range(1, recipe.epochs + 1):
            distorted = _augment_all(images, (recipe.seed, epoch), recipe)
            order = tf.constant(rng.permutation(len(data.train)).astype(np.int32))
            totals = np.zeros(2)
            for step in range(steps):
                chosen = order[step * batch_size : (step + 1) * batch_size]
                totals += train_step(tf.gather(distorted, chosen), tf.gather(labels, chosen))
            trained, averaged = model.get_weights(), [value.numpy() for value in average]
            model.set_weights(averaged)
            val_loss, val_accuracy = evaluate(model, data.validation)
            model.set_weights(trained)
            if (val_accuracy, -val_loss) > best:
                best, best_weights = (val_accuracy, -val_loss), averaged
            loss, accuracy = totals / steps
            row = (epoch, loss, accuracy, val_loss, val_accuracy)
            for name, value in zip(names, row, strict=True):
                history[name].append(float(value))
            text = f"loss {loss:.4f}  validation accuracy {val_accuracy:.2%}"
            report(epoch, recipe.epochs, text)
    model.set_weights(best_weights)
    return history


def evaluate(model: keras.Model, split: Split) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (0..1) of the model on a split."""
    import keras

    probabilities = np.asarray(model(preprocess(split.images), training=False))
    losses = keras.losses.sparse_categorical_crossentropy(split.labels, probabilities)
    accuracy = (probabilities.argmax(axis=1) == split.labels).mean()
    return float(np.mean(losses)), float(accuracy)


def _augment_all(images: Any, seed: tuple[int, int], recipe: EpochRecipe) -> Any:
    """Distort the whole training set anew, in slices that bound the memory."""
    import tensorflow as tf

    starts = range(0, len(images), 11_000)
    seeds = [tf.constant([seed[0], seed[1] * 1000 + i], tf.int32) for i in range(len(starts))]
    slices = [
        augment(images[start : start + 11_000], slice_seed, recipe.augmentation)
        for start, slice_seed in zip(starts, seeds, strict=True)
    ]
    return tf.concat(slices, axis=0)


def _make_train_step(
    model: keras.Model, average: list[Any], recipe: EpochRecipe, data: Dataset
) -> Any:
    """One compiled step: (images, labels) -> (loss, accuracy) of the batch before the update."""
    import keras
    import tensorflow as tf

    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate, count_steps(recipe, len(data.train))
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def train_step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            targets = tf.one_hot(labels, data.classes)
            loss = tf.reduce_mean(
                keras.losses.categorical_crossentropy(
                    targets, probabilities, label_smoothing=recipe.label_smoothing
                )
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for mean, variable in zip(average, model.trainable_variables, strict=True):
            mean.assign_add((1.0 - recipe.ema_decay) * (variable - mean))
        predicted = tf.argmax(probabilities, axis=1, output_type=tf.int32)
        return tf.stack([loss, tf.reduce_mean(tf.cast(predicted == labels, tf.float32))])

    return train_step
