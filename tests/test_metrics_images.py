"""Counts per image add up to the set's; sqIoU and bootstrap agree with loops and with cases by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import SEEDS, SHAPES, TOY, TREES, one_image, random_image

from hiposeg_cli.evaluation.comparison import compare_level
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.metrics import PROTOCOLS, Confusion, score
from hiposeg_cli.metrics.bootstrap import miou_interval
from hiposeg_cli.metrics.confusion import class_counts
from hiposeg_cli.metrics.images import ImageCounts, image_counts
from hiposeg_cli.metrics.scores import object_average


def _set(tree: Hierarchy, seed: int, n: int) -> dict[str, Confusion]:
    """One confusion an image, by key."""
    rng, images = np.random.default_rng(seed), {}
    for number in range(n):
        images[f"{number:02}"] = Confusion(tree)
        images[f"{number:02}"].add(*random_image(tree, rng))
    return images


def _counted(tree: Hierarchy, images: dict[str, Confusion]) -> ImageCounts:
    counted = ImageCounts(tree)
    for key, confusion in images.items():
        counted.add(key, image_counts(confusion, PROTOCOLS["hiposeg"]))
    return counted


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS, st.integers(0, 4), st.randoms(use_true_random=False))
def test_totals_are_those_of_the_set_in_any_order_and_split(shape: str, seed: int, cut: int, shuffler: Any) -> None:
    tree = TREES[shape]
    images = _set(tree, seed, 4)
    whole = Confusion(tree)
    for confusion in images.values():
        whole.merge(confusion)
    keys = list(images)
    shuffler.shuffle(keys)
    first, second = (_counted(tree, {key: images[key] for key in part}) for part in (keys[:cut], keys[cut:]))
    first.merge(second)
    straight = _counted(tree, images)
    for depth in range(len(tree.levels)):
        assert np.array_equal(first.total(depth), class_counts(whole.matrix(depth)))
    assert first.summary() == straight.summary()
    assert first.keys == straight.keys
    intervals = [miou_interval(counted, 0, seed, draws=20) for counted in (first, straight)]
    assert intervals[0] == intervals[1] or math.isnan(intervals[0].value)


def test_counts_are_those_of_the_predictions_own_maps_where_they_have_them() -> None:
    confusion = Confusion(TOY)
    truth, _predicted = random_image(TOY, np.random.default_rng(0))
    confusion.add(truth, truth.fine, above=[np.zeros(truth.shape, np.uint8)])
    assert np.array_equal(image_counts(confusion, PROTOCOLS["hiposeg"])[1], class_counts(confusion.own_matrix(1)))
    assert not np.array_equal(image_counts(confusion, PROTOCOLS["hiposeg"])[1], class_counts(confusion.matrix(1)))


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_square_iou_is_a_mean_over_the_images_with_the_class(shape: str, seed: int) -> None:
    tree = TREES[shape]
    images = _set(tree, seed, 4)
    counted = _counted(tree, images)
    for depth, level in enumerate(tree.levels):
        by_class: list[list[float]] = [[] for _ in range(len(level))]
        for confusion in images.values():
            scores = score(confusion.matrix(depth), level)
            for label in np.flatnonzero(scores.pixels):
                by_class[label].append(float(scores.iou[label]))
        expected = [np.mean(values) if values else math.nan for values in by_class]
        np.testing.assert_allclose(counted.square_ious(depth), expected)
    average = object_average(counted.square_ious(0), tree.parent)
    assert counted.summary()["fine"]["sqiou_avg"] == (None if math.isnan(average) else average)


def test_square_iou_by_hand() -> None:
    """A false positive in an image without the class costs nothing, unlike in mIoU."""
    images = {"a": one_image(TOY, [[1, 1, 0, 0]], [[1, 1, 0, 1]]), "b": one_image(TOY, [[0, 0, 0, 0]], [[1, 1, 0, 0]])}
    counted = _counted(TOY, images)
    assert counted.square_ious(0)[:2].tolist() == [(1 / 2 + 2 / 4) / 2, 2 / 3]
    assert counted.total(0)[:, 1].tolist() == [2, 3, 0]
    assert counted.n_images(0).tolist() == [2, 1, 0, 0]
    assert counted.summary()["fine"]["classes"][1] == {"name": "f1", "sqiou": 2 / 3, "images": 1}


@pytest.mark.parametrize("n", [0, 1])
def test_summary_is_json_without_nan(n: int) -> None:
    summary = _counted(TOY, _set(TOY, 0, n)).summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_an_image_counts_once() -> None:
    counted = _counted(TOY, _set(TOY, 0, 2))
    with pytest.raises(AssertionError, match="00 twice"):
        counted.add("00", image_counts(Confusion(TOY), PROTOCOLS["hiposeg"]))
    with pytest.raises(AssertionError, match="twice"):
        counted.merge(_counted(TOY, _set(TOY, 1, 1)))


# -- bootstrap ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ["zero", "skip"])
def test_draws_agree_with_scoring_the_drawn_images_again(absent: str) -> None:
    images, repeats = _set(TOY, 5, 7), 150  # more than are drawn at once
    counted = _counted(TOY, images)
    rng, mious = np.random.default_rng(3), []
    for start in range(0, repeats, 64):
        for drawn in rng.integers(0, 7, (min(64, repeats - start), 7)):
            whole = Confusion(TOY)
            for number in drawn:
                whole.merge(images[f"{number:02}"])
            mious.append(score(whole.matrix(0), TOY.fine, absent).miou)
    found = miou_interval(counted, 0, 3, absent, draws=repeats, confidence=0.9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(mious, [0.05, 0.95])), rel=1e-12)
    whole = Confusion(TOY)
    for confusion in images.values():
        whole.merge(confusion)
    assert found.value == pytest.approx(score(whole.matrix(0), TOY.fine, absent).miou, rel=1e-12)
    assert found.low < found.value < found.high


def test_identical_images_score_alike_in_every_draw() -> None:
    counted, image = ImageCounts(TOY), one_image(TOY, [[0, 0, 1, 1]], [[0, 1, 1, 3]])
    for number in range(150):
        counted.add(str(number), image_counts(image, PROTOCOLS["hiposeg"]))
    found = miou_interval(counted, 0, 0, draws=70)
    assert found.low == found.high == found.value == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)


def test_interval_of_nothing() -> None:
    found = miou_interval(ImageCounts(TOY), 0, 0, draws=3)
    assert found.summary() == {"value": None, "low": None, "high": None}


def test_a_better_run_is_found_better_and_both_see_the_same_draws() -> None:
    worse, better = ImageCounts(TOY), ImageCounts(TOY)
    rng = np.random.default_rng(0)
    for number in range(12):
        n_wrong = int(rng.integers(1, 50))  # images differ far more than runs do, which pairing takes out
        for counted, extra in ((worse, 2), (better, 0)):
            truth = [[1] * 60 + [0] * 60]
            one = one_image(TOY, truth, [[1] * (60 - n_wrong) + [0] * (n_wrong + 60)])
            counted.add(str(number), image_counts(one, PROTOCOLS["hiposeg"]))
            counted._images[str(number)][0][1][2] += extra  # misses
    found = compare_level(better, worse, 0, "zero", draws=400, seed=0).mean
    assert found.p_value == 2 / 401
    assert found.low is not None
    assert found.high is not None
    assert found.difference is not None
    assert 0 < found.low < found.difference < found.high
    opposite = compare_level(worse, better, 0, "zero", draws=400, seed=0).mean
    assert opposite.difference == -found.difference
    alone = miou_interval(worse, 0, 0, draws=400)
    assert found.high - found.low < (alone.high - alone.low) / 5
    assert compare_level(better, worse, 0, "zero", draws=400, seed=0).mean == found
