"""mmsegmentation's IoUMetric. Its numbers are defined by three histograms, which an independent reference has here.

mmsegmentation itself wants an environment of its own; where it can be imported, its `intersect_and_union` and
`total_area_to_metrics` are run as well. The reference is written from the published definition and is not mmsegmentation.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from metric_cases import DEEP, TOY, VOID, random_image
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, lift
from hiposeg_cli.metrics import PROTOCOLS, Confusion

Image = tuple[LabelArray, LabelArray]


def _images(tree: Hierarchy, seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [(truth.fine, predicted) for truth, predicted in (random_image(tree, rng, (20, 30)) for _ in range(5))]


def _confusion(tree: Hierarchy, images: list[Image]) -> Confusion:
    confusion = Confusion(tree)
    for fine, predicted in images:
        confusion.add(TwoLevelMap(fine, lift(fine, tree)), predicted)
    return confusion


def histogram_reference(images: list[Image], n: int) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """aAcc, IoU and Acc from areas of intersection, prediction and truth of the valid pixels."""
    areas = np.zeros((3, n))
    for truth, predicted in images:
        valid = truth != VOID
        maps = (predicted[valid & (predicted == truth)], predicted[valid], truth[valid])
        areas += [torch.histc(torch.from_numpy(ids.astype(np.float32)), bins=n, min=0, max=n - 1).numpy() for ids in maps]
    shared, said, true = areas
    with np.errstate(invalid="ignore"):
        return float(shared.sum() / true.sum()), shared / (said + true - shared), shared / true


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tree", [TOY, DEEP], ids=["toy", "deep"])
def test_three_histograms_give_the_same_scores(tree: Hierarchy, seed: int) -> None:
    """Predicted void is outside the histogram's range: in the area of the truth, in none of the prediction."""
    images = _images(tree, seed)
    accuracy, iou, class_accuracy = histogram_reference(images, tree.n_fine)
    scores = PROTOCOLS["mmseg"].scores(_confusion(tree, images), 0)
    np.testing.assert_allclose(scores.iou, iou, rtol=1e-12)
    np.testing.assert_allclose(scores.accuracy, class_accuracy, rtol=1e-12)
    assert scores.pixel_accuracy == pytest.approx(accuracy, rel=1e-12)
    assert scores.miou == pytest.approx(float(np.nanmean(iou)), rel=1e-12)


@pytest.mark.skipif(
    importlib.util.find_spec("mmseg") is None, reason="mmsegmentation is not importable here; it wants its own environment"
)
def test_mmsegmentation_itself() -> None:
    from mmseg.evaluation.metrics import IoUMetric

    images = _images(TOY, 0)
    areas = [
        IoUMetric.intersect_and_union(torch.from_numpy(p.astype(np.int64)), torch.from_numpy(t.astype(np.int64)), 4, VOID)
        for t, p in images
    ]
    found = IoUMetric.total_area_to_metrics(*(sum(column) for column in zip(*areas, strict=True)))
    scores = PROTOCOLS["mmseg"].scores(_confusion(TOY, images), 0)
    np.testing.assert_allclose(scores.iou, found["IoU"], atol=1e-6)
    np.testing.assert_allclose(scores.accuracy, found["Acc"], atol=1e-6)
    assert scores.pixel_accuracy == pytest.approx(float(found["aAcc"]), abs=1e-6)
