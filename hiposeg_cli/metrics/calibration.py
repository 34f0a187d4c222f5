"""Whether probabilities mean what they say, on every level: expected calibration error and its class-wise form.

Bins have equal width: 20, [0, 0.05) to [0.95, 1]. Probabilities are summed as whole multiples of 2^-24, which is what
float32 resolves below 1: sums are exact, whatever the order.

    ECE   = sum_b (n_b / n) |accuracy_b - confidence_b|                              (Guo et al. 2017)
    cwECE = mean_c sum_b (n_cb / n) |share of pixels in b that are c - mean p_c in b|  (Kull et al. 2019)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, valid_pixels
from hiposeg_cli.metrics.confusion import above_coarse
from hiposeg_cli.metrics.values import Matrix, mean_of_defined, none_if_nan, ratio

BINS = 20
_UNITS = 1 << 24
Probabilities = NDArray[np.float32]


class Reliability:
    """How often the most probable class is right, by its probability.

    `counts` (L, 3, BINS) int64: for each level and bin, pixels, right ones, and the sum of their probabilities in 2^-24.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.counts: Matrix = np.zeros((len(hierarchy.levels), 3, BINS), dtype=np.int64)

    def add(self, truth: TwoLevelMap, ids: Sequence[LabelArray], confidences: Sequence[Probabilities]) -> None:
        """Count one image: for each level the (H, W) most probable class and its probability."""
        for depth, (labels, confidence) in enumerate(zip(ids, confidences, strict=True)):
            valid, true = _true_classes(self.hierarchy, truth, depth)
            self.counts[depth] += _binned(confidence[valid], labels[valid] == true)

    def merge(self, other: Reliability) -> None:
        """Add another process's counts."""
        self.counts += other.counts

    def error(self, depth: int) -> float:
        """ECE of a level; nan without pixels."""
        return float(_errors(self.counts[depth]))

    def diagram(self, depth: int) -> list[dict[str, float | int | None]]:
        """The reliability diagram of a level: for each bin its pixels, accuracy and mean confidence."""
        pixels, right, confidence = self.counts[depth]
        accuracy, mean = ratio(right, pixels), ratio(confidence / _UNITS, pixels)
        return [
            {"low": b / BINS, "high": (b + 1) / BINS, "pixels": int(pixels[b]), "accuracy": none_if_nan(accuracy[b]),
             "confidence": none_if_nan(mean[b])}
            for b in range(BINS)
        ]  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON, by level."""
        names = [level.name for level in self.hierarchy.levels]
        return {
            name: {"ece": none_if_nan(self.error(depth)), "bins": BINS, "diagram": self.diagram(depth)}
            for depth, name in enumerate(names)
        }


class ClassReliability:
    """The same for the probability of every class, whether it is the largest or not.

    `counts` holds for each level a (K, 3, BINS) int64 array as in `Reliability`, right meaning that the class is true.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.counts: list[Matrix] = [np.zeros((len(level), 3, BINS), dtype=np.int64) for level in hierarchy.levels]

    def add(self, truth: TwoLevelMap, probabilities: Sequence[Probabilities]) -> None:
        """Count one image: for each level the (K, H, W) probabilities, such as those of `level_probabilities`."""
        for depth, level in enumerate(probabilities):
            valid, true = _true_classes(self.hierarchy, truth, depth)
            for label, probability in enumerate(level):
                self.counts[depth][label] += _binned(probability[valid], true == label)

    def merge(self, other: ClassReliability) -> None:
        """Add another process's counts."""
        for mine, theirs in zip(self.counts, other.counts, strict=True):
            mine += theirs

    def error(self, depth: int) -> float:
        """cwECE of a level; nan without pixels."""
        return mean_of_defined(_errors(self.counts[depth]))

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON, by level."""
        result = {}
        for depth, level in enumerate(self.hierarchy.levels):
            by_class = [none_if_nan(value) for value in _errors(self.counts[depth])]
            classes = dict(zip(level.names, by_class, strict=True))
            result[level.name] = {"cwece": none_if_nan(self.error(depth)), "bins": BINS, "classes": classes}
        return result


def level_probabilities(hierarchy: Hierarchy, leaf: Probabilities) -> list[Probabilities]:
    """For each level the (K, H, W) float32 probabilities that the (F, H, W) leaf probabilities sum to."""
    result = [leaf]
    for depth, level in enumerate(hierarchy.levels[1:], start=1):
        summed = np.zeros((len(level), *leaf.shape[1:]), dtype=np.float32)
        for fine, label in enumerate(hierarchy.ancestors(depth)):
            summed[label] += leaf[fine]
        result.append(summed)
    return result


def _true_classes(hierarchy: Hierarchy, truth: TwoLevelMap, depth: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """(H, W) bool pixels with a true class on a level, and (N,) these classes."""
    labels = truth.coarse if depth else truth.fine
    valid = valid_pixels(labels)
    return valid, above_coarse(hierarchy, depth)[labels[valid]] if depth else labels[valid]


def _binned(probability: Probabilities, right: NDArray[np.bool_]) -> Matrix:
    """(3, BINS) int64 pixels, right ones and sums of (N,) probabilities. Rounding above 1 goes into the last bin."""
    place = np.clip((probability * np.float32(BINS)).astype(np.int64), 0, BINS - 1)
    units = np.rint(probability.astype(np.float64) * _UNITS)
    summed = np.bincount(place, weights=units, minlength=BINS)
    pixels, hits = np.bincount(place, minlength=BINS), np.bincount(place[right], minlength=BINS)
    return np.stack([pixels, hits, summed.astype(np.int64)])


def _errors(counts: Matrix) -> Any:
    """(...,) float64 calibration error of (..., 3, BINS) counts: sum of |right - confidence| over pixels."""
    pixels, right, confidence = np.moveaxis(counts, -2, 0)
    return ratio(np.abs(right - confidence / _UNITS).sum(axis=-1), pixels.sum(axis=-1))
