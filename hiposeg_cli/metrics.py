"""Evaluation on every level from one integer matrix over the whole set (never averaged over images or batches).

Protocol `merged`: the coarse result is the fine prediction folded up the tree. Definitions: IoU_c = TP / (TP + FP + FN);
pixels whose truth is ignore are dropped; predicted void on a valid pixel is a miss and nobody's false positive
(Cityscapes); a class in neither truth nor prediction is absent (nan) and left out of the mean; a class predicted but not
in the truth scores 0 (`zero`, Cityscapes) or is left out (`skip`, COCO-Stuff).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, valid_pixels

Matrix = NDArray[np.int64]
Absent = Literal["zero", "skip"]
PROTOCOL = "merged"


class Confusion:
    """Pixel counts of truth against prediction over a set.

    `counts` is (F + C, F + 1) int64: rows are the true fine class or, for pixels labelled on the coarse level only, the
    true coarse class; columns the predicted fine class, the last one void.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.n_images = 0
        self.counts: Matrix = np.zeros((hierarchy.n_fine + hierarchy.n_coarse, hierarchy.n_fine + 1), dtype=np.int64)

    def add(self, truth: TwoLevelMap, predicted_fine: LabelArray, where: object = "prediction") -> None:
        """Count one image.

        Args:
            predicted_fine: (H, W) fine ids; the ignore value of its type is void.
        Raises: DataError when sizes differ or a predicted id is unknown.
        """
        n_fine = self.hierarchy.n_fine
        if predicted_fine.shape != truth.shape:
            raise DataError(
                where, f"prediction is {predicted_fine.shape}, truth is {truth.shape}", "predict at the original size"
            )
        void = predicted_fine == ignore_value(predicted_fine.dtype)
        unknown = predicted_fine[~void & (predicted_fine >= n_fine)]
        if unknown.size:
            raise DataError(
                where, f"predicted id {int(unknown[0])} on {unknown.size} pixels; the hierarchy has {n_fine} fine classes",
                "predict with the same hierarchy",
            )  # fmt: skip
        coarse_valid = valid_pixels(truth.coarse)
        rows = np.where(valid_pixels(truth.fine), truth.fine, truth.coarse.astype(np.int64) + n_fine)
        columns = np.where(void, n_fine, predicted_fine).astype(np.int64)
        index = rows[coarse_valid].astype(np.int64) * (n_fine + 1) + columns[coarse_valid]
        self.counts += np.bincount(index, minlength=self.counts.size).reshape(self.counts.shape)
        self.n_images += 1

    def merge(self, other: Confusion) -> None:
        """Add another process's counts."""
        self.counts += other.counts
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
    """Everything `eval` reports, as plain values for JSON: levels, classes, means, and what they average."""
    levels = {}
    for depth, level in enumerate(confusion.hierarchy.levels):
        levels[level.name] = _level_summary(score(confusion.matrix(depth), level, absent), confusion, depth)
    return {
        "protocol": PROTOCOL, "absent_rule": absent, "scale": "single", "images": confusion.n_images,
        "levels": levels, "mistake_severity": none_if_nan(mistake_severity(confusion)),
    }  # fmt: skip


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


def none_if_nan(value: float) -> float | None:
    """JSON has no nan."""
    return None if np.isnan(value) else float(value)
