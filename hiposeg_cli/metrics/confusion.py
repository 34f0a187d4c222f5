"""Pixel counts of truth against prediction over a whole set (never averaged over images or batches).

Pixels whose truth is ignore are dropped; predicted void on a valid pixel is a miss and nobody's false positive
(Cityscapes). Every level is a fold of the leaf matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, valid_pixels
from hiposeg_cli.metrics.cross_table import Piece, pieces, relabelled
from hiposeg_cli.metrics.values import Matrix

CoarsePixels = Literal["labelled", "fine-labelled"]
Uncovered = Literal["ignore", "background"]


class Confusion:
    """Pixel counts of truth against prediction over a set.

    `counts` is (F + C, F + 1) int64: rows are the true fine class or, for pixels labelled on the coarse level only, the
    true coarse class; columns the predicted fine class, the last one void. Where predictions have their own maps of the
    levels above, `own` holds one (K, K + 1) matrix of truth against prediction for each of these levels, and `joint` one
    (F + 1, K + 1) matrix of predicted fine against predicted class; else both are empty. `ignored` counts the pixels
    without a true class.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.n_images = 0
        self.ignored = 0
        self.counts: Matrix = np.zeros((hierarchy.n_fine + hierarchy.n_coarse, hierarchy.n_fine + 1), dtype=np.int64)
        self.own: list[Matrix] = []
        self.joint: list[Matrix] = []

    def add(
        self, truth: TwoLevelMap, predicted_fine: LabelArray, where: object = "prediction", above: Sequence[LabelArray] = ()
    ) -> None:
        """Count one image.

        Args:
            predicted_fine: (H, W) fine ids; the ignore value of its type is void.
            above: the prediction's own (H, W) maps of all levels above; none where they are the parents. All images of a
                set have them or none has.
        Raises: DataError when sizes differ or a predicted id is unknown.
        """
        levels = self.hierarchy.levels
        assert len(above) in (0, len(levels) - 1), "a map for every level above, or none"
        assert not self.n_images or bool(above) == bool(self.own), "all images have maps for the levels above, or none has"
        for labels in (predicted_fine, *above):
            if labels.shape != truth.shape:
                raise DataError(
                    where, f"prediction is {labels.shape}, truth is {truth.shape}", "predict at the original size"
                )
        tables = _Tables(self.hierarchy, len(above))
        for piece in pieces((truth.fine, truth.coarse, predicted_fine, *above)):
            tables.add(piece)
        for table, labels, level in zip((tables.leaf, *tables.own), (predicted_fine, *above), levels, strict=False):
            _check_known(table, labels, level, where)
        self._add_tables(tables)
        self.n_images += 1

    def _add_tables(self, tables: _Tables) -> None:
        hierarchy, n_fine = self.hierarchy, self.hierarchy.n_fine
        assert not tables.leaf[-1].any(), "a true fine id beyond the hierarchy"
        self.counts[:n_fine] += _void_last(tables.leaf[1:-1])
        self.counts[n_fine:] += _void_last(tables.coarse_only[1:-1])
        self.ignored += int(tables.coarse_only[0].sum())
        if tables.own and not self.own:
            self.own = [np.zeros((len(level), len(level) + 1), dtype=np.int64) for level in hierarchy.levels[1:]]
            self.joint = [np.zeros((n_fine + 1, len(level) + 1), dtype=np.int64) for level in hierarchy.levels[1:]]
        for depth, (own, joint) in enumerate(zip(tables.own, tables.joint, strict=True), start=1):
            shape = self.own[depth - 1].shape
            self.own[depth - 1] += relabelled(
                _void_last(own[1:-1]), above_coarse(hierarchy, depth), np.arange(shape[1]), (shape[0], shape[1])
            )
            self.joint[depth - 1] += _void_last(_void_last(joint).T).T

    def merge(self, other: Confusion) -> None:
        """Add another process's counts."""
        assert not (self.n_images and other.n_images) or bool(self.own) == bool(other.own)
        self.counts += other.counts
        self.own, self.joint = _sum(self.own, other.own), _sum(self.joint, other.joint)
        self.n_images += other.n_images
        self.ignored += other.ignored

    def matrix(self, depth: int, coarse_pixels: CoarsePixels = "labelled", uncovered: Uncovered = "ignore") -> Matrix:
        """(K, K + 1) int64 matrix of `hierarchy.levels[depth]`, void last; every level is a fold of the leaf matrix.

        Args:
            coarse_pixels: whether pixels with only a coarse label count from the coarse level upward, or nowhere.
            uncovered: whether these pixels are ignored on the finest level, or background there (PASCAL-Part-108).
        Raises: ConfigError for `uncovered` background where the hierarchy has no background class.
        """
        hierarchy, n_fine = self.hierarchy, self.hierarchy.n_fine
        n_level = len(hierarchy.levels[depth])
        columns = np.append(hierarchy.ancestors(depth), n_level)
        shape = (n_level, n_level + 1)
        folded = relabelled(self.counts[:n_fine], hierarchy.ancestors(depth), columns, shape)
        if depth == 0:
            if uncovered == "background":
                folded[_background(hierarchy)] += self.counts[n_fine:].sum(axis=0)
            return folded
        if coarse_pixels == "labelled":
            folded += relabelled(self.counts[n_fine:], above_coarse(hierarchy, depth), columns, shape)
        return folded

    def own_matrix(self, depth: int) -> Matrix:
        """The same from the predictions' own maps of that level. Only where they have them."""
        return self.own[depth - 1] if depth else self.matrix(0)

    def consistency(self, depth: int) -> float:
        """Share of the pixels with a predicted fine class where the class predicted on a level above is its ancestor."""
        joint = self.joint[depth - 1][: self.hierarchy.n_fine]
        agreeing = int(joint[np.arange(self.hierarchy.n_fine), self.hierarchy.ancestors(depth)].sum())
        return agreeing / int(joint.sum()) if joint.any() else float("nan")

    @property
    def withholds(self) -> bool:
        """Whether a fine class is void somewhere where a class above is not, as back-off leaves it."""
        return any(bool(joint[-1, :-1].any()) for joint in self.joint)


class _Tables:
    """Tables of one image, laid out as `Piece.table`: true fine, and true coarse where fine is ignored, against predicted
    fine; true coarse against each of the prediction's own maps; predicted fine against these on valid pixels."""

    def __init__(self, hierarchy: Hierarchy, n_own: int) -> None:
        sizes = [len(level) for level in hierarchy.levels]
        self.sizes, self.n_own = sizes, n_own
        self.leaf, self.coarse_only = _zeros(sizes[0], sizes[0]), _zeros(sizes[1], sizes[0])
        self.own = [_zeros(sizes[1], size) for size in sizes[1 : 1 + n_own]]
        self.joint = [_zeros(sizes[0], size) for size in sizes[1 : 1 + n_own]]

    def add(self, piece: Piece) -> None:
        """Count pixels of the maps: true fine, true coarse, predicted fine, the prediction's own maps."""
        n_fine, n_coarse = self.sizes[:2]
        self.leaf += piece.table(0, 2, n_fine, n_fine)
        unlabelled = ~valid_pixels(piece.maps[0])
        if unlabelled.any():
            self.coarse_only += piece.where(unlabelled).table(1, 2, n_coarse, n_fine)
        if not self.n_own:
            return
        valid = piece.where(valid_pixels(piece.maps[1]))
        for depth in range(1, self.n_own + 1):
            self.own[depth - 1] += piece.table(1, 2 + depth, n_coarse, self.sizes[depth])
            self.joint[depth - 1] += valid.table(2, 2 + depth, n_fine, self.sizes[depth])


def class_counts(matrix: Matrix) -> Matrix:
    """(3, K) int64 TP, FP and FN of each class of a (K, K + 1) matrix whose last column is predicted void."""
    hits = np.diagonal(matrix)
    return np.stack([hits, matrix[:, :-1].sum(axis=0) - hits, matrix.sum(axis=1) - hits])


def above_coarse(hierarchy: Hierarchy, depth: int) -> Matrix:
    """(C,) int64: the id on `levels[depth]`, 1 or more, of each coarse class."""
    table = np.zeros(hierarchy.n_coarse, dtype=np.int64)
    table[hierarchy.parent] = hierarchy.ancestors(depth)
    return table


def _check_known(table: Matrix, labels: LabelArray, level: Level, where: object) -> None:
    """Raise DataError when the last column, that of unknown ids, holds a pixel."""
    if table[:, -1].any():
        unknown = labels[(labels != ignore_value(labels.dtype)) & (labels >= len(level))]
        raise DataError(
            where,
            f"predicted id {int(unknown[0])} on {unknown.size} pixels; the hierarchy has {len(level)} {level.name} classes",
            "predict with the same hierarchy",
        )


def _void_last(table: Matrix) -> Matrix:
    """The table in the order of a confusion matrix: no column for unknown ids, and void last."""
    return np.roll(table[:, :-1], -1, axis=1)


def _zeros(n_rows: int, n_columns: int) -> Matrix:
    return np.zeros((n_rows + 2, n_columns + 2), dtype=np.int64)


def _background(hierarchy: Hierarchy) -> int:
    if hierarchy.background is None:
        raise ConfigError(
            f"hierarchy {hierarchy.name!r}", "has no background class to count uncovered pixels as",
            "choose a protocol that ignores them",
        )  # fmt: skip
    return hierarchy.background


def _sum(mine: list[Matrix], theirs: list[Matrix]) -> list[Matrix]:
    """Matrix by matrix; either may be none."""
    if mine and theirs:
        return [a + b for a, b in zip(mine, theirs, strict=True)]
    return [matrix.copy() for matrix in mine or theirs]
