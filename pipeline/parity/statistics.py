"""The statistics of two classifiers on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PairedCounts:
    """How often two classifiers are right on the same N images."""

    both: int  # are right
    only_got: int  # only the artifact is right
    only_reference: int  # only the reference is right
    neither: int  # both are wrong

    @property
    def n(self) -> int:
        return self.both + self.only_got + self.only_reference + self.neither


def paired_counts(
    labels: NDArray[np.integer], reference: NDArray[np.integer], got: NDArray[np.integer]
) -> PairedCounts:
    """Count the four outcomes, of (N,) true labels and (N,) labels of each classifier."""
    right_reference, right_got = reference == labels, got == labels
    return PairedCounts(
        both=int((right_reference & right_got).sum()),
        only_got=int((~right_reference & right_got).sum()),
        only_reference=int((right_reference & ~right_got).sum()),
        neither=int((~right_reference & ~right_got).sum()),
    )


def mcnemar_exact_p(counts: PairedCounts) -> float:
    """The p-value, 0..1, of the exact two-sided McNemar test of "equally often right".

    Only images on which exactly one is right count; under the hypothesis each goes either way
    with probability 1/2.

    Source: Q. McNemar, "Note on the sampling error of the difference between correlated
    proportions or percentages", Psychometrika 12, 1947; exact form: binomial test.
    """
    from scipy.stats import binomtest

    discordant = counts.only_got + counts.only_reference
    if discordant == 0:
        return 1.0
    return float(binomtest(counts.only_got, discordant, 0.5).pvalue)


def paired_difference_ci95(counts: PairedCounts) -> tuple[float, float]:
    """A 95 % confidence interval, -1..1, of accuracy(artifact) - accuracy(reference).

    Newcombe's square-and-add interval from Wilson's score intervals, with the correlation of the
    pair (method 10, continuity-corrected phi). It stays sensible with few or no differences,
    where the textbook (Wald) interval shrinks to nothing.

    Source: R. G. Newcombe, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", Statistics in Medicine 17, 1998, 2635-2650.
    """
    e, f, g, h = counts.both, counts.only_got, counts.only_reference, counts.neither
    n = counts.n
    p1, p2 = (e + f) / n, (e + g) / n  # accuracy of the artifact, of the reference
    lower1, upper1 = wilson_ci95(e + f, n)
    lower2, upper2 = wilson_ci95(e + g, n)
    phi = _phi(e, f, g, h)
    difference = p1 - p2
    below = (p1 - lower1) ** 2 - 2 * phi * (p1 - lower1) * (upper2 - p2) + (upper2 - p2) ** 2
    above = (upper1 - p1) ** 2 - 2 * phi * (upper1 - p1) * (p2 - lower2) + (p2 - lower2) ** 2
    # Rounding can take a square that is zero below zero.
    return difference - math.sqrt(max(below, 0.0)), difference + math.sqrt(max(above, 0.0))


def wilson_ci95(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion, 0..1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 22, 1927.
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _phi(e: int, f: int, g: int, h: int) -> float:
    """The correlation of the pair, continuity-corrected as Newcombe's method 10 has it."""
    product = float(e + f) * (g + h) * (e + g) * (f + h)
    if product == 0.0:
        return 0.0
    numerator = e * h - f * g
    if numerator > 0:
        numerator = max(numerator - (e + f + g + h) / 2, 0.0)  # type: ignore[assignment]
    return numerator / math.sqrt(product)


def mean_ci95(
    values: Sequence[float],
) -> tuple[float, float | None, tuple[float, float] | None]:
    """Mean, sample standard deviation and Student's 95 % confidence interval of the mean.

    A single value says nothing of its spread: deviation and interval are None.

    Source: Student, "The probable error of a mean", Biometrika 6, 1908.
    """
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None, None
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean, deviation, (mean - half, mean + half)
