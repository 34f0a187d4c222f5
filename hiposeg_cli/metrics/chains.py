"""Whether predictions of several levels fit together: SeCS and SpCS (SPIN), for predictions with their own maps.

Both are won without being right, SpCS by predicting tiny parts: show them beside mIoU. Agreement is `Confusion.consistency`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, valid_pixels
from hiposeg_cli.metrics.confusion import above_coarse
from hiposeg_cli.metrics.cross_table import cross_table
from hiposeg_cli.metrics.scores import foreground
from hiposeg_cli.metrics.values import Matrix, mean_of_defined, none_if_nan, ratio


class Chains:
    """Counts of predicted chains, from the finest class to the coarsest, over pixels with a true coarse class.

    `pixels` int64 are the foreground ones, all and those whose chain exists in the tree; `joint` holds for each level but
    the last a (K, K_above) int64 matrix of predicted class against predicted class of the level above, void left out, and
    `area` the (K,) int64 pixels of each predicted class.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        sizes = [len(level) for level in hierarchy.levels]
        self.pixels: Matrix = np.zeros(2, dtype=np.int64)
        self.joint: list[Matrix] = [np.zeros(shape, dtype=np.int64) for shape in pairwise(sizes)]
        self.area: list[Matrix] = [np.zeros(size, dtype=np.int64) for size in sizes[:-1]]

    def add(self, truth: TwoLevelMap, predicted: Sequence[LabelArray]) -> None:
        """Count one image: its (H, W) predicted map of every level."""
        valid = valid_pixels(truth.coarse)
        maps = [labels[valid] for labels in predicted]
        fits = np.ones(maps[0].shape, dtype=np.bool_)
        for depth, (labels, above) in enumerate(pairwise(maps)):
            n, n_above = self.joint[depth].shape
            table = cross_table(labels, above, n, n_above)
            self.joint[depth] += table[1:-1, 1:-1]
            self.area[depth] += table[1:-1].sum(axis=1)
            known = valid_pixels(labels)
            parents = self.hierarchy.parents(depth)
            fits[known] &= parents[labels[known]] == above[known]
            fits &= known
        inside = self._foreground(truth.coarse[valid])
        self.pixels += [inside.sum(), (fits & inside).sum()]

    def _foreground(self, coarse: LabelArray) -> Any:
        """(N,) bool: pixels whose true class is no background on any level; SeCS looks at these."""
        keep = foreground(self.hierarchy.coarse)
        for depth in range(2, len(self.hierarchy.levels)):
            keep &= foreground(self.hierarchy.levels[depth])[above_coarse(self.hierarchy, depth)]
        return keep[coarse]

    def merge(self, other: Chains) -> None:
        """Add another process's counts."""
        self.pixels += other.pixels
        for mine, theirs in zip((*self.joint, *self.area), (*other.joint, *other.area), strict=True):
            mine += theirs

    def semantic(self) -> float:
        """SeCS: share of the foreground pixels whose predicted chain exists in the tree; void is in no chain."""
        return float(ratio(self.pixels[1], self.pixels[0]))

    def spatial(self, depth: int) -> float:
        """SpCS: mean over the classes of a level of area(class and its parent) / area(class); unpredicted ones left out."""
        n = len(self.area[depth])
        parents = self.hierarchy.parents(depth)
        return mean_of_defined(ratio(self.joint[depth][np.arange(n), parents], self.area[depth]))

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = [level.name for level in self.hierarchy.levels[:-1]]
        spatial = {name: none_if_nan(self.spatial(depth)) for depth, name in enumerate(names)}
        return {"secs": none_if_nan(self.semantic()), "spcs": spatial}
