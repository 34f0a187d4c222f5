"""How sure an mIoU is: images drawn again with replacement, and scored again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.metrics.images import Entries, ImageCounts
from hiposeg_cli.metrics.scores import Absent, iou_of
from hiposeg_cli.metrics.values import Matrix, Values, none_if_nan

_REPEATS_AT_ONCE = 64
_IMAGES_AT_ONCE = 1024


@dataclass(frozen=True)
class Interval:
    """An mIoU with its percentile interval over draws of the images."""

    value: float
    low: float
    high: float

    def summary(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        return {"value": none_if_nan(self.value), "low": none_if_nan(self.low), "high": none_if_nan(self.high)}


@dataclass(frozen=True)
class Comparison:
    """The difference in mIoU of two runs on the same images, second less first.

    `p_value` is two-sided: twice the smaller share of draws on one side of 0, (1 + count) / (1 + draws), at most 1.
    """

    difference: Interval
    p_value: float

    def summary(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"difference": self.difference.summary(), "p_value": none_if_nan(self.p_value)}


def miou_interval(
    images: ImageCounts, depth: int, rng: np.random.Generator, absent: Absent = "zero", *, repeats: int = 1000,
    confidence: float = 0.95,
) -> Interval:  # fmt: skip
    """mIoU of one level over the set, and the interval its value takes over draws of as many images."""
    draws = _draws(images, depth, rng, absent, repeats)
    return _interval(_miou(images.total(depth), absent), draws, confidence)


def compare(
    first: ImageCounts, second: ImageCounts, depth: int, seed: int, absent: Absent = "zero", *, repeats: int = 1000,
    confidence: float = 0.95,
) -> Comparison:  # fmt: skip
    """Whether two runs differ: both are scored on the same draws of images, so that an image hard for both says nothing.

    Raises: DataError when the runs were not scored on the same images.
    """
    _require_same_images(first, second)
    mine, theirs = (_draws(run, depth, np.random.default_rng(seed), absent, repeats) for run in (first, second))
    value = _miou(second.total(depth), absent) - _miou(first.total(depth), absent)
    differences = theirs - mine
    defined = differences[~np.isnan(differences)]
    one_side = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2 * (1 + one_side) / (1 + defined.size)) if defined.size else float("nan")
    return Comparison(_interval(value, differences, confidence), p_value)


def _require_same_images(first: ImageCounts, second: ImageCounts) -> None:
    apart = sorted(set(first.keys) ^ set(second.keys))
    if apart:
        raise DataError(
            "comparison", f"{len(apart)} images are in one run only, such as {apart[0]}", "score both on one split"
        )


def _draws(images: ImageCounts, depth: int, rng: np.random.Generator, absent: Absent, repeats: int) -> Values:
    """(R,) mIoU of each draw."""
    entries, n_images, n_classes = images.entries(depth), len(images.keys), len(images.hierarchy.levels[depth])
    if not n_images:
        return np.full(repeats, np.nan)
    result = []
    for start in range(0, repeats, _REPEATS_AT_ONCE):
        n = min(_REPEATS_AT_ONCE, repeats - start)
        drawn = rng.integers(0, n_images, (n, n_images))
        times = np.bincount((drawn + n_images * np.arange(n)[:, None]).ravel(), minlength=n * n_images)
        result.append(_miou(_totals(entries, times.reshape(n, n_images), n_classes), absent))
    return np.concatenate(result)


def _totals(entries: Entries, times: Matrix, n_classes: int) -> Matrix:
    """(R, 3, K) int64 TP, FP and FN over the set where image i occurs `times[r, i]` times.

    Products are in float64, where whole numbers are exact below 2^53.
    """
    totals = np.zeros((len(times), 3 * n_classes))
    for start in range(0, times.shape[1], _IMAGES_AT_ONCE):
        stop = min(start + _IMAGES_AT_ONCE, times.shape[1])
        first, last = np.searchsorted(entries.image, [start, stop])
        block = np.zeros((stop - start, 3, n_classes))
        block[entries.image[first:last] - start, :, entries.label[first:last]] = entries.counts[:, first:last].T
        totals += times[:, start:stop].astype(np.float64) @ block.reshape(stop - start, -1)
    return totals.reshape(-1, 3, n_classes).astype(np.int64)


def _miou(counts: Matrix, absent: Absent) -> Any:
    """Mean IoU of (..., 3, K) counts over the classes that are not absent; nan when all are."""
    iou = iou_of(counts, absent)
    defined = ~np.isnan(iou)
    n_defined = defined.sum(axis=-1)
    sums = np.where(defined, iou, 0).sum(axis=-1)
    return np.where(n_defined > 0, sums / np.maximum(n_defined, 1), np.nan)[()]


def _interval(value: float, draws: Values, confidence: float) -> Interval:
    defined = draws[~np.isnan(draws)]
    if not defined.size:
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(low), float(high))
