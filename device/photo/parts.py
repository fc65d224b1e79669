"""The connected parts of a mask, from the runs along its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .pixels import Bool, Float, Int, UInt8


@dataclass(frozen=True)
class Parts:
    """The connected parts of a mask, as runs along its rows.

    Attributes:
        runs: (r, 3) start and stop in the flat mask, one column wider than it is, and the part.
        shape: (h, w) of the mask.
        area, edge, rim, mass: (n,) pixels, sides of pixels towards paper, pixels on the frame,
            sum of contrast.
        top, bottom, left, right: (n,) bounding box, bottom and right excluded.
    """

    runs: Int
    shape: tuple[int, int]
    area: Int
    edge: Int
    rim: Int
    mass: Int
    top: Int
    bottom: Int
    left: Int
    right: Int

    @property
    def height(self) -> Int:
        """Of the bounding box, (n,) pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> Int:
        """Of the bounding box, (n,) pixels."""
        return self.right - self.left

    @property
    def extent(self) -> Int:
        """The longer side of the bounding box, (n,) pixels."""
        return np.maximum(self.height, self.width)

    @property
    def thickness(self) -> Float:
        """Of a long stroke: twice its area over its outline."""
        return (2.0 * self.area / np.maximum(self.edge, 1)).astype(np.float32)

    def box(self, part: int) -> tuple[slice, slice]:
        """The bounding box of one part, as (rows, columns)."""
        rows = slice(int(self.top[part]), int(self.bottom[part]))
        return rows, slice(int(self.left[part]), int(self.right[part]))

    def draw(self, chosen: Bool) -> Bool:
        """(n,) chosen parts -> (h, w) mask."""
        height, width = self.shape
        steps = np.zeros(height * (width + 1) + 1, np.int8)
        runs = self.runs[chosen[self.runs[:, 2]]]
        steps[runs[:, 0]] = 1
        steps[runs[:, 1]] = -1
        filled = np.cumsum(steps[:-1], dtype=np.int8).reshape(height, width + 1)
        return filled[:, :width] > 0


def connected(mask: Bool, contrast: UInt8) -> Parts:
    """Connected parts (8 neighbours) of an (h, w) mask, from the runs along its rows."""
    height, width = mask.shape
    stride = width + 1  # one empty column, so that no run crosses a row's end
    flat = np.zeros(height * stride + 1, np.int8)
    flat[:-1].reshape(height, stride)[:, :width] = mask
    step = np.diff(flat, prepend=np.int8(0))
    start, stop = np.flatnonzero(step == 1), np.flatnonzero(step == -1)
    upper, lower, overlap = _touching(start, stop, stride)
    part, n = joined(len(start), upper, lower)

    row, left = np.divmod(start, stride)
    right = left + stop - start
    length = stop - start
    rim = np.where((row == 0) | (row == height - 1), length, (left == 0) * 1 + (right == width))

    def summed(values: npt.NDArray[np.generic]) -> Int:
        return np.bincount(part, values, minlength=n).astype(np.int64)

    edge = summed(2 + 2 * length) - 2 * np.bincount(part[upper], overlap, minlength=n).astype(int)
    box = np.array([[height], [0], [width], [0]]).repeat(n, axis=1)
    np.minimum.at(box[0], part, row)
    np.maximum.at(box[1], part, row + 1)
    np.minimum.at(box[2], part, left)
    np.maximum.at(box[3], part, right)
    runs = np.stack([start, stop, part], axis=1)
    mass = np.bincount(np.repeat(part, length), contrast[mask], minlength=n).astype(np.int64)
    return Parts(runs, mask.shape, summed(length), edge, summed(rim), mass, *box)


def _touching(start: Int, stop: Int, stride: int) -> tuple[Int, Int, Int]:
    """Pairs of runs in neighbouring rows that touch, and by how many columns they overlap."""
    first = np.searchsorted(stop, start + stride - 1, side="right")
    last = np.searchsorted(start, stop + stride + 1, side="left")
    count = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(start)), count)
    lower = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[upper]
    overlap = np.minimum(stop[upper] + stride, stop[lower])
    overlap -= np.maximum(start[upper] + stride, start[lower])
    return upper, lower, np.maximum(overlap, 0)


def joined(n: int, a: Int, b: Int) -> tuple[Int, int]:
    """Numbers the connected groups of n things, of which a[i] and b[i] belong together."""
    root = np.arange(n)
    while not np.array_equal(root[a], root[b]):
        high, low = np.maximum(root[a], root[b]), np.minimum(root[a], root[b])
        np.minimum.at(root, high, low)
        while not np.array_equal(root, root[root]):
            root = root[root]
    names, part = np.unique(root, return_inverse=True)
    return part.astype(np.int64), len(names)
