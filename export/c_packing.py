"""Weight layouts of the C kernels in c_templates/."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LANES = 16  # output channels side by side in every packed layout
DENSE_TILE = 128  # outputs whose sums dense_tile_vnni holds in registers


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple that is at least `value`."""
    return -(-value // multiple) * multiple


def _pad(array: NDArray[np.int8], axis: int, multiple: int) -> NDArray[np.int8]:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, round_up(array.shape[axis], multiple) - array.shape[axis])
    return np.pad(array, widths)


def pack_rows(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, taps...) -> [outputs][depth], depth = taps padded to a multiple of 16."""
    return _pad(weights.reshape(len(weights), -1), 1, 16)


def _pack_conv(weights: NDArray[np.int8], group: int) -> NDArray[np.int8]:
    """(out, kh, kw, in) -> [out / 16][kh][groups][16][group]; a group stays within a row."""
    outputs, rows = weights.shape[:2]
    taps = _pad(_pad(weights.reshape(outputs, rows, -1), 2, group), 0, LANES)
    return taps.reshape(-1, LANES, rows, taps.shape[2] // group, group).transpose(0, 2, 3, 1, 4)


def pack_conv_groups(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Groups of 4 taps, for vpdpbusd, sdot and smull."""
    return _pack_conv(weights, 4)


def pack_conv_pairs(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """Pairs of int16 taps, for pmaddwd."""
    return _pack_conv(weights, 2).astype(np.int16)


def pack_image_pairs(weights: NDArray[np.int8]) -> NDArray[np.int16]:
    """(out, kh, kw, 1) -> [out][kh][ceil(kw / 2)][2] int16."""
    rows = _pad(weights[..., 0], 2, 2)
    return rows.reshape(*rows.shape[:2], -1, 2).astype(np.int16)


def pack_image_groups(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(out, 5, 5, 1) -> [out][7 groups][4].

    Groups 0 to 4: the first four taps of each row. Group 5: the last taps of rows 0 to 3.
    Group 6: the last tap of row 4, and three zeros.
    """
    taps = weights[..., 0]
    last_column = np.pad(taps[:, :, 4], [(0, 0), (0, 3)]).reshape(-1, 2, 4)
    return np.concatenate([taps[:, :, :4], last_column], axis=1)


def pack_dense(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """(outputs, inputs) -> flat tiles of at most 128 outputs, each [inputs / 4][outputs][4]."""
    padded = _pad(_pad(weights, 1, 4), 0, LANES)
    tiles = [padded[start : start + DENSE_TILE] for start in range(0, len(padded), DENSE_TILE)]
    return np.concatenate(
        [tile.reshape(len(tile), -1, 4).transpose(1, 0, 2).ravel() for tile in tiles]
    )
