"""From counts to an `EvalResult`: every number that is printed, with what it was made of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from hiposeg_cli.evaluation.counting import Counted, Counts, Wanted, count
from hiposeg_cli.evaluation.predictions import Predictions
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.evaluation.truth import Truth
from hiposeg_cli.metrics import Confusion, Protocol, summarize
from hiposeg_cli.metrics.bootstrap import miou_interval
from hiposeg_cli.metrics.boundary import boundary_summary
from hiposeg_cli.metrics.images import ImageCounts
from hiposeg_cli.metrics.scores import foreground
from hiposeg_cli.pool import Progress


def evaluate_pairs(
    truth: Truth, predictions: Predictions, wanted: Wanted, about: dict[str, Any], *, draws: int = 0, seed: int = 0,
    workers: int = 1, progress: Progress = lambda done, total: None,
) -> EvalResult:  # fmt: skip
    """Score predictions against a truth.

    Args:
        about: what is evaluated, for the summary.
        draws: how often the images are drawn again for the interval of each mIoU; 0 for no interval.
    Raises: ConfigError when the protocol does not fit the hierarchy, DataError when no image can be scored.
    """
    wanted.protocol.scores(Confusion(truth.hierarchy), 0)  # a protocol that does not fit is refused before the work
    counted = count(truth, predictions, wanted, workers=workers, progress=progress)
    counts = counted.counts
    summary = {**about, "data": str(truth.name), "split": truth.split, **_summary(counts)}
    if draws:
        summary["intervals"] = intervals(counts.images, wanted.protocol, draws, seed)
    return _result(truth, predictions, wanted, counted, summary)


def _result(
    truth: Truth, predictions: Predictions, wanted: Wanted, counted: Counted, summary: dict[str, Any]
) -> EvalResult:  # fmt: skip
    counts = counted.counts
    images = tuple(sorted(counts.results, key=lambda image: image.key))
    return EvalResult(
        truth.hierarchy, wanted.protocol, summary, counts.confusion, counts.images, images, counted.problems, truth,
        predictions,
    )  # fmt: skip


def _summary(counts: Counts) -> dict[str, Any]:
    protocol = counts.wanted.protocol
    summary = summarize(counts.confusion, protocol)
    has_background = not all(foreground(counts.hierarchy.fine))
    summary["background"] = ("in the mean" if protocol.background else "not in the mean") if has_background else "none"
    summary["sqiou"] = counts.images.summary()
    if counts.chains is not None:
        summary["chains"] = counts.chains.summary()
    if counts.boundary is not None:
        summary |= {"boundary": boundary_summary(counts.boundary), "boundary_ratio": counts.wanted.boundary_ratio}
    if counts.instances is not None:
        summary["iiou"] = counts.instances.summary(counts.confusion)
    if counts.objects is not None:
        summary |= counts.objects.summary()
    if counts.calibration is not None:
        summary["calibration"] = counts.calibration.summary()
    if counts.curve is not None:
        summary["curve"] = counts.curve.points()
    return summary


def intervals(images: ImageCounts, protocol: Protocol, draws: int, seed: int) -> dict[str, dict[str, Any]]:
    """Level name -> mIoU with its 95 % interval over draws of the images."""
    averaged = averaged_counts(images, protocol)
    return {
        level.name: miou_interval(averaged, depth, seed, protocol.absent, draws=draws).summary()
        | {"draws": draws, "seed": seed}
        for depth, level in enumerate(images.hierarchy.levels)
    }


def averaged_counts(images: ImageCounts, protocol: Protocol, keys: Collection[str] | None = None) -> ImageCounts:
    """The counts of the classes in the protocol's mean only, of some images or all: the others' are 0, which is absent."""
    hierarchy, wanted = images.hierarchy, set(images.keys if keys is None else keys)
    kept = [np.ones(len(level), dtype=np.bool_) if protocol.background else foreground(level) for level in hierarchy.levels]
    if len(wanted) == len(images.keys) and all(level.all() for level in kept):
        return images
    entries = [images.entries(depth) for depth in range(len(hierarchy.levels))]
    result = ImageCounts(hierarchy)
    for number, key in enumerate(images.keys):
        if key not in wanted:
            continue
        dense = []
        for level, in_mean in zip(entries, kept, strict=True):
            first, last = np.searchsorted(level.image, [number, number + 1])
            counts = np.zeros((3, len(in_mean)), dtype=np.int64)
            counts[:, level.label[first:last]] = level.counts[:, first:last]
            dense.append(np.where(in_mean, counts, 0))
        result.add(key, dense)
    return result
