"""Counts of every image and class: scores per image, and what a mean over images needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.metrics.confusion import Confusion, class_counts
from hiposeg_cli.metrics.protocols import Protocol
from hiposeg_cli.metrics.scores import iou_of, object_average
from hiposeg_cli.metrics.values import Matrix, Values, mean_of_defined, none_if_nan, ratio


@dataclass(frozen=True)
class Entries:
    """One level of all images, only what is not 0, sorted by image and class.

    `image` (N,) int64 numbers the sorted keys, `label` (N,) int64 is the class, `counts` (3, N) int64 TP, FP and FN.
    """

    image: Matrix
    label: Matrix
    counts: Matrix


class ImageCounts:
    """TP, FP and FN of each image, level and class, kept only where a class occurs in truth or prediction."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self._images: dict[str, list[tuple[NDArray[np.uint16], Matrix]]] = {}

    def add(self, key: str, counts: Sequence[Matrix]) -> None:
        """Keep one image: (3, K) int64 TP, FP and FN for each level, such as those of `image_counts`."""
        assert key not in self._images, f"{key} twice"
        assert [level.shape[1] for level in counts] == [len(level) for level in self.hierarchy.levels]
        kept = []
        for level in counts:
            labels = np.flatnonzero(level.any(axis=0))
            kept.append((labels.astype(np.uint16), level[:, labels]))
        self._images[key] = kept

    def merge(self, other: ImageCounts) -> None:
        """Add another process's images."""
        assert not self._images.keys() & other._images.keys(), "an image twice"
        self._images |= other._images

    @property
    def keys(self) -> list[str]:
        """Names of the images, sorted: nothing depends on the order they came in."""
        return sorted(self._images)

    def entries(self, depth: int) -> Entries:
        """All images of one level."""
        images = [self._images[key][depth] for key in self.keys]
        sizes = [len(labels) for labels, _counts in images]
        return Entries(
            np.repeat(np.arange(len(images), dtype=np.int64), sizes),
            np.concatenate([np.zeros(0, np.int64), *(labels for labels, _counts in images)]).astype(np.int64),
            np.concatenate([np.zeros((3, 0), np.int64), *(counts for _labels, counts in images)], axis=1),
        )

    def total(self, depth: int) -> Matrix:
        """(3, K) int64: TP, FP and FN over all images."""
        entries, n = self.entries(depth), len(self.hierarchy.levels[depth])
        total = np.zeros((n, 3), dtype=np.int64)
        np.add.at(total, entries.label, entries.counts.T)
        return total.T

    def square_ious(self, depth: int) -> Values:
        """(K,) for each class the mean, over the images whose truth holds it, of the IoU in the image (FLOAT, OLAF).

        A false positive in an image without the class costs nothing, so this replaces no mIoU. nan for a class in no truth.
        """
        entries, n = self.entries(depth), len(self.hierarchy.levels[depth])
        true = entries.counts[0] + entries.counts[2] > 0
        labels = entries.label[true]
        sums = np.bincount(labels, weights=iou_of(entries.counts[:, true]), minlength=n)
        return ratio(sums, self.n_images(depth))

    def n_images(self, depth: int) -> Matrix:
        """(K,) int64: the images whose truth holds each class."""
        entries, n = self.entries(depth), len(self.hierarchy.levels[depth])
        true = entries.counts[0] + entries.counts[2] > 0
        return np.bincount(entries.label[true], minlength=n).astype(np.int64)

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON, by level: sqIoU and images of every class; on the finest sqIoU.Avg over objects."""
        levels: dict[str, dict[str, Any]] = {}
        for depth, level in enumerate(self.hierarchy.levels):
            square, n_images = self.square_ious(depth), self.n_images(depth)
            levels[level.name] = {
                "sqiou": none_if_nan(mean_of_defined(square)),
                "classes": [
                    {"name": node.name, "sqiou": none_if_nan(square[node.id]), "images": int(n_images[node.id])}
                    for node in level.nodes
                ],
            }
        average = object_average(self.square_ious(0), self.hierarchy.parent)
        levels[self.hierarchy.fine.name]["sqiou_avg"] = none_if_nan(average)
        return levels


def image_counts(confusion: Confusion, protocol: Protocol) -> list[Matrix]:
    """(3, K) int64 TP, FP and FN for each level as the protocol scores it, from own maps where there are any."""
    first = confusion.matrix(0, protocol.coarse_pixels, protocol.uncovered)
    above = [
        confusion.own_matrix(depth) if confusion.own else confusion.matrix(depth, protocol.coarse_pixels, protocol.uncovered)
        for depth in range(1, len(confusion.hierarchy.levels))
    ]
    return [class_counts(matrix) for matrix in (first, *above)]
