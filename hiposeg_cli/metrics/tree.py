"""Errors measured on the tree: how far a wrong class is from the right one.

The tree is the ragged one: an implicit class, the copy that pads a branch down to the finest level, is its parent. Above
the top level stands a root. All measures are of fine maps on pixels with a true fine class.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.metrics.confusion import Confusion, class_counts
from hiposeg_cli.metrics.values import Matrix, Values, mean_of_defined, none_if_nan, ratio


@dataclass(frozen=True)
class TreeErrors:
    """Distance is a mean over all pixels, right ones counting 0; severity one over wrong pixels only.

    `height` is that of the lowest common ancestor (Bertinetto et al. 2020), `path` the number of edges between the two
    classes. The balanced forms are means over the true classes of each one's mean. Predicted void counts as the root: its
    height, and the path to it. hP, hR and hF compare the classes with their ancestors, without the root, as sets, summed
    over pixels. Severity rewards a model for more easy errors: show it beside accuracy.
    """

    distance: float
    severity: float
    balanced_distance: float
    balanced_severity: float
    path_distance: float
    path_severity: float
    precision: float
    recall: float

    @property
    def f_score(self) -> float:
        """hF; nan where precision or recall is, 0 if both are 0."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total != 0 else 0.0

    def summary(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        values = {
            "distance": self.distance, "severity": self.severity, "balanced_distance": self.balanced_distance,
            "balanced_severity": self.balanced_severity, "path_distance": self.path_distance,
            "path_severity": self.path_severity, "h_precision": self.precision, "h_recall": self.recall,
            "h_f_score": self.f_score,
        }  # fmt: skip
        return {name: none_if_nan(value) for name, value in values.items()}


def tree_errors(confusion: Confusion) -> TreeErrors:
    """All of them from the leaf matrix."""
    hierarchy = confusion.hierarchy
    leaf, height, path = confusion.matrix(0), lca_heights(hierarchy), path_lengths(hierarchy)
    wrong = np.where(height > 0, leaf, 0)
    own, shared = depths(hierarchy)[0], lca_depths(hierarchy)
    both = (leaf * shared).sum()
    said, true = (leaf[:, :-1] * own).sum(), (leaf * own[:, None]).sum()
    return TreeErrors(
        distance=_mean(leaf, height), severity=_mean(wrong, height), balanced_distance=_balanced(leaf, height),
        balanced_severity=_balanced(wrong, height), path_distance=_mean(leaf, path), path_severity=_mean(wrong, path),
        precision=float(ratio(both, said)), recall=float(ratio(both, true)),
    )  # fmt: skip


def mistake_severity(confusion: Confusion) -> float:
    """Mean height of the lowest common ancestor over wrongly predicted pixels (Bertinetto et al. 2020).

    Two levels under a root: 1 for a sibling, 2 for another family and for void. nan without mistakes.
    """
    return tree_errors(confusion).severity


def family_iou(confusion: Confusion, depth: int) -> Values:
    """(F,) IoU where a class predicted inside the true one's family counts as right (Atigh et al. 2022).

    The family shares the class of `levels[depth]`: 1 for siblings, 2 for cousins, who include the siblings. The pixels
    leave the false positives of the class that was predicted, so its union shrinks; a class without one is nan.
    """
    leaf, family = confusion.matrix(0), confusion.hierarchy.ancestors(depth)
    moved = np.where(family[:, None] == family, leaf[:, :-1], 0)
    forgiven = leaf.copy()
    forgiven[:, :-1] -= moved
    np.fill_diagonal(forgiven, moved.sum(axis=1))
    counts = class_counts(forgiven)
    return ratio(counts[0], counts.sum(axis=0))


def sibling_miou(confusion: Confusion) -> float:
    """Mean of `family_iou` over siblings; at least the mIoU of the fine level."""
    return mean_of_defined(family_iou(confusion, 1))


def cousin_miou(confusion: Confusion) -> float:
    """The same over cousins. In a tree of two levels, where the grandparent is the root, that over siblings."""
    return mean_of_defined(family_iou(confusion, min(2, len(confusion.hierarchy.levels) - 1)))


def depths(hierarchy: Hierarchy) -> list[Matrix]:
    """For each level, finest first, (K,) int64: edges from the root down to each class."""
    result: list[Matrix] = []
    for depth in range(len(hierarchy.levels) - 1, -1, -1):
        step = np.array([not node.implicit for node in hierarchy.levels[depth].nodes], dtype=np.int64)
        result.insert(0, result[0][hierarchy.parents(depth)] + step if result else step)
    return result


def heights(hierarchy: Hierarchy) -> list[Matrix]:
    """For each level, finest first, (K,) int64: edges on the longest way down from each class."""
    result: list[Matrix] = [np.zeros(hierarchy.n_fine, dtype=np.int64)]
    for depth, (level, above) in enumerate(pairwise(hierarchy.levels)):
        step = np.array([not node.implicit for node in level.nodes], dtype=np.int64)
        height = np.zeros(len(above), dtype=np.int64)
        np.maximum.at(height, hierarchy.parents(depth), result[-1] + step)
        result.append(height)
    return result


def lca_heights(hierarchy: Hierarchy) -> Matrix:
    """(F, F + 1) int64: height of the lowest common ancestor of two fine classes; void, last, meets all at the root."""
    height = heights(hierarchy)
    return _of_lca(hierarchy, height, int(height[-1].max(initial=0)) + 1)


def lca_depths(hierarchy: Hierarchy) -> Matrix:
    """(F, F + 1) int64: the number of ancestors two fine classes share, themselves included, without the root."""
    return _of_lca(hierarchy, depths(hierarchy), 0)


def path_lengths(hierarchy: Hierarchy) -> Matrix:
    """(F, F + 1) int64: edges between two fine classes; to void, last, those to the root."""
    depth = depths(hierarchy)[0]
    apart: Matrix = depth[:, None] + np.append(depth, 0) - 2 * lca_depths(hierarchy)
    return apart


def _of_lca(hierarchy: Hierarchy, values: list[Matrix], at_root: int) -> Matrix:
    """(F, F + 1) int64: the value of the lowest class that is an ancestor of both."""
    result = np.full((hierarchy.n_fine, hierarchy.n_fine + 1), at_root, dtype=np.int64)
    for depth in range(len(hierarchy.levels) - 1, -1, -1):
        family = hierarchy.ancestors(depth)
        result[:, :-1] = np.where(family[:, None] == family, values[depth][family][:, None], result[:, :-1])
    return result


def _mean(pixels: Matrix, cost: Matrix) -> float:
    return float(ratio((pixels * cost).sum(), pixels.sum()))


def _balanced(pixels: Matrix, cost: Matrix) -> float:
    return mean_of_defined(ratio((pixels * cost).sum(axis=1), pixels.sum(axis=1)))
