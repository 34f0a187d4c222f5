"""Label maps counted against each other: what every measure of pixels is made of.

Label maps hold long runs of equal ids, so what is counted is runs, unless a piece of the maps has hardly any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hiposeg_cli.labelmap import LabelArray, ignore_value
from hiposeg_cli.metrics.values import Matrix

_PIECE_PX = 1 << 19  # pixels taken at once: memory is constant, and temporaries stay near the processor
_PX_PER_RUN = 6  # below it, counting pixels is faster


@dataclass(frozen=True)
class Piece:
    """Some pixels of several maps: (N,) ids of each map, and how many pixels each stands for; None for one."""

    maps: tuple[LabelArray, ...]
    lengths: NDArray[np.int64] | None

    def where(self, chosen: NDArray[np.bool_]) -> Piece:
        """Those that a (N,) bool chooses."""
        lengths = None if self.lengths is None else self.lengths[chosen]
        return Piece(tuple(labels[chosen] for labels in self.maps), lengths)

    def table(self, row: int, column: int, n_rows: int, n_columns: int) -> Matrix:
        """(n_rows + 2, n_columns + 2) int64 pixel counts of two of the maps against each other.

        On both axes position 0 holds the pixels without a class, k + 1 those of class k, and the last those of ids beyond
        the classes.
        """
        rows, columns, shape = self.maps[row], self.maps[column], (n_rows + 2, n_columns + 2)
        row_places, column_places = _places(rows.dtype, n_rows), _places(columns.dtype, n_columns)
        if self.lengths is None and rows.size >= 1 << 16 and rows.dtype == columns.dtype == np.uint8:
            pairs = rows.astype(np.uint16) << 8
            np.bitwise_or(pairs, columns, out=pairs)
            return relabelled(np.bincount(pairs, minlength=1 << 16).reshape(256, 256), row_places, column_places, shape)
        places = row_places[rows] * shape[1] + column_places[columns]
        counts = np.bincount(places, weights=self.lengths, minlength=shape[0] * shape[1])  # whole below 2^53
        return counts.astype(np.int64).reshape(shape)


def pieces(maps: Sequence[LabelArray]) -> Iterator[Piece]:
    """Cut maps of equal shape into pieces, as runs of equal ids where that is shorter."""
    flat = [labels.ravel() for labels in maps]
    for start in range(0, flat[0].size, _PIECE_PX):
        pixels = tuple(labels[start : start + _PIECE_PX] for labels in flat)
        last = np.ones(pixels[0].size, dtype=np.bool_)  # whether a pixel is the last of its run
        np.not_equal(pixels[0][1:], pixels[0][:-1], out=last[:-1])
        for labels in pixels[1:]:
            last[:-1] |= labels[1:] != labels[:-1]
        if np.count_nonzero(last) * _PX_PER_RUN > last.size:
            yield Piece(pixels, None)
        else:
            ends = np.flatnonzero(last)
            yield Piece(tuple(labels[ends] for labels in pixels), np.diff(ends, prepend=-1))


def cross_table(rows: LabelArray, columns: LabelArray, n_rows: int, n_columns: int) -> Matrix:
    """`Piece.table` of two whole label maps of equal shape."""
    assert rows.shape == columns.shape, (rows.shape, columns.shape)
    table = np.zeros((n_rows + 2, n_columns + 2), dtype=np.int64)
    for piece in pieces((rows, columns)):
        table += piece.table(0, 1, n_rows, n_columns)
    return table


def relabelled(table: Matrix, rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> Matrix:
    """A table of counts whose row i becomes row `rows[i]` and column k column `columns[k]` of one of another shape."""
    row, column = np.nonzero(table)
    result = np.zeros(shape[0] * shape[1], dtype=np.int64)
    np.add.at(result, rows[row] * shape[1] + columns[column], table[row, column])
    return result.reshape(shape)


def _places(dtype: DTypeLike, n_classes: int) -> Matrix:
    """The place of every id of a type on an axis of a table."""
    ignore = ignore_value(dtype)
    places: Matrix = np.minimum(np.arange(ignore + 1, dtype=np.int64) + 1, n_classes + 1)
    places[ignore] = 0
    return places
