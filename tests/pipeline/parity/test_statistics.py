"""The statistics against published and hand-computed values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.parity.statistics import (
    PairedCounts,
    mcnemar_exact_p,
    mean_ci95,
    paired_counts,
    paired_difference_ci95,
    wilson_ci95,
)


def test_paired_counts_of_a_hand_made_table():
    labels = np.array([0, 1, 2, 3, 4, 5])
    reference = np.array([0, 1, 9, 3, 9, 9])
    got = np.array([0, 9, 2, 3, 9, 8])
    assert paired_counts(labels, reference, got) == PairedCounts(2, 1, 1, 2)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        # Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10, to four digits.
        ((36, 12, 2, 0), (0.0569, 0.3404)),
        ((20, 12, 2, 16), (0.0562, 0.3292)),
    ],
)
def test_paired_interval_is_the_published_one(table, expected):
    assert paired_difference_ci95(PairedCounts(*table)) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("table", [(0, 5, 0, 5), (1, 0, 0, 1), (3, 2, 2, 2)])
def test_without_a_correlation_the_squares_of_wilsons_intervals_are_added(table):
    """Where a margin is 0, or the correlation is within the correction for continuity."""
    both, only_got, only_reference, _ = table
    n = sum(table)
    p1, p2 = (both + only_got) / n, (both + only_reference) / n
    (lower1, upper1), (lower2, upper2) = (wilson_ci95(round(p * n), n) for p in (p1, p2))
    below = np.hypot(p1 - lower1, upper2 - p2)
    above = np.hypot(upper1 - p1, p2 - lower2)
    expected = pytest.approx((p1 - p2 - below, p1 - p2 + above))
    assert paired_difference_ci95(PairedCounts(*table)) == expected


@pytest.mark.parametrize(
    ("only_got", "only_reference", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (0, 5, 2 / 2**5),
        (1, 7, 2 * (1 + 8) / 2**8),
        (12, 2, 2 * (1 + 14 + 91) / 2**14),
    ],
)
def test_mcnemar_p_is_the_hand_computed_binomial_sum(only_got, only_reference, p):
    assert mcnemar_exact_p(PairedCounts(80, only_got, only_reference, 3)) == pytest.approx(p)


def test_wilson_interval_of_81_of_263_is_the_published_one():
    # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I.
    assert wilson_ci95(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


counts = st.integers(0, 10_000)


@given(counts, counts, counts, counts)
def test_interval_contains_the_difference_and_mirrors_when_the_two_swap(e, f, g, h):
    if e + f + g + h == 0:
        return
    lower, upper = paired_difference_ci95(PairedCounts(e, f, g, h))
    difference = (f - g) / (e + f + g + h)
    assert -1 - 1e-9 <= lower <= difference + 1e-9
    assert difference - 1e-9 <= upper <= 1 + 1e-9
    mirrored = paired_difference_ci95(PairedCounts(e, g, f, h))
    assert mirrored == pytest.approx((-upper, -lower), abs=1e-9)


def test_students_interval_of_a_hand_computed_sample():
    # 1..5: mean 3, deviation sqrt(10 / 4), t(0.975, 4) = 2.776445 (Student's table).
    mean, deviation, interval = mean_ci95([1, 2, 3, 4, 5])
    assert mean == 3
    assert deviation == pytest.approx(1.5811388)
    assert interval == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)


def test_one_value_has_neither_deviation_nor_interval():
    assert mean_ci95([0.5]) == (0.5, None, None)
