"""Boundary IoU of every class and level (Cheng et al. 2021): IoU of the bands along the contours only.

The band of a class holds its pixels within d pixels, in rows and in columns, of a pixel of another class or of the outside
of the image: the mask less its erosion by a box of 2 d + 1 pixels. All classes of a map have theirs at once, since a pixel
is in the band of its class exactly where the box around it is not uniform. Pixels whose truth is ignored neither make a
contour of the truth nor count in any band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, label_dtype, valid_pixels
from hiposeg_cli.metrics.confusion import above_coarse, class_counts
from hiposeg_cli.metrics.cross_table import cross_table
from hiposeg_cli.metrics.images import ImageCounts
from hiposeg_cli.metrics.scores import iou_of
from hiposeg_cli.metrics.values import Matrix, mean_of_defined, none_if_nan

RATIO = 0.02  # of the image's diagonal; Cityscapes takes 0.005


def boundary_counts(
    hierarchy: Hierarchy, truth: TwoLevelMap, predicted_fine: LabelArray, above: Sequence[LabelArray] = (),
    ratio: float = RATIO,
) -> list[Matrix]:  # fmt: skip
    """(3, K) int64 TP, FP and FN of the bands on each level of one image, for an `ImageCounts`.

    Its `total` gives Boundary IoU with intersections and unions summed over the set, `square_ious` the mean over images.

    Args:
        above: the prediction's own maps of the levels above; none where they are the parents.
    """
    distance = band_px(truth.shape, ratio)
    result = []
    for depth, level in enumerate(hierarchy.levels):
        true = truth.fine if depth == 0 else _looked_up(truth.coarse, above_coarse(hierarchy, depth), len(level))
        own = bool(above) and depth > 0
        said = above[depth - 1] if own else _looked_up(predicted_fine, hierarchy.ancestors(depth), len(level))
        ignored = ~valid_pixels(true)
        true_band, said_band = band(true, distance, transparent=True), band(said, distance)
        said_band[ignored] = ignore_value(said.dtype)
        table = cross_table(true_band, said_band, len(level), len(level))
        result.append(_band_counts(table))
    return result


def boundary_summary(counted: ImageCounts) -> dict[str, Any]:
    """Plain values for JSON from the bands of a set: by level the mean over classes, and each class's two forms."""
    result = {}
    for depth, level in enumerate(counted.hierarchy.levels):
        over_set, over_images = iou_of(counted.total(depth)), counted.square_ious(depth)
        result[level.name] = {
            "boundary_iou": none_if_nan(mean_of_defined(over_set)),
            "boundary_iou_mean_over_images": none_if_nan(mean_of_defined(over_images)),
            "classes": [
                {"name": node.name, "boundary_iou": none_if_nan(over_set[node.id]),
                 "boundary_iou_mean_over_images": none_if_nan(over_images[node.id])}
                for node in level.nodes
            ],
        }  # fmt: skip
    return result


def band_px(shape: tuple[int, int], ratio: float = RATIO) -> int:
    """Width of the bands in pixels: a share of the image's diagonal, at least 1."""
    return max(1, round(ratio * math.hypot(*shape)))


def band(labels: LabelArray, distance: int, *, transparent: bool = False) -> LabelArray:
    """(H, W) the ids in their bands, ignore elsewhere.

    Args:
        transparent: ignored pixels make no contour.
    """
    ignore, (height, width) = ignore_value(labels.dtype), labels.shape
    result = labels.copy()
    if min(height, width) > 2 * distance:
        lowest = _extreme(labels, distance, np.minimum)  # ignore is the largest value, so it never is the lowest here
        seen = np.where(labels == ignore, 0, labels) if transparent else labels
        highest = _extreme(seen, distance, np.maximum)
        inside = (slice(distance, height - distance), slice(distance, width - distance))
        result[inside][(lowest == labels[inside]) & (highest == labels[inside])] = ignore
    return result


def _extreme(labels: LabelArray, distance: int, choose: np.ufunc) -> LabelArray:
    """(H - 2 d, W - 2 d) the lowest or highest id of the box around each pixel, by doubling the span of each axis."""
    size = 2 * distance + 1
    for axis in (0, 1):
        moved = np.swapaxes(labels, 0, axis)
        span = 1
        while span < size:
            step = min(span, size - span)
            moved = choose(moved[:-step], moved[step:])
            span += step
        labels = np.swapaxes(moved, 0, axis)
    return labels


def _looked_up(labels: LabelArray, table: Matrix, n_classes: int) -> LabelArray:
    """The ids through a table; ignore stays ignore."""
    dtype = label_dtype(n_classes)
    full = np.full(ignore_value(labels.dtype) + 1, ignore_value(dtype), dtype=dtype)
    full[: len(table)] = table
    result: NDArray[np.uint8] | NDArray[np.uint16] = full[labels]
    return result


def _band_counts(table: Matrix) -> Matrix:
    """(3, K) TP, FP and FN of two bands; a pixel in neither, or in the other's alone, is in place 0 of its axis."""
    assert not table[-1].any()
    assert not table[:, -1].any()
    square = np.roll(table[1:-1, :-1], -1, axis=1)
    counts = class_counts(square)
    counts[1] += table[0, 1:-1]
    return counts
