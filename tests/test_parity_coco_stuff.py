"""CocoStuffEval.m is Matlab and not run here. This is an independent reference, written from its definition with masks.

On leaves and on supercategories: pixel accuracy, mean accuracy, mean IoU, frequency-weighted IoU; a class without true
pixels is left out even if it is predicted, and predicted ids beyond the classes are refused.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.metrics import PROTOCOLS, Confusion

HIERARCHY = load_hierarchy("coco-stuff-171-27")


def mask_reference(truth: NDArray[np.int64], predicted: NDArray[np.int64], n: int) -> dict[str, float]:
    """The four scores of flat ids, -1 being unlabelled in the truth."""
    valid = truth >= 0
    present = [label for label in range(n) if (truth == label).any()]
    right = [int((valid & (truth == label) & (predicted == label)).sum()) for label in present]
    true = [int((truth == label).sum()) for label in present]
    union = [int((valid & ((truth == label) | (predicted == label))).sum()) for label in present]
    iou = [hits / size for hits, size in zip(right, union, strict=True)]
    return {
        "pixel_accuracy": sum(right) / sum(true),
        "mean_accuracy": sum(hits / size for hits, size in zip(right, true, strict=True)) / len(present),
        "miou": sum(iou) / len(present),
        "frequency_weighted_iou": sum(size * value for size, value in zip(true, iou, strict=True)) / sum(true),
    }


@pytest.mark.parametrize("seed", range(3))
def test_leaves_and_supercategories(seed: int) -> None:
    rng = np.random.default_rng(seed)
    used = rng.choice(HIERARCHY.n_fine, 60, replace=False)  # others are in neither, or in the prediction only
    truth = rng.choice([*used, 255], (5, 40, 50)).astype(np.uint8)
    wrong = rng.random(truth.shape) < 0.4
    predicted = np.where(wrong | (truth == 255), rng.integers(0, HIERARCHY.n_fine, truth.shape), truth).astype(np.uint8)
    confusion = Confusion(HIERARCHY)
    for fine, said in zip(truth, predicted, strict=True):
        confusion.add(TwoLevelMap(fine, lift(fine, HIERARCHY)), said)
    for depth, level in enumerate(HIERARCHY.levels):
        family = np.append(HIERARCHY.ancestors(depth), np.full(256 - HIERARCHY.n_fine, -1))
        scores = PROTOCOLS["coco-stuff"].scores(confusion, depth)
        for name, expected in mask_reference(family[truth], family[predicted], len(level)).items():
            assert getattr(scores, name) == pytest.approx(expected, rel=1e-12), (level.name, name)
    assert len(PROTOCOLS["coco-stuff"].scores(confusion, 0).averaged) == 60


def test_illegal_predicted_ids_are_refused() -> None:
    fine = np.zeros((2, 2), np.uint8)
    with pytest.raises(DataError, match="predicted id 171 on 1 pixels; the hierarchy has 171 fine classes"):
        Confusion(HIERARCHY).add(TwoLevelMap(fine, fine), np.array([[0, 1], [2, 171]], np.uint8))
