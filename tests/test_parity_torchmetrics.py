"""The same numbers as torchmetrics 1.9.0, whose counters are float32: Jaccard index and calibration error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from metric_cases import DEEP, TOY, random_image

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, lift
from hiposeg_cli.metrics import Confusion, score
from hiposeg_cli.metrics.calibration import BINS, Reliability, level_probabilities
from hiposeg_cli.nets.compat import import_torchvision

import_torchvision()  # torchmetrics imports it, and some builds of it need help beside a CPU-only torch
classification = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed (extra parity)")


def _tensor(labels: LabelArray) -> torch.Tensor:
    return torch.from_numpy(labels.astype(np.int64))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tree", [TOY, DEEP], ids=["toy", "deep"])
def test_jaccard_index_over_the_whole_set(tree: Hierarchy, seed: int) -> None:
    """torchmetrics knows no predicted void, and shows an absent class as 0 where ours is nan."""
    rng, confusion = np.random.default_rng(seed), Confusion(tree)
    judge = classification.MulticlassJaccardIndex(tree.n_fine, average="none", ignore_index=255)
    mean = classification.MulticlassJaccardIndex(tree.n_fine, average="macro", ignore_index=255)
    for _ in range(5):
        truth, predicted = random_image(tree, rng, (20, 30))
        truth.fine[truth.fine == 3] = 1  # 3 is absent, unless it is predicted
        predicted[(predicted == 255) | (predicted == 3)] = 0
        confusion.add(TwoLevelMap(truth.fine, lift(truth.fine, tree)), predicted)
        judge.update(_tensor(predicted), _tensor(truth.fine))
        mean.update(_tensor(predicted), _tensor(truth.fine))
    scores = score(confusion.matrix(0), tree.fine)
    assert np.isnan(scores.iou[3])
    np.testing.assert_allclose(np.nan_to_num(scores.iou), judge.compute().numpy(), atol=1e-6)
    assert scores.miou == pytest.approx(mean.compute().item(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_of_the_most_probable_class(seed: int) -> None:
    rng, counted = np.random.default_rng(seed), Reliability(DEEP)
    judges = [
        classification.MulticlassCalibrationError(len(level), n_bins=BINS, norm="l1", validate_args=False)
        for level in DEEP.levels
    ]
    for _ in range(3):
        fine = rng.integers(0, DEEP.n_fine, (40, 50)).astype(np.uint8)
        truth = TwoLevelMap(fine, lift(fine, DEEP))
        scores = rng.standard_exponential((DEEP.n_fine, 40, 50)) ** 3
        leaf = (scores / scores.sum(axis=0)).astype(np.float32)
        # Above 1 they would be logits there, and 1 itself has a bin of its own. Its sums are float32.
        levels = [level.clip(max=1 - 2**-24) for level in level_probabilities(DEEP, leaf)]
        ids = [level.argmax(axis=0).astype(np.uint8) for level in levels]
        counted.add(truth, ids, [level.max(axis=0) for level in levels])
        for depth, judge in enumerate(judges):
            true = _tensor(DEEP.ancestors(depth)[fine].astype(np.uint8))
            judge.update(torch.from_numpy(levels[depth].reshape(len(levels[depth]), -1).T), true.ravel())
    for depth, judge in enumerate(judges):
        assert counted.error(depth) == pytest.approx(judge.compute().item(), abs=1e-5)
