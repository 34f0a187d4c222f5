"""PQ of every level, and PartPQ where objects have parts, from label maps with object numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, on_every_level
from hiposeg_cli.metrics.objects import Numbers, has_parts, segments_of, things
from hiposeg_cli.metrics.panoptic import PanopticQuality
from hiposeg_cli.metrics.part_quality import PartQuality


class Objects:
    """Counts of segments; `parts` is None where no object has parts.

    `unnumbered` counts the images with predicted things without a number, which are one object a class.
    """

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self.levels = [PanopticQuality(level, things(hierarchy, depth)) for depth, level in enumerate(hierarchy.levels)]
        self.parts = PartQuality(hierarchy) if has_parts(hierarchy).any() else None
        self.unnumbered = 0

    def add(
        self, truth: TwoLevelMap, numbers: Numbers, predicted: Sequence[LabelArray], predicted_numbers: Numbers,
        where: object,
    ) -> None:  # fmt: skip
        """Count one image; maps of levels above may be left out. Raises DataError when sizes differ."""
        true = on_every_level([truth.fine, truth.coarse], self.hierarchy)
        said = on_every_level(predicted, self.hierarchy)
        segments = [
            segments_of(labels, predicted_numbers, one.things) for one, labels in zip(self.levels, said, strict=True)
        ]
        self.unnumbered += bool(segments[0].crowd)
        for counted, labels, others in zip(self.levels, true, segments, strict=True):
            counted.add(segments_of(labels, numbers, counted.things), others, where)
        if self.parts is not None:
            self.parts.add(truth, numbers, TwoLevelMap(said[0], said[1]), predicted_numbers, where)

    def merge(self, other: Objects) -> None:
        """Add another process's counts."""
        for mine, theirs in zip(self.levels, other.levels, strict=True):
            mine.merge(theirs)
        self.unnumbered += other.unnumbered
        if self.parts is not None and other.parts is not None:
            self.parts.merge(other.parts)

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON: `pq` by level, `part_pq` of the coarse one (see `PanopticQuality.summary`), and how many
        images have predicted things without a number."""
        found: dict[str, Any] = {"pq": {one.level.name: _with_total(one.summary(), "pq") for one in self.levels}}
        found["images_with_unnumbered_things"] = self.unnumbered
        if self.parts is not None:
            found["part_pq"] = {self.hierarchy.coarse.name: _with_total(self.parts.summary(), "part_pq")}
        return found


def _with_total(summary: dict[str, Any], name: str) -> dict[str, Any]:
    """The quality over all classes by its own name, too."""
    return {name: summary["all"]["pq"], **summary}
