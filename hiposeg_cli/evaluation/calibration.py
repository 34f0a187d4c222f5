"""Calibration of every level under both protocols, from the probabilities of the finest classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import TwoLevelMap
from hiposeg_cli.metrics.calibration import ClassReliability, Probabilities, Reliability, level_probabilities


class Calibration:
    """ECE of each level's most probable class (`own`) and of the best leaf's ancestors (`merged`), and class-wise ECE."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.own, self.merged, self.by_class = Reliability(hierarchy), Reliability(hierarchy), ClassReliability(hierarchy)

    def add(self, truth: TwoLevelMap, leaf: Probabilities) -> None:
        """Count one image by its (F, H, W) leaf probabilities."""
        levels = level_probabilities(self.hierarchy, leaf)
        ids = [level.argmax(axis=0).astype(np.uint16) for level in levels]
        best = [self.hierarchy.ancestors(depth)[ids[0]].astype(np.uint16) for depth in range(len(levels))]
        at_best = [np.take_along_axis(level, at[None], axis=0)[0] for level, at in zip(levels, best, strict=True)]
        self.own.add(truth, ids, [level.max(axis=0) for level in levels])
        self.merged.add(truth, best, at_best)
        self.by_class.add(truth, levels)

    def merge(self, other: Calibration) -> None:
        """Add another process's counts."""
        self.own.merge(other.own)
        self.merged.merge(other.merged)
        self.by_class.merge(other.by_class)

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON, by level: `ece` and diagram under both protocols, `cwece`."""
        own, merged, by_class = self.own.summary(), self.merged.summary(), self.by_class.summary()
        return {
            name: {
                "ece": own[name]["ece"], "ece_merged": merged[name]["ece"], "cwece": by_class[name]["cwece"],
                "bins": own[name]["bins"], "diagram": own[name]["diagram"], "diagram_merged": merged[name]["diagram"],
                "cwece_of_classes": by_class[name]["classes"],
            }
            for name in own
        }  # fmt: skip
