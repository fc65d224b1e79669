"""Make the network's probabilities mean what they say: one temperature, folded into its last layer.

Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On Calibration of Modern Neural Networks",
ICML 2017, section 4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    import keras

LIMIT = 10.0  # the temperature is sought within 1 / LIMIT..LIMIT


def cross_entropy(logits: NDArray[Any], labels: NDArray[np.uint8]) -> float:
    """Mean negative logarithm of the true label's probability, of logits (N, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    true = shifted[np.arange(len(labels)), labels]
    return float((np.log(np.exp(shifted).sum(axis=1)) - true).mean())


def find_temperature(logits: NDArray[Any], labels: NDArray[np.uint8]) -> float:
    """The number to divide logits by so that the cross-entropy is least.

    Above 1 if the network was too sure of itself. `logits` (N, classes) are of images that the
    network was not trained on.
    """

    def loss(log_temperature: float) -> float:
        return cross_entropy(logits / np.exp(log_temperature), labels)

    bound = np.log(LIMIT)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))


def fold_temperature(model: keras.Model, temperature: float) -> None:
    """Divide the logits of `model` by `temperature`, in the weights of its last layer."""
    last = model.layers[-1]
    last.set_weights([weight / np.float32(temperature) for weight in last.get_weights()])


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.uint8], bins: int = 15
) -> float:
    """Mean distance, 0..1, between confidence and accuracy over bins of equal width, by their size.

    Args:
        probabilities: float (N, classes), 0..1.
        labels: uint8 (N,).
        bins: How many.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, correct - confidence, bins)  # summed over each bin
    return float(np.abs(gaps).sum() / len(labels))
