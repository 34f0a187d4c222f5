"""How sure a score is: images drawn again with replacement, and scored again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hiposeg_cli.metrics.images import ImageCounts
from hiposeg_cli.metrics.scores import Absent, iou_of
from hiposeg_cli.metrics.values import Matrix, Values, none_if_nan, ratio

_AT_ONCE = 64  # draws


@dataclass(frozen=True)
class Interval:
    """A score with its percentile interval over draws of the images."""

    value: float
    low: float
    high: float

    def summary(self) -> dict[str, float | None]:
        """Plain values for JSON."""
        return {"value": none_if_nan(self.value), "low": none_if_nan(self.low), "high": none_if_nan(self.high)}


def interval(value: float, draws: Values, confidence: float = 0.95) -> Interval:
    """The interval of a value from the (R,) values of draws; those that are nan do not count."""
    defined = draws[~np.isnan(draws)]
    if not defined.size:
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(low), float(high))


def miou_interval(
    images: ImageCounts, depth: int, seed: int, absent: Absent = "zero", *, draws: int = 1000, confidence: float = 0.95
) -> Interval:
    """mIoU of one level over the set, and the interval its value takes over draws of as many images."""
    drawn = row_means(drawn_ious(images, depth, seed, absent, draws))
    return interval(float(row_means(iou_of(images.total(depth), absent)[None])[0]), drawn, confidence)


def drawn_ious(images: ImageCounts, depth: int, seed: int, absent: Absent, draws: int) -> Values:
    """(R, K) IoU of each class of a level over each draw of the images; equal seeds draw equal images."""
    from scipy.sparse import coo_array

    entries, n, n_classes = images.entries(depth), len(images.keys), len(images.hierarchy.levels[depth])
    if not n:
        return np.full((draws, n_classes), np.nan)
    columns = np.arange(3)[:, None] * n_classes + entries.label
    rows = np.broadcast_to(entries.image, columns.shape)
    counts = coo_array((entries.counts.ravel(), (rows.ravel(), columns.ravel())), shape=(n, 3 * n_classes)).tocsr()
    rng, result = np.random.default_rng(seed), [np.zeros((0, n_classes))]
    for start in range(0, draws, _AT_ONCE):
        n_draws = min(_AT_ONCE, draws - start)
        drawn = rng.integers(0, n, (n_draws, n)) + n * np.arange(n_draws)[:, None]
        times: Matrix = np.bincount(drawn.ravel(), minlength=n_draws * n).reshape(n_draws, n)
        totals: Matrix = (counts.T @ times.T).T.reshape(n_draws, 3, n_classes)
        result.append(iou_of(totals, absent))
    return np.concatenate(result)


def row_means(ious: Values) -> Values:
    """(R,) mean over the defined classes of (R, K); nan where there is none."""
    defined = ~np.isnan(ious)
    return ratio(np.where(defined, ious, 0).sum(axis=1), defined.sum(axis=1))
