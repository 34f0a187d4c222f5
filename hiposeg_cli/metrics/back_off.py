"""Back-off: what is said over its thresholds, and how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, valid_pixels
from hiposeg_cli.metrics.values import Matrix


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

    def merge(self, other: BackOffCurve) -> None:
        """Add another process's counts, of the same thresholds."""
        assert self.thresholds == other.thresholds
        self.reached += other.reached
        self.right += other.right

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
