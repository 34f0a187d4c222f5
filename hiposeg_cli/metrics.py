"""Evaluation on every level from integer matrices over the whole set (never averaged over images or batches).

Protocol `merged`: the coarse result is the fine prediction folded up the tree. Protocol `own`: the prediction has a map of
its own for each level; both are given then, with the share of pixels where they agree. IoU_c = TP / (TP + FP + FN);
pixels whose truth is ignore are dropped; predicted void on a valid pixel is a miss and nobody's false positive
(Cityscapes); a class in neither truth nor prediction is absent (nan) and left out of the mean; a class predicted but not
in the truth scores 0 (`zero`, Cityscapes) or is left out (`skip`, COCO-Stuff).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, valid_pixels

Matrix = NDArray[np.int64]
Absent = Literal["zero", "skip"]


class Confusion:
    """Pixel counts of truth against prediction over a set.

    `counts` is (F + C, F + 1) int64: rows are the true fine class or, for pixels labelled on the coarse level only, the
    true coarse class; columns the predicted fine class, the last one void. Where predictions have their own maps of the
    levels above, `own` holds one (K, K + 1) matrix of truth against prediction for each of these levels, and `joint` one
    (F + 1, K + 1) matrix of predicted fine against predicted class; else both are empty.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.n_images = 0
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
        levels, n_fine = self.hierarchy.levels, self.hierarchy.n_fine
        assert len(above) in (0, len(levels) - 1), "a map for every level above, or none"
        assert not self.n_images or bool(above) == bool(self.own), "all images have maps for the levels above, or none has"
        valid = valid_pixels(truth.coarse)
        given = zip((predicted_fine, *above), levels, strict=False)
        fine, *upper = (_columns(labels, level, truth, valid, where) for labels, level in given)
        rows = np.where(valid_pixels(truth.fine), truth.fine, truth.coarse.astype(np.int64) + n_fine)
        _count(self.counts, rows[valid].astype(np.int64), fine)
        if upper:
            self._add_own(truth.coarse[valid], fine, upper)
        self.n_images += 1

    def _add_own(self, coarse: NDArray[Any], fine: Matrix, upper: list[Matrix]) -> None:
        """Count the maps of the levels above over the valid pixels, all (N,)."""
        levels, n_fine = self.hierarchy.levels, self.hierarchy.n_fine
        if not self.own:
            self.own = [np.zeros((len(level), len(level) + 1), dtype=np.int64) for level in levels[1:]]
            self.joint = [np.zeros((n_fine + 1, len(level) + 1), dtype=np.int64) for level in levels[1:]]
        for depth, columns in enumerate(upper, start=1):
            _count(self.own[depth - 1], _above_coarse(self.hierarchy, depth)[coarse], columns)
            _count(self.joint[depth - 1], fine, columns)

    def merge(self, other: Confusion) -> None:
        """Add another process's counts."""
        assert not (self.n_images and other.n_images) or bool(self.own) == bool(other.own)
        self.counts += other.counts
        self.own, self.joint = _sum(self.own, other.own), _sum(self.joint, other.joint)
        self.n_images += other.n_images

    def matrix(self, depth: int) -> Matrix:
        """(K, K + 1) int64 matrix of `hierarchy.levels[depth]`, void last; every level is a fold of the leaf matrix.

        Pixels with only a coarse label count from the coarse level upward.
        """
        n_fine, n_level = self.hierarchy.n_fine, len(self.hierarchy.levels[depth])
        fold = np.zeros((n_fine + 1, n_level + 1), dtype=np.int64)
        fold[np.arange(n_fine), self.hierarchy.ancestors(depth)] = 1
        fold[n_fine, n_level] = 1
        folded: Matrix = fold[:n_fine, :n_level].T @ self.counts[:n_fine] @ fold
        if depth == 0:
            return folded
        up = np.zeros((self.hierarchy.n_coarse, n_level), dtype=np.int64)
        up[self.hierarchy.parent, self.hierarchy.ancestors(depth)] = 1
        result: Matrix = folded + up.T @ self.counts[n_fine:] @ fold
        return result

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


def _columns(labels: LabelArray, level: Level, truth: TwoLevelMap, valid: NDArray[np.bool_], where: object) -> Matrix:
    """(N,) predicted ids of the valid pixels, void as the last column. Raises DataError when a size or an id is wrong."""
    if labels.shape != truth.shape:
        raise DataError(where, f"prediction is {labels.shape}, truth is {truth.shape}", "predict at the original size")
    void = labels == ignore_value(labels.dtype)
    unknown = labels[~void & (labels >= len(level))]
    if unknown.size:
        raise DataError(
            where,
            f"predicted id {int(unknown[0])} on {unknown.size} pixels; the hierarchy has {len(level)} {level.name} classes",
            "predict with the same hierarchy",
        )
    columns: Matrix = np.where(void, len(level), labels).astype(np.int64)[valid]
    return columns


def _count(matrix: Matrix, rows: Matrix, columns: Matrix) -> None:
    """Add pairs of (N,) row and column numbers to a matrix."""
    matrix += np.bincount(rows * matrix.shape[1] + columns, minlength=matrix.size).reshape(matrix.shape)


def _sum(mine: list[Matrix], theirs: list[Matrix]) -> list[Matrix]:
    """Matrix by matrix; either may be none."""
    if mine and theirs:
        return [a + b for a, b in zip(mine, theirs, strict=True)]
    return [matrix.copy() for matrix in mine or theirs]


def _above_coarse(hierarchy: Hierarchy, depth: int) -> Matrix:
    """(C,) int64: the id on `levels[depth]`, 1 or more, of each coarse class."""
    table = np.zeros(hierarchy.n_coarse, dtype=np.int64)
    table[hierarchy.parent] = hierarchy.ancestors(depth)
    return table


@dataclass(frozen=True)
class Scores:
    """Scores of one level. Arrays are (K,) float64, nan where undefined; `pixels` counts true pixels per class."""

    level: Level
    absent: Absent
    iou: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    precision: NDArray[np.float64]
    pixels: Matrix
    predicted: Matrix
    pixel_accuracy: float

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that are not absent; nan when all are."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        return _mean(self.accuracy)

    @property
    def frequency_weighted_iou(self) -> float:
        total = int(self.pixels.sum())
        return float(np.nansum(self.iou * self.pixels) / total) if total else float("nan")

    @property
    def averaged(self) -> list[str]:
        """Names of the classes in the mean."""
        return [name for name, iou in zip(self.level.names, self.iou, strict=True) if not np.isnan(iou)]

    @property
    def left_out(self) -> list[str]:
        """Names of the classes left out of the mean."""
        return [name for name, iou in zip(self.level.names, self.iou, strict=True) if np.isnan(iou)]

    def without_background(self) -> float:
        """Mean IoU over the classes that are not background."""
        keep = np.array([node.kind != "background" for node in self.level.nodes])
        return _mean(self.iou[keep])


def score(matrix: Matrix, level: Level, absent: Absent = "zero") -> Scores:
    """Scores of a (K, K + 1) matrix whose last column is predicted void."""
    n = len(level)
    assert matrix.shape == (n, n + 1), matrix.shape
    hits = np.diagonal(matrix).astype(np.float64)
    pixels, predicted = matrix.sum(axis=1), matrix[:, :n].sum(axis=0)
    union = pixels + predicted - hits
    present = pixels > 0 if absent == "skip" else union > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = np.where(present, hits / union, np.nan)
        accuracy = np.where(pixels > 0, hits / pixels, np.nan)
        precision = np.where(predicted > 0, hits / predicted, np.nan)
    total = int(matrix.sum())
    pixel_accuracy = float(hits.sum() / total) if total else float("nan")
    return Scores(level, absent, iou, accuracy, precision, pixels, predicted, pixel_accuracy)


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def mistake_severity(confusion: Confusion) -> float:
    """Mean height of the lowest common ancestor over wrongly predicted pixels (Bertinetto et al. 2020).

    Two levels under a root: 1 for a sibling, 2 for another family and for void. nan without mistakes.
    """
    hierarchy = confusion.hierarchy
    n_fine = hierarchy.n_fine
    height = np.full((n_fine, n_fine + 1), len(hierarchy.levels), dtype=np.int64)
    for depth in range(len(hierarchy.levels) - 1, -1, -1):
        family = hierarchy.ancestors(depth)
        height[:, :n_fine][family[:, None] == family[None, :]] = depth
    leaf = confusion.counts[:n_fine]
    wrong = int(leaf[height > 0].sum())
    return float((leaf * height).sum() / wrong) if wrong else float("nan")


def summarize(confusion: Confusion, absent: Absent = "zero") -> dict[str, Any]:
    """Everything `eval` reports, as plain values for JSON: levels, classes, means, and what they average.

    With the protocol `own` there are also, for each level above fine, its scores under `merged`, and the consistency.
    Mistake severity is that of whole fine maps only: a class withheld is no mistake.
    """
    levels, merged, consistency = {}, {}, {}
    for depth, level in enumerate(confusion.hierarchy.levels):
        folded = _level_summary(score(confusion.matrix(depth), level, absent), confusion, depth)
        levels[level.name] = folded
        if confusion.own and depth:
            levels[level.name] = _level_summary(score(confusion.own_matrix(depth), level, absent), confusion, depth)
            merged[level.name] = folded
            consistency[level.name] = none_if_nan(confusion.consistency(depth))
    severity = None if confusion.withholds else none_if_nan(mistake_severity(confusion))
    common = {
        "protocol": "own" if confusion.own else "merged", "absent_rule": absent, "scale": "single",
        "images": confusion.n_images, "levels": levels, "mistake_severity": severity,
    }  # fmt: skip
    return {**common, "merged": merged, "consistency": consistency} if confusion.own else common


def _level_summary(scores: Scores, confusion: Confusion, depth: int) -> dict[str, Any]:
    below = [node.parent for node in confusion.hierarchy.levels[depth - 1].nodes] if depth else []
    single_child = sum(below.count(node.name) == 1 for node in scores.level.nodes)
    return {
        "miou": none_if_nan(scores.miou), "classes_averaged": len(scores.averaged), "left_out": scores.left_out,
        "miou_without_background": none_if_nan(scores.without_background()),
        "mean_accuracy": none_if_nan(scores.mean_accuracy), "pixel_accuracy": none_if_nan(scores.pixel_accuracy),
        "frequency_weighted_iou": none_if_nan(scores.frequency_weighted_iou), "single_child_classes": single_child,
        "classes": [
            {"id": node.id, "name": node.name, "iou": none_if_nan(scores.iou[node.id]),
             "accuracy": none_if_nan(scores.accuracy[node.id]), "precision": none_if_nan(scores.precision[node.id]),
             "pixels": int(scores.pixels[node.id]), "predicted": int(scores.predicted[node.id])}
            for node in scores.level.nodes
        ],
    }  # fmt: skip


class BackOffCurve:
    """What back-off says over its thresholds, and how often it is right, over the pixels with a true fine class.

    `reached` (L, T + 1) and `right` (L, 2, T + 1), int64, count pixels by how many thresholds they reach: for each level
    all of them by their probability on it; those where the class on it is right by that probability, and by the one on
    the level below.
    """

    def __init__(self, hierarchy: Hierarchy, thresholds: Sequence[float]) -> None:
        self.hierarchy, self.thresholds = hierarchy, sorted(thresholds)
        self.reached: Matrix = np.zeros((len(hierarchy.levels), len(thresholds) + 1), dtype=np.int64)
        self.right: Matrix = np.zeros((len(hierarchy.levels), 2, len(thresholds) + 1), dtype=np.int64)

    def add(self, truth: TwoLevelMap, ids: Sequence[LabelArray], probabilities: Sequence[NDArray[np.float32]]) -> None:
        """Count one image.

        Args:
            ids: the best leaf and its ancestors, one (H, W) map a level, without void.
            probabilities: theirs, (H, W), never falling upwards.
        """
        known = valid_pixels(truth.fine)
        fine, limits, bins = truth.fine[known], np.array(self.thresholds, dtype=np.float32), len(self.thresholds) + 1
        below = np.zeros(fine.shape, dtype=np.int64)
        for depth, (labels, probability) in enumerate(zip(ids, probabilities, strict=True)):
            reached = np.searchsorted(limits, probability[known], side="right")
            right = self.hierarchy.ancestors(depth)[fine] == labels[known]
            self.reached[depth] += np.bincount(reached, minlength=bins)
            self.right[depth, 0] += np.bincount(reached[right], minlength=bins)
            self.right[depth, 1] += np.bincount(below[right], minlength=bins)
            below = reached

    def points(self) -> list[dict[str, Any]]:
        """For each threshold, lowest first: `accuracy` of what is said at the level it is said at, `coverage` (the share
        of pixels where anything is), `mean_depth` below the root (void 0), and share and accuracy of each level."""
        return [self._point(position) for position in range(len(self.thresholds))]

    def _point(self, position: int) -> dict[str, Any]:
        reached = self.reached[:, position + 1 :].sum(axis=-1)
        right = self.right[:, :, position + 1 :].sum(axis=-1)
        said = np.diff(reached, prepend=0)  # a pixel speaks on the first level that reaches the threshold
        right_said = right[:, 0] - right[:, 1]
        total, depths = int(self.reached[0].sum()), np.arange(len(said), 0, -1)
        return {
            "threshold": self.thresholds[position], "accuracy": _share(right_said.sum(), said.sum()),
            "coverage": _share(said.sum(), total), "mean_depth": _share((said * depths).sum(), total),
            "levels": {
                level.name: {"share": _share(n, total), "accuracy": _share(hits, n)}
                for level, n, hits in zip(self.hierarchy.levels, said, right_said, strict=True)
            },
        }  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return int(part) / int(whole) if whole else None


def none_if_nan(value: float) -> float | None:
    """JSON has no nan."""
    return None if np.isnan(value) else float(value)
