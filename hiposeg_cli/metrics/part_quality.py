"""Part-aware panoptic quality, PartPQ (de Geus et al. 2021): objects match as in PQ, and bring the IoU of their parts.

A match of a class with parts counts the mean IoU over the labels that occur: its parts, and the outside of both segments as
one more. Pixels of the object without a true part, void and crowds are not looked at; predicted pixels without a part are
nobody's false positive. A match of a class without parts counts its IoU. A true segment of a class with parts in which no
part is annotated becomes a crowd, and so do true things without a number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, valid_pixels
from hiposeg_cli.metrics.objects import Numbers, has_parts, segments_of, things
from hiposeg_cli.metrics.panoptic import Matches, PanopticQuality, Segments, match
from hiposeg_cli.metrics.values import Matrix, ratio


class PartQuality:
    """Counts of PartPQ: the coarse classes are the objects; `has_parts` (C,) says which have parts."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.has_parts = has_parts(hierarchy)
        self.counts = PanopticQuality(hierarchy.coarse, things(hierarchy, 1))

    def add(
        self, truth: TwoLevelMap, numbers: Numbers, predicted: TwoLevelMap, predicted_numbers: Numbers,
        where: object = "prediction",
    ) -> None:  # fmt: skip
        """Count one image. Numbers of stuff are not looked at. Raises DataError when sizes differ."""
        true = self._with_crowds(segments_of(truth.coarse, numbers, self.counts.things), truth)
        said = segments_of(predicted.coarse, predicted_numbers, self.counts.things)
        matches = match(true, said, where)
        credits = [self._credit(pair, matches, truth, predicted, true, said) for pair in range(len(matches.pairs))]
        self.counts.tally(matches, true, said, credits)

    def merge(self, other: PartQuality) -> None:
        """Add another process's counts."""
        self.counts.merge(other.counts)

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON: means over all classes, those with parts and those without; then by class."""
        quality = self.counts.quality()
        scored = self.counts.groups()["all"]
        groups = {"all": scored, "with_parts": scored & self.has_parts, "without_parts": scored & ~self.has_parts}
        means = {name: quality.means(chosen) for name, chosen in groups.items()}
        return means | {"classes": self.counts.summary()["classes"]}

    def _with_crowds(self, segments: Segments, truth: TwoLevelMap) -> Segments:
        """Mark objects without any true part, too, as crowds."""
        parts = np.bincount(segments.numbers[valid_pixels(truth.fine)], minlength=len(segments.classes) + 1)
        bare = {number for number, label in segments.classes.items() if self.has_parts[label] and not parts[number]}
        return Segments(segments.numbers, segments.classes, segments.crowd | bare)

    def _credit(
        self, pair: int, matches: Matches, truth: TwoLevelMap, predicted: TwoLevelMap, true: Segments, said: Segments
    ) -> float:
        """IoU of one match, of its parts where it has some."""
        number, said_number = matches.pairs[pair].tolist()
        label = true.classes[number]
        if not self.has_parts[label]:
            return int(matches.shared[pair]) / int(matches.union[pair])
        crowd = [other for other in true.crowd if true.classes[other] == label]
        inside, said_inside = true.numbers == number, said.numbers == said_number
        looked_at = valid_pixels(truth.coarse) & ~(inside & ~valid_pixels(truth.fine))
        if crowd:
            looked_at &= ~np.isin(true.numbers, crowd)
        n = int((self.hierarchy.parent == label).sum())
        table = _part_table(
            self._parts(truth.fine, inside, label)[looked_at], self._parts(predicted.fine, said_inside, label)[looked_at], n
        )
        return _mean_iou(table)

    def _parts(self, fine: LabelArray, inside: NDArray[np.bool_], label: int) -> Matrix:
        """(H, W) int64: 0 outside a segment, 1 to n for its parts, n + 1 for pixels without a part of its class."""
        children = self.hierarchy.children(label)
        table = np.full(ignore_value(fine.dtype) + 1, len(children) + 1, dtype=np.int64)
        table[children] = np.arange(1, len(children) + 1)
        result: Matrix = np.where(inside, table[fine], 0)
        return result


def _part_table(true: Matrix, said: Matrix, n_parts: int) -> Matrix:
    """(n + 2, n + 2) int64 pixels of the outside, the parts and the unknown against each other."""
    size = n_parts + 2
    return np.bincount(true * size + said, minlength=size * size).reshape(size, size)


def _mean_iou(table: Matrix) -> float:
    """Mean IoU over the labels that occur, all but the unknown."""
    hits, union = np.diagonal(table), table.sum(axis=0) + table.sum(axis=1) - np.diagonal(table)
    return float(np.nanmean(ratio(hits, union)[:-1]))
