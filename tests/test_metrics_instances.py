"""Instance IoU by hand, in any order and split. The official script is in test_parity_cityscapes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from metric_cases import DEEP, SEEDS, VOID, random_image

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.metrics import Confusion
from hiposeg_cli.metrics.instances import CITYSCAPES_AVERAGE_PX, InstanceIoU

SIZES = {"f0": 4.0, "f1": 2.0, "f2": 3.0}  # f3 has none, so c1 (f2, f3) has no score; c0 (f0, f1) has


def test_by_hand() -> None:
    # Instance 1 of f0: 4 pixels, 2 right, 1 taken for f1, 1 void. Instance 2 of f0: 1 pixel, right. One f4 taken for f0.
    fine = np.array([[0, 0, 0, 0, 0, 4]], np.uint8)
    truth, predicted = TwoLevelMap(fine, lift(fine, DEEP)), np.array([[0, 0, 1, VOID, 0, 0]], np.uint8)
    confusion, counted = Confusion(DEEP), InstanceIoU(DEEP, SIZES)
    confusion.add(truth, predicted)
    counted.add("a", truth, np.array([[1, 1, 1, 1, 2, 0]]), predicted)
    scores = counted.scores(confusion, 0)
    hits, misses = 2 * (4 / 4) + 1 * (4 / 1), 2 * (4 / 4)
    assert scores[0] == hits / (hits + 1 + misses)
    assert scores[1] == 0  # f0's pixel is a false positive of f1
    assert np.isnan(scores[[2, 3, 4]]).all()
    coarse = counted.scores(confusion, 1)
    assert coarse[0] == (3 + 4) / (3 + 4 + 1 + 1)
    assert np.isnan(coarse[1:]).all()
    assert np.isnan(counted.scores(confusion, 2)).all()  # t0 holds f3
    summary = counted.summary(confusion)
    assert summary["fine"]["classes"] == {"f0": scores[0], "f1": 0}
    assert summary["top"] == {"iiou": None, "classes": {}}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_order_and_split_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [(*random_image(DEEP, rng), rng.integers(0, 4, (6, 7))) for _ in range(4)]
    confusion, whole, parts = Confusion(DEEP), InstanceIoU(DEEP, SIZES), [InstanceIoU(DEEP, SIZES) for _ in "ab"]
    for n, (truth, predicted, numbers) in enumerate(images):
        confusion.add(truth, predicted)
        parts[n % 2].add(str(n), truth, numbers, predicted)
    for n in rng.permutation(4).tolist():
        truth, predicted, numbers = images[n]
        whole.add(str(n), truth, numbers, predicted)
    parts[1].merge(parts[0])
    assert parts[1].summary(confusion) == whole.summary(confusion)


def test_an_average_sized_instance_is_an_ordinary_one() -> None:
    fine = np.array([[0, 0, 0, 0]], np.uint8)
    truth, predicted = TwoLevelMap(fine, lift(fine, DEEP)), np.array([[0, 0, 0, 2]], np.uint8)
    confusion, counted = Confusion(DEEP), InstanceIoU(DEEP, SIZES)
    confusion.add(truth, predicted)
    counted.add("a", truth, np.ones((1, 4), np.uint16), predicted)
    assert counted.scores(confusion, 0)[0] == 3 / 4
    assert math.isnan(counted.scores(Confusion(DEEP), 0)[1])


def test_sizes_must_agree() -> None:
    labels = np.zeros((2, 3), np.uint8)
    truth = TwoLevelMap(labels, labels)
    with pytest.raises(DataError, match=r"a: instance map is \(3, 2\), truth is \(2, 3\)"):
        InstanceIoU(DEEP, SIZES).add("a", truth, np.zeros((3, 2)), labels)
    with pytest.raises(DataError, match=r"a: prediction is \(3, 2\), truth is \(2, 3\)"):
        InstanceIoU(DEEP, SIZES).add("a", truth, np.zeros((2, 3)), np.zeros((3, 2), np.uint8))


def test_eight_classes_of_cityscapes_have_an_average_size() -> None:
    counted = InstanceIoU(load_hierarchy("cityscapes-19-7"))
    assert len(CITYSCAPES_AVERAGE_PX) == (~np.isnan(counted.average_px)).sum() == 8
