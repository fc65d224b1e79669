"""The published recipe's training loop, as printed: 300 steps of 100 random images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import CookbookRecipe
from pipeline.data import Dataset, preprocess
from pipeline.train.epochs import History

if TYPE_CHECKING:
    import keras


def fit(model: keras.Model, recipe: CookbookRecipe, data: Dataset) -> History:
    """Train the model in place, printing the recipe's evaluation lines.

    Test accuracy is measured on random test images during training, as the recipe does; nothing
    is selected by it.

    Args:
        model: A fresh network.
        recipe: The settings.
        data: The data set; batches are drawn from its training split, with replacement.

    Returns:
        step, train_loss, train_accuracy and test_accuracy (0..1), one entry an evaluation.
    """
    import keras

    optimizer = keras.optimizers.Adam(recipe.learning_rate)
    rng = np.random.default_rng(recipe.seed)
    history: History = {"step": [], "train_loss": [], "train_accuracy": [], "test_accuracy": []}
    train_step = _make_train_step(model, optimizer)
    for step in range(1, recipe.steps + 1):
        chosen = rng.integers(len(data.train), size=recipe.batch_size)
        images, labels = preprocess(data.train.images[chosen]), data.train.labels[chosen]
        loss, accuracy = (float(value) for value in train_step(images, labels))
        if step % recipe.evaluate_every == 0:
            chosen = rng.integers(len(data.test), size=recipe.evaluation_size)
            probabilities = model(preprocess(data.test.images[chosen]), training=False)
            predicted = np.argmax(probabilities, axis=1)
            test_accuracy = float((predicted == data.test.labels[chosen]).mean())
            for key, value in zip(history, (step, loss, accuracy, test_accuracy), strict=True):
                history[key].append(value)
            print(
                f"Epoch # {step}. Train Loss: {loss:.2f}. "
                f"Train Acc (Test Acc): {accuracy:.2f} ({test_accuracy:.2f})",
                flush=True,
            )
    return history


def _make_train_step(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Any:
    """One compiled step: (images, labels) -> (loss, accuracy) of the batch before the update."""
    import keras
    import tensorflow as tf

    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def train_step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        predicted = tf.argmax(probabilities, axis=1)
        return loss, tf.reduce_mean(tf.cast(predicted == tf.cast(labels, tf.int64), tf.float32))

    return train_step
