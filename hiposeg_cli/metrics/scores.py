"""Scores of one level from its confusion matrix, and the means taken over them.

IoU_c = TP / (TP + FP + FN). A class in neither truth nor prediction is absent (nan) and left out of the mean; a class
predicted but not in the truth scores 0 (`zero`, Cityscapes) or is left out (`skip`, COCO-Stuff).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.metrics.confusion import class_counts
from hiposeg_cli.metrics.values import Matrix, Values, mean_of_defined, none_if_nan, ratio

Absent = Literal["zero", "skip"]


@dataclass(frozen=True)
class Scores:
    """Scores of one level. Arrays are (K,) float64, nan where undefined; `pixels` counts true pixels per class.

    `accuracy` of a class is its recall.
    """

    level: Level
    absent: Absent
    iou: Values
    accuracy: Values
    precision: Values
    dice: Values
    pixels: Matrix
    predicted: Matrix
    pixel_accuracy: float

    @property
    def miou(self) -> float:
        """Mean IoU over the classes that are not absent; nan when all are."""
        return mean_of_defined(self.iou)

    @property
    def mean_accuracy(self) -> float:
        return mean_of_defined(self.accuracy)

    @property
    def mean_dice(self) -> float:
        return mean_of_defined(self.dice)

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
        return mean_of_defined(self.iou[foreground(self.level)])


def score(matrix: Matrix, level: Level, absent: Absent = "zero") -> Scores:
    """Scores of a (K, K + 1) matrix whose last column is predicted void."""
    n = len(level)
    assert matrix.shape == (n, n + 1), matrix.shape
    hits, false_positives, misses = class_counts(matrix)
    pixels, predicted = hits + misses, hits + false_positives
    iou, dice = iou_of(class_counts(matrix), absent), ratio(2 * hits, pixels + predicted)
    dice[np.isnan(iou)] = np.nan
    pixel_accuracy = float(ratio(hits.sum(), matrix.sum()))
    return Scores(level, absent, iou, ratio(hits, pixels), ratio(hits, predicted), dice, pixels, predicted, pixel_accuracy)


def iou_of(counts: Matrix, absent: Absent = "zero") -> Values:
    """(..., K) IoU of (..., 3, K) TP, FP and FN; nan for classes that the rule leaves out."""
    hits, false_positives, misses = np.moveaxis(counts, -2, 0)
    iou = ratio(hits, hits + false_positives + misses)
    return np.where(hits + misses > 0, iou, np.nan) if absent == "skip" else iou


def foreground(level: Level) -> NDArray[np.bool_]:
    """(K,) bool: the classes that are not background."""
    return np.array([node.kind != "background" for node in level.nodes], dtype=np.bool_)


def n_leaves(hierarchy: Hierarchy, depth: int) -> Matrix:
    """(K,) int64: the number of fine classes below each class of a level."""
    return np.bincount(hierarchy.ancestors(depth), minlength=len(hierarchy.levels[depth])).astype(np.int64)


def branching_miou(scores: Scores, hierarchy: Hierarchy, depth: int) -> float:
    """Mean IoU over the classes with two or more leaves: a class with one copies that one's IoU upward."""
    return mean_of_defined(scores.iou[n_leaves(hierarchy, depth) > 1])


def object_average(values: Values, family: Matrix) -> float:
    """Mean over families of the mean over their classes: mIoU.Avg of GMNet and BSANet where values are the parts' IoU.

    Classes that are nan leave their family's mean, families without a defined class the outer one.

    Args:
        values: (F,) score of each fine class.
        family: (F,) the object of each, such as `Hierarchy.parent`.
    """
    defined = ~np.isnan(values)
    n_families = int(family.max(initial=-1)) + 1
    sums = np.bincount(family[defined], weights=values[defined], minlength=n_families)
    return mean_of_defined(ratio(sums, np.bincount(family[defined], minlength=n_families)))


@dataclass(frozen=True)
class ZeroShot:
    """Mean IoU over the classes trained on and over the others."""

    seen: float
    unseen: float

    @property
    def harmonic(self) -> float:
        """Harmonic mean; 0 if both are 0."""
        total = self.seen + self.unseen
        return 2 * self.seen * self.unseen / total if total else 0.0

    def summary(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        values = {"seen": self.seen, "unseen": self.unseen, "harmonic": self.harmonic}
        return {name: none_if_nan(value) for name, value in values.items()}


def zero_shot(iou: Values, unseen: NDArray[np.bool_]) -> ZeroShot:
    """Split the classes of a level by a (K,) bool."""
    return ZeroShot(mean_of_defined(iou[~unseen]), mean_of_defined(iou[unseen]))


def below(hierarchy: Hierarchy, depth: int, names: set[str]) -> NDArray[np.bool_]:
    """(F,) bool: the fine classes below some classes of a level, such as the unseen objects of Pascal-Part-116."""
    named = np.array([name in names for name in hierarchy.levels[depth].names], dtype=np.bool_)
    result: NDArray[np.bool_] = named[hierarchy.ancestors(depth)]
    return result
