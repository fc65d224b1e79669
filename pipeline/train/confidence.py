"""When the network should say that it is unsure.

A probability below the threshold is an 'unsure': fewer images are answered (coverage), and fewer of
the answers are wrong.

Source: R. El-Yaniv and Y. Wiener, "On the Foundations of Noise-free Selective Classification",
JMLR 11, 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ERROR = 0.002  # of the answers on validation images


@dataclass(frozen=True)
class Answers:
    """What a threshold gives on a set of images."""

    coverage: float  # share of the images that are answered, 0..1
    error: float  # share of those answers that are wrong, 0..1; 0 when there are none


@dataclass(frozen=True)
class Confidence:
    """The threshold of one network."""

    threshold: float  # `runner.py --min-confidence` at which MAX_ERROR of the answers were wrong
    validation: Answers  # what it gives on the images it was chosen on
    test: Answers  # what it gives on the test images


def answers(
    probabilities: NDArray[np.floating], labels: NDArray[np.uint8], threshold: float
) -> Answers:
    """Coverage and error at a threshold, of (N, classes) probabilities and (N,) labels."""
    answered = probabilities.max(axis=1) >= threshold
    wrong = answered & (probabilities.argmax(axis=1) != labels)
    count = int(answered.sum())
    return Answers(count / len(labels), float(wrong.sum() / count) if count else 0.0)


def choose_threshold(
    probabilities: NDArray[np.floating], labels: NDArray[np.uint8], max_error: float = MAX_ERROR
) -> float:
    """The least threshold, in whole per cent, whose answers are wrong at most `max_error` times.

    Args:
        probabilities: float (N, classes), 0..1, of images that the network was not trained on.
        labels: uint8 (N,).
        max_error: Share of wrong answers, 0..1.

    Returns:
        0.00 to 0.99; 0.99 where even that does not suffice.
    """
    for percent in range(99):
        if answers(probabilities, labels, percent / 100).error <= max_error:
            return percent / 100
    return 0.99
