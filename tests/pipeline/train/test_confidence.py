"""The threshold of confidence, against hand-computed tables."""

import numpy as np
import pytest

from pipeline.train.confidence import answers, choose_threshold

# Five images of three classes, of confidence .9 .8 .6 .5 .4; the second and the last are wrong.
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.25, 0.25, 0.5], [0.4, 0.3, 0.3]]
)
LABELS = np.array([0, 1, 1, 2, 2], np.uint8)


@pytest.mark.parametrize(
    ("threshold", "coverage", "error"),
    [
        (0.0, 1.0, 2 / 5),
        (0.45, 4 / 5, 1 / 4),
        (0.7, 2 / 5, 1 / 2),
        (0.8, 2 / 5, 1 / 2),  # at the threshold is an answer
        (0.85, 1 / 5, 0.0),
        (0.95, 0.0, 0.0),
    ],
)
def test_coverage_and_error_of_a_hand_computed_table(threshold, coverage, error):
    got = answers(PROBABILITIES, LABELS, threshold)
    assert (got.coverage, got.error) == (coverage, error)
    assert got.error_ci95[0] <= error <= got.error_ci95[1]


def test_interval_of_the_error_is_the_exact_one():
    assert answers(PROBABILITIES, LABELS, 0.0).error_ci95 == pytest.approx(
        (0.0527, 0.8534), abs=1e-4
    )


@pytest.mark.parametrize(
    ("max_error", "threshold"), [(0.4, 0.0), (0.25, 0.41), (0.2, 0.81), (0.01, 0.81)]
)
def test_threshold_is_the_least_that_keeps_the_error(max_error, threshold):
    many = np.tile(PROBABILITIES, (300, 1)), np.tile(LABELS, 300)
    assert choose_threshold(*many, max_error) == threshold


def test_no_threshold_is_given_when_none_keeps_the_error():
    wrong = np.tile([[1.0, 0.0]], (9999, 1))
    assert choose_threshold(wrong, np.ones(9999, np.uint8)) is None


@pytest.mark.parametrize(("images", "threshold"), [(1499, None), (1500, 0.0)])
def test_no_threshold_is_given_by_too_few_images_to_know_of_one_wrong_in_500(images, threshold):
    right = np.tile([[0.9, 0.1]], (images, 1))
    assert choose_threshold(right, np.zeros(images, np.uint8)) == threshold
