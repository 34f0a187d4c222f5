"""Panoptic quality (Kirillov et al. 2019): segments of one class match where their IoU is above one half.

    PQ = sum of IoU over matches / (TP + FP / 2 + FN / 2) = SQ * RQ

Void pixels of the truth leave the union. A predicted segment more than half on void, or on a crowd of its class, is no false
positive; crowds match nothing and are missed by nobody. All decisions are made on whole pixel counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Level
from hiposeg_cli.labelmap import ranked
from hiposeg_cli.metrics.scores import foreground
from hiposeg_cli.metrics.values import Matrix, Values, mean_of_defined, none_if_nan, ratio


@dataclass(frozen=True)
class Segments:
    """The segments of one image.

    Attributes:
        numbers: (H, W) integer number of the segment of each pixel; 0 is void.
        classes: number -> class id on one level.
        crowd: numbers of the segments that are groups, in a truth only.
    """

    numbers: NDArray[Any]
    classes: Mapping[int, int]
    crowd: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Matches:
    """How the segments of one image fit.

    `pairs` (M, 2) int64 are the numbers of a true and a predicted segment, `shared` and `union` (M,) int64 their pixels;
    `false_positives` and `misses` int64 are numbers of segments.
    """

    pairs: Matrix
    shared: Matrix
    union: Matrix
    false_positives: Matrix
    misses: Matrix


def match(truth: Segments, predicted: Segments, where: object) -> Matches:
    """Match the segments of one image. Raises DataError when sizes differ or a segment has no class."""
    if truth.numbers.shape != predicted.numbers.shape:
        raise DataError(
            where, f"prediction is {predicted.numbers.shape}, truth is {truth.numbers.shape}", "predict at the original size"
        )
    true, true_place = ranked(np.append(truth.numbers, 0))
    said, said_place = ranked(np.append(predicted.numbers, 0))
    shape = (len(true), len(said))
    table = np.bincount(true_place[:-1] * shape[1] + said_place[:-1], minlength=shape[0] * shape[1]).reshape(shape)
    areas = table.sum(axis=1), table.sum(axis=0)
    true_class, said_class = _classes(true, truth, where), _classes(said, predicted, where)
    crowd = np.isin(true, list(truth.crowd))
    same = (true_class[:, None] == said_class) & (true_class[:, None] >= 0)
    union = areas[0][:, None] + areas[1] - table - table[true == 0]
    row, column = np.nonzero(same & ~crowd[:, None] & (2 * table > union))
    excused = table[true == 0].sum(axis=0) + (table * (same & crowd[:, None])).sum(axis=0)
    wrong = (said != 0) & (2 * excused <= areas[1])
    wrong[column] = False
    missed = (true != 0) & ~crowd
    missed[row] = False
    return Matches(
        np.stack([true[row], said[column]], axis=1), table[row, column], union[row, column],
        said[wrong], true[missed],
    )  # fmt: skip


def _classes(numbers: NDArray[Any], segments: Segments, where: object) -> Matrix:
    """(N,) class of each segment, -1 for void."""
    unknown = [int(number) for number in numbers if number != 0 and int(number) not in segments.classes]
    if unknown:
        raise DataError(where, f"segment {unknown[0]} has no class", "give every segment of the map a class, and 0 to void")
    return np.array([segments.classes[int(number)] if number != 0 else -1 for number in numbers], dtype=np.int64)


@dataclass(frozen=True)
class Quality:
    """PQ, SQ and RQ of each class, (K,) float64; nan for a class without any segment. SQ is 0 without matches."""

    pq: Values
    sq: Values
    rq: Values

    def means(self, chosen: NDArray[np.bool_]) -> dict[str, float | int | None]:
        """Their means over some classes, and over how many."""
        names = {"pq": self.pq, "sq": self.sq, "rq": self.rq}
        means: dict[str, float | int | None] = {
            name: none_if_nan(mean_of_defined(values[chosen])) for name, values in names.items()
        }
        return means | {"classes": int((~np.isnan(self.pq[chosen])).sum())}


class PanopticQuality:
    """Counts of segments of one level: `counts` (3, K) int64 are TP, FP and FN.

    Args:
        things: (K,) bool, classes whose objects are told apart; None goes by their `kind`.
    """

    def __init__(self, level: Level, things: NDArray[np.bool_] | None = None) -> None:
        self.level = level
        by_kind = np.array([node.kind == "thing" for node in level.nodes], dtype=np.bool_)
        self.things: NDArray[np.bool_] = by_kind if things is None else things
        self.counts: Matrix = np.zeros((3, len(level)), dtype=np.int64)
        self.credits: list[list[float]] = [[] for _ in level.nodes]  # IoU of each match

    def add(self, truth: Segments, predicted: Segments, where: object = "prediction") -> None:
        """Count one image, with classes of this level. Raises DataError as `match` does."""
        matches = match(truth, predicted, where)
        self.tally(matches, truth, predicted, list(matches.shared / matches.union))

    def tally(self, matches: Matches, truth: Segments, predicted: Segments, credits: list[float]) -> None:
        """Count what was matched; each match brings its credit to the sum of IoU."""
        for (number, _said), value in zip(matches.pairs.tolist(), credits, strict=True):
            self.counts[0, truth.classes[number]] += 1
            self.credits[truth.classes[number]].append(float(value))
        for number in matches.false_positives.tolist():
            self.counts[1, predicted.classes[number]] += 1
        for number in matches.misses.tolist():
            self.counts[2, truth.classes[number]] += 1

    def merge(self, other: PanopticQuality) -> None:
        """Add another process's counts."""
        self.counts += other.counts
        for mine, theirs in zip(self.credits, other.credits, strict=True):
            mine += theirs

    def quality(self) -> Quality:
        """PQ, SQ and RQ. Sums are rounded once, so the order of images does not matter."""
        hits, wrong, missed = self.counts
        sums = np.array([math.fsum(values) for values in self.credits])
        size = hits + wrong / 2 + missed / 2
        sq = np.where(size > 0, sums / np.maximum(hits, 1), np.nan)
        return Quality(ratio(sums, size), sq, ratio(hits, size))

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """Classes averaged over: all, things, stuff; background, which panoptic sets have none of, in no mean."""
        scored = foreground(self.level)
        return {"all": scored, "things": scored & self.things, "stuff": scored & ~self.things}

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        quality = self.quality()
        classes = [
            {"name": node.name, "pq": none_if_nan(quality.pq[node.id]), "sq": none_if_nan(quality.sq[node.id]),
             "rq": none_if_nan(quality.rq[node.id]), "tp": int(self.counts[0, node.id]),
             "fp": int(self.counts[1, node.id]), "fn": int(self.counts[2, node.id])}
            for node in self.level.nodes
        ]  # fmt: skip
        return {name: quality.means(chosen) for name, chosen in self.groups().items()} | {"classes": classes}
