"""The strokes of the digits and letters that the studies draw, from `skeletons.toml`."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Skeleton = list[list[list[float]]]  # strokes, each of control points [x, y] in a box of 1 x 1
Curve = NDArray[np.float64]  # (n, 2), x and y


@functools.cache
def _table() -> dict[str, dict[str, dict[str, Skeleton]]]:
    return tomllib.loads(Path(__file__).with_name("skeletons.toml").read_text("utf-8"))


def common_digits(digit: int) -> list[Skeleton]:
    return list(_table()["digits"][str(digit)].values())


def all_digits(digit: int) -> dict[str, Skeleton]:
    """Every way to write a digit, by name: the common ones and then the others."""
    table = _table()
    return table["digits"][str(digit)] | table["more_digits"].get(str(digit), {})


def letters() -> list[Skeleton]:
    return list(_table()["letters"].values())  # type: ignore[arg-type]


def bend(
    rng: np.random.Generator, skeleton: Skeleton, jitter: float, matrix: NDArray[np.float64]
) -> list[Curve]:
    """The curves of a skeleton's strokes, each time a little different, as of a hand.

    Each control point moves by the jitter, a standard deviation in boxes; then the matrix (2, 2)
    acts on its (x, y).
    """
    curves = []
    for points in skeleton:
        corners = np.array(points)
        moved = corners + rng.normal(0, jitter, corners.shape)
        doubled = np.flatnonzero((corners[1:] == corners[:-1]).all(axis=1)) + 1
        moved[doubled] = moved[doubled - 1]  # a point given twice is a corner and stays one
        curves.append(smooth_curve(moved) @ matrix.T)
    return curves


def smooth_curve(points: NDArray[np.float64]) -> Curve:
    """A Catmull-Rom spline through (n, 2) points (Catmull and Rom, 1974)."""
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        if np.allclose(b, c):
            continue
        a, d = (b if np.allclose(a, b) else a), (c if np.allclose(c, d) else d)
        cubic = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
        pieces.append(0.5 * (cubic + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*pieces, points[-1:]])
