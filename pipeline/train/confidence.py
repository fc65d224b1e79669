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
from scipy.stats import binomtest

MAX_ERROR = 0.002  # of the answers on validation images
LEAST_WRONG = 3  # if none of n answers is wrong, up to 3 / n of them may be (95 %)


@dataclass(frozen=True)
class Answers:
    """What a threshold gives on a set of images."""

    coverage: float  # share of the images that are answered, 0..1
    error: float  # share of those answers that are wrong, 0..1; 0 when there are none
    error_ci95: tuple[float, float]  # its exact 95 % interval (Clopper and Pearson, 1934)


@dataclass(frozen=True)
class Confidence:
    """The threshold of one network."""

    threshold: float | None  # `runner.py --min-confidence` at which MAX_ERROR of the answers were
    # wrong; None where none keeps to it, or too few images were there to tell
    validation: Answers  # what it gives on the images it was chosen on
    test: Answers  # what it gives on the test images


def answers(
    probabilities: NDArray[np.floating], labels: NDArray[np.uint8], threshold: float
) -> Answers:
    """Coverage and error at a threshold, of (N, classes) probabilities and (N,) labels."""
    answered = probabilities.max(axis=1) >= threshold
    wrong = answered & (probabilities.argmax(axis=1) != labels)
    count = int(answered.sum())
    if not count:
        return Answers(0.0, 0.0, (0.0, 1.0))
    interval = binomtest(int(wrong.sum()), count).proportion_ci(method="exact")
    ends = float(interval.low), float(interval.high)
    return Answers(count / len(labels), float(wrong.sum() / count), ends)


def choose_threshold(
    probabilities: NDArray[np.floating], labels: NDArray[np.uint8], max_error: float = MAX_ERROR
) -> float | None:
    """The least threshold, in whole per cent, whose answers are wrong at most `max_error` times.

    Args:
        probabilities: float (N, classes), 0..1, of images that the network was not trained on.
        labels: uint8 (N,).
        max_error: Share of wrong answers, 0..1.

    Returns:
        0.00 to 0.99; None where even that does not suffice, or where so few images are answered
        that the share of wrong ones could be larger without showing.
    """
    for percent in range(100):
        got = answers(probabilities, labels, percent / 100)
        if got.error <= max_error:
            enough = got.coverage * len(labels) * max_error >= LEAST_WRONG
            return percent / 100 if enough else None
    return None
