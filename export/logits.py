"""The int8 range of the logits, chosen by what it does to the probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

GRID = 32


def compute_logits(model: keras.Model, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the model's last layer, a dense softmax, feeds to its softmax: (N, classes)."""
    import keras

    last = model.layers[-1]
    features = np.asarray(keras.Model(model.input, last.input)(samples, training=False))
    weights, bias = last.get_weights()
    return (features @ weights + bias).astype(np.float32)


def choose_range(logits: NDArray[np.float32]) -> tuple[float, float]:
    """Choose the (lowest, highest) logit that 256 steps of int8 should cover; others saturate.

    The full range wastes steps on logits so low that their probability is zero anyhow; then two
    near-equal logits fall into one step and the label is decided by a tie. Of a grid of ranges
    this takes the one with the least mean difference of the probabilities. The second largest
    logit of an image is never cut off, since two cut logits would tie.

    Args:
        logits: float32 (N, classes), of calibration images.
    """
    expected = softmax(logits)
    least, greatest = float(logits.min()), float(logits.max())
    second = float(np.sort(logits, axis=1)[:, -2].max())
    candidates = [
        (low, high)
        for low in np.linspace(least, min(0.0, second), GRID)
        for high in np.linspace(second, greatest, GRID)
        if high > low
    ]

    def error(candidate: tuple[float, float]) -> float:
        return float(np.abs(softmax(_round_trip(logits, *candidate)) - expected).mean())

    low, high = min(candidates, key=error, default=(least, greatest))
    return float(low), float(high)


def quantization_parameters(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point with which int8 -128..127 covers low..high."""
    scale = (high - low) / 255
    return scale, int(np.clip(np.rint(-128 - low / scale), -128, 127))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits (N, classes)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _round_trip(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    scale, zero_point = quantization_parameters(low, high)
    steps = np.clip(np.rint(values / scale) + zero_point, -128, 127)
    return ((steps - zero_point) * scale).astype(np.float32)
