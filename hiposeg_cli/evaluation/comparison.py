"""Two evaluations on the same images: what differs on every level and class, and whether the choice of images decides it.

Images are drawn again with replacement, the same ones for both, so that an image hard for both says nothing. A difference
of p below 0.05, whose 95 % interval over the draws then leaves out 0, is beyond what images decide. That is a statement
about images; another seed of the training may differ by more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.evaluation.scoring import averaged_counts
from hiposeg_cli.metrics.bootstrap import drawn_ious, interval, row_means
from hiposeg_cli.metrics.images import ImageCounts
from hiposeg_cli.metrics.scores import Absent, iou_of
from hiposeg_cli.metrics.values import Values, none_if_nan

BEYOND, WITHIN, TOO_FEW = "beyond what images decide", "within what images decide", "too few images to tell"
_LEAST_IMAGES = 10  # below it, draws of the images repeat each other
_LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A score of the first evaluation less that of the second, in shares.

    Attributes:
        name: of the class; `mean` for the mIoU of the level.
        first, second: the two scores, None where absent.
        low, high: of the 95 % interval of the difference; None where it is undefined.
        p_value: two-sided: twice the smaller share of draws on one side of 0, (1 + count) / (1 + draws), at most 1.
        verdict: in words; empty where the difference is undefined.
    """

    name: str
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    verdict: str


@dataclass(frozen=True)
class LevelComparison:
    """One level: the difference in mIoU, and that of each class by id."""

    level: str
    mean: Difference
    classes: tuple[Difference, ...]


@dataclass(frozen=True)
class ResultComparison:
    """Two evaluations held against each other.

    Attributes:
        n_images: scored in both.
        left_out: images scored in one of them only.
    """

    n_images: int
    left_out: tuple[str, ...]
    draws: int
    seed: int
    levels: tuple[LevelComparison, ...]

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "images": self.n_images, "left_out": list(self.left_out), "draws": self.draws, "seed": self.seed,
            "levels": {
                level.level: {"mean": vars(level.mean), "classes": [vars(entry) for entry in level.classes]}
                for level in self.levels
            },
        }  # fmt: skip


def compare_results(first: EvalResult, second: EvalResult, *, draws: int = 1000, seed: int = 0) -> ResultComparison:
    """Hold two evaluations against each other on the images scored in both.

    Raises: DataError when there is no such image.
    """
    assert first.protocol == second.protocol
    assert first.hierarchy.digest == second.hierarchy.digest
    shared = sorted(set(first.counts.keys) & set(second.counts.keys))
    if not shared:
        raise DataError("--against", "the two have no scored image in common", "predict the same images with both")
    left_out = tuple(sorted(set(first.counts.keys) ^ set(second.counts.keys)))
    mine, theirs = (averaged_counts(result.counts, result.protocol, shared) for result in (first, second))
    levels = tuple(
        compare_level(mine, theirs, depth, first.protocol.absent, draws, seed)
        for depth in range(len(first.hierarchy.levels))
    )
    return ResultComparison(len(shared), left_out, draws, seed, levels)


def compare_level(
    first: ImageCounts, second: ImageCounts, depth: int, absent: Absent, draws: int, seed: int
) -> LevelComparison:  # fmt: skip
    """Hold the counts of the same images against each other on one level."""
    level, n_images = first.hierarchy.levels[depth], len(first.keys)
    ious = [iou_of(images.total(depth), absent) for images in (first, second)]
    drawn = [drawn_ious(images, depth, seed, absent, draws) for images in (first, second)]
    differences = drawn[0] - drawn[1]
    classes = tuple(
        _difference(node.name, float(ious[0][node.id]), float(ious[1][node.id]), differences[:, node.id], n_images)
        for node in level.nodes
    )
    means, drawn_means = [row_means(iou[None])[0] for iou in ious], [row_means(values) for values in drawn]
    mean = _difference("mean", float(means[0]), float(means[1]), drawn_means[0] - drawn_means[1], n_images)
    return LevelComparison(level.name, mean, classes)


def _difference(name: str, first: float, second: float, draws: Values, n_images: int) -> Difference:
    """One row from its values and the (R,) differences over draws."""
    defined = draws[~np.isnan(draws)]
    value = first - second
    if np.isnan(value) or not defined.size:
        return Difference(name, none_if_nan(first), none_if_nan(second), none_if_nan(value), None, None, None, "")
    sure = interval(value, defined)
    one_side = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2 * (1 + one_side) / (1 + defined.size))
    return Difference(name, first, second, value, sure.low, sure.high, p_value, _verdict(p_value, n_images))


def _verdict(p_value: float, n_images: int) -> str:
    if n_images < _LEAST_IMAGES:
        return TOO_FEW
    return BEYOND if p_value < _LEVEL else WITHIN
