"""Everything `eval` reports from a confusion, as plain values for JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hiposeg_cli.metrics.confusion import Confusion
from hiposeg_cli.metrics.protocols import PROTOCOLS, Protocol
from hiposeg_cli.metrics.scores import Absent, Scores, branching_miou, n_leaves, object_average
from hiposeg_cli.metrics.tree import cousin_miou, sibling_miou, tree_errors
from hiposeg_cli.metrics.values import mean_of_defined, none_if_nan, ratio


def summarize(confusion: Confusion, rules: Absent | Protocol = "zero") -> dict[str, Any]:
    """Levels, classes and means, and what they average.

    Where predictions have their own maps there are also, for each level above fine, its scores under `merged`, and the
    consistency. Errors on the tree are those of whole fine maps only: a class withheld is no mistake.

    Args:
        rules: a protocol, or the rule for absent classes with the defaults otherwise.
    """
    protocol = replace(PROTOCOLS["hiposeg"], absent=rules) if isinstance(rules, str) else rules
    levels, merged, consistency = {}, {}, {}
    for depth, level in enumerate(confusion.hierarchy.levels):
        folded = _level_summary(protocol.scores(confusion, depth), confusion, depth, protocol)
        levels[level.name] = folded
        if confusion.own and depth:
            levels[level.name] = _level_summary(protocol.own_scores(confusion, depth), confusion, depth, protocol)
            merged[level.name] = folded
            consistency[level.name] = none_if_nan(confusion.consistency(depth))
    tree = None if confusion.withholds else _tree_summary(confusion)
    common = {
        "protocol": "own" if confusion.own else "merged", "rules": protocol.name, "absent_rule": protocol.absent,
        "coarse_pixels": protocol.coarse_pixels, "uncovered": protocol.uncovered, "scale": "single",
        "images": confusion.n_images, "ignored_share": none_if_nan(ignored_share(confusion)), "levels": levels,
        "mistake_severity": tree and tree["severity"], "tree": tree,
    }  # fmt: skip
    return {**common, "merged": merged, "consistency": consistency} if confusion.own else common


def ignored_share(confusion: Confusion) -> float:
    """Share of pixels without a true class. Above 0.2 an ignore id may be a background whose false positives vanish."""
    return float(ratio(confusion.ignored, confusion.ignored + confusion.counts.sum()))


def _tree_summary(confusion: Confusion) -> dict[str, float | None]:
    families = {"sibling_miou": sibling_miou(confusion), "cousin_miou": cousin_miou(confusion)}
    return tree_errors(confusion).summary() | {name: none_if_nan(value) for name, value in families.items()}


def _level_summary(scores: Scores, confusion: Confusion, depth: int, protocol: Protocol) -> dict[str, Any]:
    hierarchy = confusion.hierarchy
    averaged = protocol.averaged(scores)
    summary = {
        "miou": none_if_nan(mean_of_defined(averaged)), "classes_averaged": int((~np.isnan(averaged)).sum()),
        "left_out": [node.name for node in scores.level.nodes if np.isnan(averaged[node.id])],
        "miou_without_background": none_if_nan(scores.without_background()),
        "mean_accuracy": none_if_nan(scores.mean_accuracy), "pixel_accuracy": none_if_nan(scores.pixel_accuracy),
        "mean_dice": none_if_nan(scores.mean_dice), "frequency_weighted_iou": none_if_nan(scores.frequency_weighted_iou),
        "classes": _classes(scores),
    }  # fmt: skip
    if depth:
        summary["single_leaf_classes"] = int((n_leaves(hierarchy, depth) == 1).sum())
        summary["miou_of_classes_with_several_leaves"] = none_if_nan(branching_miou(scores, hierarchy, depth))
    elif protocol.object_average:
        summary["miou_avg"] = none_if_nan(object_average(scores.iou, hierarchy.parent))
    return summary


def _classes(scores: Scores) -> list[dict[str, Any]]:
    return [
        {"id": node.id, "name": node.name, "iou": none_if_nan(scores.iou[node.id]),
         "accuracy": none_if_nan(scores.accuracy[node.id]), "precision": none_if_nan(scores.precision[node.id]),
         "dice": none_if_nan(scores.dice[node.id]),
         "pixels": int(scores.pixels[node.id]), "predicted": int(scores.predicted[node.id])}
        for node in scores.level.nodes
    ]  # fmt: skip
