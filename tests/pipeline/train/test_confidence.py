"""The threshold of confidence, against hand-computed tables."""

import numpy as np
import pytest

from pipeline.train.confidence import Answers, answers, choose_threshold

# Five images of three classes, of confidence .9 .8 .6 .5 .4; the second and the last are wrong.
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.25, 0.25, 0.5], [0.4, 0.3, 0.3]]
)
LABELS = np.array([0, 1, 1, 2, 2], np.uint8)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, Answers(1.0, 2 / 5)),
        (0.45, Answers(4 / 5, 1 / 4)),
        (0.7, Answers(2 / 5, 1 / 2)),
        (0.8, Answers(2 / 5, 1 / 2)),  # at the threshold is an answer
        (0.85, Answers(1 / 5, 0.0)),
        (0.95, Answers(0.0, 0.0)),
    ],
)
def test_coverage_and_error_of_a_hand_computed_table(threshold, expected):
    assert answers(PROBABILITIES, LABELS, threshold) == expected


@pytest.mark.parametrize(
    ("max_error", "threshold"), [(0.4, 0.0), (0.25, 0.41), (0.2, 0.81), (0.0, 0.81)]
)
def test_threshold_is_the_least_that_keeps_the_error(max_error, threshold):
    assert choose_threshold(PROBABILITIES, LABELS, max_error) == threshold


def test_threshold_is_the_greatest_when_none_keeps_the_error():
    wrong = np.array([[1.0, 0.0]])
    assert choose_threshold(wrong, np.array([1], np.uint8)) == 0.99
