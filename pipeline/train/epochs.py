"""Training in epochs: AdamW, a cosine schedule, augmentation, averaged weights.

One call of a function compiled by XLA runs a whole epoch, while a thread distorts the images of the
next one. docs/adr/0002-training.md says what that gains.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EpochRecipe
from pipeline.data import Dataset, Images, Split
from pipeline.progress import progress
from pipeline.train.augment import augment
from pipeline.train.outliers import draw_non_digits
from pipeline.train.temperature import cross_entropy

History = dict[str, list[float]]
Weights = list[Any]  # a tensor each: C1, C3, C5, F6, OUTPUT; kernel, bias
Rates = NDArray[np.float32]  # (epochs, steps)

NO_DIGIT = -1  # the label of an image for which every class is equally right
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
CHUNK = 250  # images at a time where the network only answers


class Epoch(NamedTuple):
    """What one pass over the training images is made of."""

    images: Images  # (N, 28, 28), distorted and in random order
    labels: NDArray[np.int32]  # (N,), a class or NO_DIGIT
    answers: NDArray[np.floating] | None = None  # (N, classes), a teacher's, softened; 0..1


def count_steps(recipe: EpochRecipe, images: int) -> int:
    """The number of updates in a whole run; the last, incomplete batch of an epoch is left out."""
    return recipe.epochs * max(1, images // recipe.batch_size)


def fit(
    weights: Weights,
    recipe: EpochRecipe,
    data: Dataset,
    draw: Callable[[int], Epoch],
    title: str = "train",
) -> tuple[History, Weights]:
    """Train from the given weights; it ends with averaged weights chosen by validation.

    The weights' exponential moving average is what is validated after each epoch, and
    `select_epoch` chooses one of the averages. The test set is not looked at.

    Args:
        weights: Fresh weights of LeNet-5, or of a wider one.
        recipe: The settings.
        data: The data set.
        draw: The images of an epoch, counted from 0; called in a thread, one epoch ahead.
        title: What the progress calls it.

    Returns:
        epoch, train_loss, train_accuracy (on augmented images), validation_loss and
        validation_accuracy, one entry an epoch; and the weights.
    """
    import tensorflow as tf

    weights = [tf.constant(value) for value in weights]
    zeros = [tf.zeros_like(value) for value in weights]
    state = (weights, zeros, zeros, weights)  # weights, first and second moment, average
    rates, decays = schedule(recipe, len(data.train))
    run_epoch = compile_epoch(recipe, data.classes, min(recipe.batch_size, len(data.train)))
    names = ("epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    history: History = {name: [] for name in names}
    averages: list[Weights] = []
    with progress(title) as report, ThreadPoolExecutor(1) as pool:
        prepared = pool.submit(draw, 0)
        for epoch in range(recipe.epochs):
            images, labels, answers = prepared.result()
            if epoch + 1 < recipe.epochs:
                prepared = pool.submit(draw, epoch + 1)
            done = tf.constant(epoch * rates.shape[1])
            if answers is not None:
                answers = tf.constant(answers, tf.float32)
            given = tf.constant(images), tf.constant(labels), answers
            state, totals = run_epoch(state, done, *given, rates[epoch], decays[epoch])
            loss, accuracy = totals.numpy() / rates.shape[1]
            val_loss, val_accuracy = evaluate(state[3], data.validation)
            averages.append(state[3])
            row = (epoch + 1, loss, accuracy, val_loss, val_accuracy)
            for name, value in zip(names, row, strict=True):
                history[name].append(float(value))
            text = f"loss {loss:.4f}  validation accuracy {val_accuracy:.2%}"
            report(epoch + 1, recipe.epochs, text)
    selected = select_epoch(history["validation_accuracy"], len(data.validation))
    return history, [value.numpy() for value in averages[selected]]


def select_epoch(accuracies: Sequence[float], images: int) -> int:
    """The latest epoch whose accuracy is within one standard error of the best.

    Among many near-equal epochs the very best is so by chance; the later one has had the lower
    learning rate. `accuracies` are 0..1, on so many validation images.

    Source: the one-standard-error rule of L. Breiman et al., "Classification and Regression
    Trees", 1984, section 3.4.3.
    """
    best = max(accuracies)
    least = best - math.sqrt(best * (1 - best) / images)
    return max(epoch for epoch, accuracy in enumerate(accuracies) if accuracy >= least)


def schedule(recipe: EpochRecipe, images: int) -> tuple[Rates, Rates]:
    """The learning rate and the average's decay at every step, each (epochs, steps).

    The rate rises through the first epoch, then falls to zero along a cosine; of one epoch it
    rises to the end. The average's memory is short at the start, or the random first weights
    would stay in it for long.
    """
    steps = count_steps(recipe, images)
    warmup = steps // recipe.epochs
    step = np.arange(steps)
    fallen = np.clip((step - warmup) / max(1, steps - warmup), 0, 1)
    rate = recipe.learning_rate * np.minimum((step + 1) / warmup, 1) * (1 + np.cos(np.pi * fallen))
    decay = np.minimum(recipe.ema_decay, (1 + step) / (10 + step))
    shape = (recipe.epochs, warmup)
    return (rate / 2).astype(np.float32).reshape(shape), decay.astype(np.float32).reshape(shape)


def evaluate(weights: Weights, split: Split) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (0..1) of these weights on a split."""
    z = answer(weights, split.images)  # (N, classes)
    return cross_entropy(z, split.labels), float((z.argmax(axis=1) == split.labels).mean())


def distort(recipe: EpochRecipe, data: Dataset, epoch: int) -> Epoch:
    """The training images of one epoch, shuffled and distorted, a few replaced by non-digits."""
    order = np.random.default_rng((recipe.seed, epoch, 0)).permutation(len(data.train))
    labels = data.train.labels[order]
    strength = recipe.augmentation
    if not data.shows_digits:  # class 1 is no digit with a hook, class 7 none with a bar
        strength = dataclasses.replace(
            strength, hooked_ones=0.0, crossed_sevens=0.0, curled_nines=0.0
        )
    images = augment(data.train.images[order], labels, (recipe.seed, epoch, 1), strength)
    targets = labels.astype(np.int32)
    if recipe.non_digits > 0:
        rng = np.random.default_rng((recipe.seed, epoch, 2))
        chosen = np.flatnonzero(rng.random(len(images)) < recipe.non_digits)
        images[chosen] = draw_non_digits(images[chosen], rng)
        targets[chosen] = NO_DIGIT
    return Epoch(images, targets)


def compile_epoch(recipe: EpochRecipe, classes: int, batch_size: int) -> Callable[..., Any]:
    """Compile all steps of an epoch into one function.

    Returns:
        (state, steps done before, images, labels, answers or None, rates, decays) -> (state, sums
        over the steps of loss and accuracy before the update).
    """
    import tensorflow as tf

    def loss_and_accuracy(weights: Weights, images: Any, labels: Any, answers: Any) -> Any:
        z = logits(weights, images)
        targets = tf.where((labels == NO_DIGIT)[:, None], 1 / classes, tf.one_hot(labels, classes))
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, z))
        if recipe.distillation and answers is not None:
            t, share = recipe.distillation.temperature, recipe.distillation.share
            soft = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(answers, z / t))
            loss = (1 - share) * loss + share * t**2 * soft
        hits = tf.argmax(z, axis=1, output_type=tf.int32) == labels
        digits = tf.reduce_sum(tf.cast(labels != NO_DIGIT, tf.float32))
        return loss, tf.reduce_sum(tf.cast(hits, tf.float32)) / tf.maximum(digits, 1)

    def step(state: Any, t: Any, batch: Any, rate: Any, decay: Any) -> Any:
        weights, first, second, average = state
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss, accuracy = loss_and_accuracy(weights, *batch)
        gradients = tape.gradient(loss, weights)
        first = [BETA_1 * m + (1 - BETA_1) * g for m, g in zip(first, gradients, strict=True)]
        second = [BETA_2 * v + (1 - BETA_2) * g * g for v, g in zip(second, gradients, strict=True)]
        unbiased = rate * tf.sqrt(1 - BETA_2**t) / (1 - BETA_1**t)
        kept = [1 - rate * recipe.weight_decay if len(w.shape) > 1 else 1.0 for w in weights]
        weights = [
            k * w - unbiased * m / (tf.sqrt(v) + EPSILON)
            for k, w, m, v in zip(kept, weights, first, second, strict=True)
        ]
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
        return (weights, first, second, average), tf.stack([loss, accuracy])

    def cut(of: Any, start: Any) -> Any:  # a batch, of a shape that XLA knows
        if of is None:
            return None
        shape = (batch_size, *of.shape[1:])
        return tf.ensure_shape(tf.slice(of, (start, *(0 for _ in shape[1:])), shape), shape)

    @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
    def run_epoch(
        state: Any, done: Any, images: Any, labels: Any, answers: Any, rates: Any, decays: Any
    ) -> Any:
        def body(i: Any, state: Any, totals: Any) -> Any:
            batch = [cut(of, i * batch_size) for of in (images, labels, answers)]
            t = tf.cast(done + i + 1, tf.float32)
            state, sums = step(state, t, batch, rates[i], decays[i])
            return i + 1, state, totals + sums

        steps = rates.shape[0]
        _, state, totals = tf.while_loop(lambda i, *_: i < steps, body, (0, state, tf.zeros(2)))
        return state, totals

    compiled: Callable[..., Any] = run_epoch
    return compiled


def answer(weights: Weights, images: Images) -> NDArray[np.float32]:
    """What `logits` gives, compiled: float32 (N, classes) for images (N, 28, 28)."""
    starts = range(0, len(images), CHUNK)
    run = _compile_logits()
    return np.concatenate([run(weights, images[i : i + CHUNK]).numpy() for i in starts])


@functools.cache
def _compile_logits() -> Callable[..., Any]:
    import tensorflow as tf

    compiled: Callable[..., Any] = tf.function(logits, jit_compile=True, autograph=False)
    return compiled


def logits(weights: Weights, images: Any) -> Any:
    """What the network of `lenet5.build` gives before its softmax.

    Args:
        weights: In the order of `model.get_weights()`.
        images: uint8 (N, 28, 28), 0..255.

    Returns:
        float32 (N, classes).
    """
    import tensorflow as tf

    c1, c1_bias, c3, c3_bias, c5, c5_bias, f6, f6_bias, output, output_bias = weights
    margin = ((0, 0), (2, 2), (2, 2))
    x = tf.pad(tf.cast(images, tf.float32) / 255, margin)[..., tf.newaxis]  # (N, 32, 32, 1)
    x = _convolve_relu_pool(x, c1, c1_bias)  # (N, 14, 14, 6)
    x = _convolve_relu_pool(x, c3, c3_bias)  # (N, 5, 5, 16)
    x = tf.reshape(x, (-1, c5.shape[0]))  # (N, 400)
    x = tf.nn.relu(x @ c5 + c5_bias)  # (N, 120)
    x = tf.nn.relu(x @ f6 + f6_bias)  # (N, 84)
    return x @ output + output_bias


def _convolve_relu_pool(x: Any, kernel: Any, bias: Any) -> Any:
    """5x5 convolution, ReLU and 2x2 max-pooling by one matrix product.

    The four outputs of a pooling window depend on one 6x6 window of the input, so four copies of
    the kernel, each shifted by (0 or 1, 0 or 1) within 6x6, give all four at once. XLA is fast at
    matrix products on a CPU, and slow at convolutions and at the gradient of pooling.

    Args:
        x: float32 (N, H, W, C), H = W, even.
        kernel: float32 (5, 5, C, D).
        bias: float32 (D,).

    Returns:
        float32 (N, (H - 4) / 2, (W - 4) / 2, D).
    """
    import tensorflow as tf

    c, d = kernel.shape[2:]
    m = (x.shape[1] - 4) // 2
    shifts = ((0, 0), (0, 1), (1, 0), (1, 1))
    copies = [tf.pad(kernel, ((r, 1 - r), (s, 1 - s), (0, 0), (0, 0))) for r, s in shifts]
    k = tf.reshape(tf.stack(copies, axis=3), (3, 2, 3, 2, c, 4 * d))
    k = tf.reshape(tf.transpose(k, (0, 2, 1, 3, 4, 5)), (36 * c, 4 * d))  # 3x3 cells of 2x2 pixels
    cells = tf.nn.space_to_depth(x, 2)  # (N, H/2, W/2, 4C)
    rows = tf.concat([cells[:, :, s : s + m] for s in range(3)], axis=3)  # (N, H/2, m, 12C)
    windows = tf.concat([rows[:, r : r + m] for r in range(3)], axis=3)  # (N, m, m, 36C)
    y = tf.reshape(tf.reshape(windows, (-1, 36 * c)) @ k, (-1, m, m, 4, d))
    upper = tf.maximum(y[..., 0, :], y[..., 1, :])
    lower = tf.maximum(y[..., 2, :], y[..., 3, :])
    return tf.nn.relu(tf.maximum(upper, lower) + bias)
