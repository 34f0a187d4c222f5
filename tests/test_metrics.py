"""Scores: counting agrees with a slow loop, folding with relabelling, and every rule with a case done by hand."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import DEEP, SEEDS, SHAPES, TOY, TREES, VOID, names_above, one_image, random_image, tree_of
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, label_dtype, lift
from hiposeg_cli.metrics import Absent, BackOffCurve, Confusion, mistake_severity, score, summarize

# -- counting ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_counts_agree_with_a_loop_over_pixels(shape: str, seed: int) -> None:
    tree = TREES[shape]
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    confusion = Confusion(tree)
    confusion.add(truth, predicted)
    n = tree.n_fine
    expected = np.zeros((n + tree.n_coarse, n + 1), dtype=np.int64)
    for t, c, p in zip(truth.fine.ravel().tolist(), truth.coarse.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if c != 255:
            row = n + c if t == ignore_value(truth.fine.dtype) else t
            expected[row, n if p == ignore_value(predicted.dtype) else p] += 1
    assert np.array_equal(confusion.counts, expected)
    assert confusion.n_images == 1


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS, st.integers(0, 4), st.randoms(use_true_random=False))
def test_counts_add_up_over_any_split_in_any_order(shape: str, seed: int, cut: int, shuffler: Any) -> None:
    tree = TREES[shape]
    rng = np.random.default_rng(seed)
    images = [random_image(tree, rng) for _ in range(4)]
    whole = Confusion(tree)
    for truth, predicted in images:
        whole.add(truth, predicted)
    shuffled = list(images)
    shuffler.shuffle(shuffled)
    first, second = Confusion(tree), Confusion(tree)
    for n, (truth, predicted) in enumerate(shuffled):
        (first if n < cut else second).add(truth, predicted)
    first.merge(second)
    assert np.array_equal(first.counts, whole.counts)
    assert first.n_images == whole.n_images == 4
    assert first.ignored == whole.ignored == sum(int((truth.coarse == 255).sum()) for truth, _ in images)
    stacked = Confusion(tree)
    stacked.add(
        TwoLevelMap(np.vstack([t.fine for t, _ in images]), np.vstack([t.coarse for t, _ in images])),
        np.vstack([p for _, p in images]),
    )
    assert np.array_equal(stacked.counts, whole.counts)


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_folding_equals_relabelling_and_counting_again(shape: str, seed: int) -> None:
    tree = TREES[shape]
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    confusion = Confusion(tree)
    confusion.add(truth, predicted)
    void = ignore_value(predicted.dtype)
    for depth in range(1, len(tree.levels)):
        level = tree.levels[depth]
        above_coarse = {names_above(tree, k)[1]: names_above(tree, k)[depth] for k in range(tree.n_fine)}
        expected = np.zeros((len(level), len(level) + 1), dtype=np.int64)
        for c, p in zip(truth.coarse.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if c != 255:
                row = level.names.index(above_coarse[f"c{c}"])
                expected[row, len(level) if p == void else level.names.index(names_above(tree, p)[depth])] += 1
        assert np.array_equal(confusion.matrix(depth), expected)
    assert np.array_equal(confusion.matrix(0), confusion.counts[: tree.n_fine])


def test_pixels_with_only_a_coarse_label_by_hand() -> None:
    # Truth: two f1 pixels, three pixels of c1 without a fine label, one ignored on both levels.
    confusion = one_image(TOY, [[1, 1, 255], [255, 255, 255]], [[1, 3, 2], [0, VOID, 3]], [[1, 1, 1], [1, 1, 255]])
    assert confusion.matrix(0).tolist() == [[0] * 5, [0, 1, 0, 1, 0], [0] * 5, [0] * 5]
    assert confusion.matrix(1).tolist() == [[0] * 4, [1, 2, 1, 1], [0] * 4]
    fine, coarse = score(confusion.matrix(0), TOY.fine), score(confusion.matrix(1), TOY.coarse)
    assert fine.iou[1] == 1 / 2
    assert coarse.iou[1] == 2 / 5
    assert (fine.pixel_accuracy, coarse.pixel_accuracy) == (1 / 2, 2 / 5)


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_predictions_on_ignored_pixels_do_not_count(shape: str, seed: int) -> None:
    tree = TREES[shape]
    rng = np.random.default_rng(seed)
    truth, predicted = random_image(tree, rng)
    other = predicted.copy()
    ignored = truth.coarse == 255
    other[ignored] = rng.choice([0, tree.n_fine - 1, ignore_value(predicted.dtype)], int(ignored.sum()))
    first, second = Confusion(tree), Confusion(tree)
    first.add(truth, predicted)
    second.add(truth, other)
    assert np.array_equal(first.counts, second.counts)
    assert first.counts.sum() == (~ignored).sum()


def test_255_is_a_class_in_16_bit_maps() -> None:
    tree = tree_of([k % 2 for k in range(300)])
    fine = np.array([[255, 255, 7, 65535]], dtype=np.uint16)
    confusion = Confusion(tree)
    confusion.add(TwoLevelMap(fine, lift(fine, tree)), np.array([[255, 65535, 255, 255]], dtype=np.uint16))
    assert confusion.counts.sum() == 3
    assert confusion.counts[255, 255] == 1  # right
    assert confusion.counts[255, 300] == 1  # void
    assert confusion.counts[7, 255] == 1
    assert score(confusion.matrix(0), tree.fine).iou[255] == 1 / 3


def test_prediction_may_be_wider_than_the_truth() -> None:
    fine, wide = np.array([[0, 1, 255]], dtype=np.uint8), np.array([[0, 65535, 1]], dtype=np.uint16)
    confusion = Confusion(TOY)
    confusion.add(TwoLevelMap(fine, lift(fine, TOY)), wide)
    assert (confusion.counts[0, 0], confusion.counts[1, 4], confusion.counts.sum()) == (1, 1, 2)


def test_unknown_predicted_ids_are_refused() -> None:
    with pytest.raises(DataError, match=r"a\.png: predicted id 4 on 2 pixels; the hierarchy has 4 fine classes"):
        Confusion(TOY).add(
            TwoLevelMap(np.zeros((1, 3), np.uint8), np.zeros((1, 3), np.uint8)), np.array([[4, 4, 0]], np.uint8), "a.png"
        )


def test_sizes_must_agree() -> None:
    truth = TwoLevelMap(np.zeros((2, 3), np.uint8), np.zeros((2, 3), np.uint8))
    confusion = Confusion(TOY)
    with pytest.raises(DataError, match=r"a\.png: prediction is \(3, 2\), truth is \(2, 3\)"):
        confusion.add(truth, np.zeros((3, 2), np.uint8), "a.png")
    assert confusion.n_images == 0
    assert confusion.counts.sum() == 0


@pytest.mark.parametrize("size", [(0, 0), (0, 4)])
def test_an_image_without_pixels_counts_nothing(size: tuple[int, int]) -> None:
    empty = np.zeros(size, dtype=np.uint8)
    confusion = Confusion(TOY)
    confusion.add(TwoLevelMap(empty, empty), empty)
    assert confusion.counts.sum() == 0
    assert math.isnan(score(confusion.matrix(0), TOY.fine).miou)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    #        truth      predicted
    #        0 0 1      0 1 1
    #        1 1 2      1 0 2
    #        2 2 x      2 v 0      x ignored, v void
    confusion = one_image(TOY, [[0, 0, 1], [1, 1, 2], [2, 2, 255]], [[0, 1, 1], [1, 0, 2], [2, VOID, 0]])
    scores = score(confusion.matrix(0), TOY.fine)
    assert scores.iou[:3].tolist() == [1 / 3, 2 / 4, 2 / 3]
    assert math.isnan(scores.iou[3])
    assert scores.accuracy[:3].tolist() == [1 / 2, 2 / 3, 2 / 3]
    assert scores.precision[:3].tolist() == [1 / 2, 2 / 3, 1.0]
    assert scores.pixels.tolist() == [2, 3, 3, 0]
    assert scores.predicted.tolist() == [2, 3, 2, 0]
    assert scores.pixel_accuracy == 5 / 8
    assert scores.miou == pytest.approx((1 / 3 + 1 / 2 + 2 / 3) / 3)
    assert scores.without_background() == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores.mean_accuracy == pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3)
    assert scores.frequency_weighted_iou == pytest.approx((2 / 8) * (1 / 3) + (3 / 8) * (1 / 2) + (3 / 8) * (2 / 3))
    assert (scores.averaged, scores.left_out) == (["f0", "f1", "f2"], ["f3"])
    coarse = score(confusion.matrix(1), TOY.coarse)
    assert coarse.iou[:2].tolist() == [1 / 3, 4 / 7]  # f1 and f2 are one class now
    assert coarse.left_out == ["c2"]


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS, st.sampled_from(["zero", "skip"]))
def test_scores_agree_with_masks_of_pixels(shape: str, seed: int, absent: Absent) -> None:
    tree = TREES[shape]
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    confusion = Confusion(tree)
    confusion.add(truth, predicted)
    scores = score(confusion.matrix(0), tree.fine, absent)
    valid = truth.fine != ignore_value(truth.fine.dtype)
    expected: list[float] = []
    for k in range(tree.n_fine):
        true, said = valid & (truth.fine == k), valid & (predicted == k)
        judged = true.any() if absent == "skip" else (true | said).any()
        expected.append((true & said).sum() / (true | said).sum() if judged else math.nan)
    np.testing.assert_array_equal(scores.iou, expected)
    np.testing.assert_allclose(scores.miou, np.nanmean(expected) if not np.isnan(expected).all() else math.nan)
    right = (valid & (predicted == truth.fine)).sum()
    np.testing.assert_equal(scores.pixel_accuracy, right / valid.sum() if valid.any() else math.nan)
    assert set(scores.averaged) | set(scores.left_out) == set(tree.fine.names)


def test_a_class_predicted_but_absent_from_the_truth_scores_zero_or_is_skipped() -> None:
    confusion = one_image(TOY, [[0, 0, 1, 1]], [[0, 0, 1, 3]])
    zero, skip = score(confusion.matrix(0), TOY.fine, "zero"), score(confusion.matrix(0), TOY.fine, "skip")
    assert zero.iou[3] == 0
    assert zero.miou == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert zero.left_out == ["f2"]
    assert skip.miou == pytest.approx((1 + 1 / 2) / 2)
    assert skip.left_out == ["f2", "f3"]
    assert skip.iou[1] == zero.iou[1] == 1 / 2


def test_predicted_void_is_a_miss_and_nobodys_false_positive() -> None:
    scores = score(one_image(TOY, [[0, 0, 1, 1]], [[0, VOID, 1, VOID]]).matrix(0), TOY.fine)
    assert scores.iou[:2].tolist() == [1 / 2, 1 / 2]
    assert scores.precision[:2].tolist() == [1, 1]
    assert scores.predicted.sum() == 2
    assert scores.pixel_accuracy == 1 / 2


def test_nothing_but_void_scores_zero_not_nan() -> None:
    scores = score(one_image(TOY, [[0, 1]], [[VOID, VOID]]).matrix(0), TOY.fine)
    assert scores.miou == 0
    assert scores.left_out == ["f2", "f3"]


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_a_perfect_prediction_scores_one_everywhere(shape: str, seed: int) -> None:
    tree = TREES[shape]
    truth, _ = random_image(tree, np.random.default_rng(seed))
    truth.fine[0, 0] = 0
    truth = TwoLevelMap(truth.fine, lift(truth.fine, tree))
    confusion = Confusion(tree)
    confusion.add(truth, truth.fine)
    for depth, level in enumerate(tree.levels):
        scores = score(confusion.matrix(depth), level)
        given_classes = scores.pixels > 0
        for values in (scores.iou, scores.accuracy, scores.precision):
            assert (values[given_classes] == 1).all()
            assert np.isnan(values[~given_classes]).all()
        assert scores.miou == scores.mean_accuracy == scores.pixel_accuracy == 1
        assert scores.frequency_weighted_iou == pytest.approx(1)
    assert math.isnan(mistake_severity(confusion))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([TOY, DEEP]), SEEDS)
def test_renumbering_the_classes_changes_no_score(tree: Hierarchy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = random_image(tree, rng)
    new_id = rng.permutation(tree.n_fine)
    nodes = sorted((ClassNode(int(new_id[n.id]), n.name, n.color, n.parent) for n in tree.fine.nodes), key=lambda n: n.id)
    renumbered = Hierarchy("toy", (Level("fine", tuple(nodes)), *tree.levels[1:]))
    table: NDArray[np.uint8] = np.append(new_id, np.full(256 - tree.n_fine, 255)).astype(np.uint8)
    before, after = Confusion(tree), Confusion(renumbered)
    before.add(truth, predicted)
    after.add(TwoLevelMap(table[truth.fine], truth.coarse), table[predicted])
    for depth in range(len(tree.levels)):
        old, new = (score(c.matrix(depth), c.hierarchy.levels[depth]) for c in (before, after))
        by_name = dict(zip(new.level.names, new.iou, strict=True))
        np.testing.assert_array_equal(old.iou, [by_name[name] for name in old.level.names])
        np.testing.assert_equal(old.pixel_accuracy, new.pixel_accuracy)
    np.testing.assert_equal(mistake_severity(before), mistake_severity(after))


# -- maps of the levels above ------------------------------------------------------------------------------------------


def _random_above(tree: Hierarchy, rng: np.random.Generator, shape: tuple[int, int]) -> list[LabelArray]:
    """Maps of the levels above that have nothing to do with any fine map, with void."""
    return [rng.choice([*range(len(level)), VOID], shape).astype(np.uint8) for level in tree.levels[1:]]


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_own_maps_are_counted_as_a_loop_over_pixels_does(shape: str, seed: int) -> None:
    tree, rng = TREES[shape], np.random.default_rng(seed)
    truth, predicted = random_image(tree, rng)
    above = _random_above(tree, rng, truth.shape)
    merged, own = Confusion(tree), Confusion(tree)
    merged.add(truth, predicted)
    own.add(truth, predicted, above=above)
    for depth in range(len(tree.levels)):
        assert np.array_equal(own.matrix(depth), merged.matrix(depth))  # the fold is of the fine map, as ever
    assert np.array_equal(own.own_matrix(0), merged.matrix(0))
    chains = {names_above(tree, k)[1]: names_above(tree, k) for k in range(tree.n_fine)}
    void = ignore_value(predicted.dtype)
    for depth, (level, labels) in enumerate(zip(tree.levels[1:], above, strict=True), start=1):
        expected, said, agreeing = np.zeros((len(level), len(level) + 1), dtype=np.int64), 0, 0
        for c, p, a in zip(truth.coarse.ravel().tolist(), predicted.ravel().tolist(), labels.ravel().tolist(), strict=True):
            if c != 255:
                expected[level.names.index(chains[f"c{c}"][depth]), len(level) if a == VOID else a] += 1
                said += p != void
                agreeing += p != void and a != VOID and level.names[a] == names_above(tree, p)[depth]
        assert np.array_equal(own.own_matrix(depth), expected)
        np.testing.assert_equal(own.consistency(depth), agreeing / said if said else math.nan)


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_own_maps_that_are_the_ancestors_score_as_merged(shape: str, seed: int) -> None:
    tree, rng = TREES[shape], np.random.default_rng(seed)
    truth, predicted = random_image(tree, rng)
    predicted[predicted == ignore_value(predicted.dtype)] = 0
    above = [tree.ancestors(depth)[predicted].astype(np.uint8) for depth in range(1, len(tree.levels))]
    confusion = Confusion(tree)
    confusion.add(truth, predicted, above=above)
    for depth in range(1, len(tree.levels)):
        assert np.array_equal(confusion.own_matrix(depth), confusion.matrix(depth))
        assert confusion.consistency(depth) == 1 or math.isnan(confusion.consistency(depth))
    assert not confusion.withholds


@settings(max_examples=20, deadline=None)
@given(SHAPES, SEEDS, st.integers(0, 3))
def test_own_counts_add_up_over_processes(shape: str, seed: int, cut: int) -> None:
    tree, rng = TREES[shape], np.random.default_rng(seed)
    whole, first, second = Confusion(tree), Confusion(tree), Confusion(tree)
    for n in range(3):
        truth, predicted = random_image(tree, rng)
        above = _random_above(tree, rng, truth.shape)
        for confusion in (whole, first if n < cut else second):
            confusion.add(truth, predicted, above=above)
    theirs = [matrix.copy() for matrix in (*second.own, *second.joint)]
    first.merge(second)
    first.merge(Confusion(tree))
    assert all(np.array_equal(a, b) for a, b in zip((*first.own, *first.joint), (*whole.own, *whole.joint), strict=True))
    first.add(truth, predicted, above=above)
    assert all(np.array_equal(a, b) for a, b in zip((*second.own, *second.joint), theirs, strict=True))


def test_an_unknown_id_or_size_of_an_own_map_is_refused_before_anything_is_counted() -> None:
    truth, confusion = TwoLevelMap(np.zeros((1, 3), np.uint8), np.zeros((1, 3), np.uint8)), Confusion(TOY)
    with pytest.raises(DataError, match=r"a\.png: predicted id 3 on 1 pixels; the hierarchy has 3 coarse classes"):
        confusion.add(truth, truth.fine, "a.png", [np.array([[0, 3, 1]], np.uint8)])
    with pytest.raises(DataError, match=r"a\.png: prediction is \(3, 1\), truth is \(1, 3\)"):
        confusion.add(truth, truth.fine, "a.png", [np.zeros((3, 1), np.uint8)])
    assert confusion.counts.sum() == confusion.n_images == 0


def test_summary_of_own_maps_by_hand() -> None:
    # Truth f0 f1 f1 f3; fine said f0 f1 f3 f3, coarse said c0 c0 c1 c2.
    truth = np.array([[0, 1, 1, 3]], np.uint8)
    confusion = Confusion(TOY)
    confusion.add(
        TwoLevelMap(truth, lift(truth, TOY)), np.array([[0, 1, 3, 3]], np.uint8), above=[np.array([[0, 0, 1, 2]], np.uint8)]
    )
    summary = summarize(confusion)
    assert summary["protocol"] == "own"
    assert [entry["iou"] for entry in summary["levels"]["coarse"]["classes"]] == [1 / 2, 1 / 2, 1]
    assert [entry["iou"] for entry in summary["merged"]["coarse"]["classes"]] == [1, 1 / 2, 1 / 2]
    assert summary["consistency"] == {"coarse": 2 / 4}
    assert list(summary["merged"]) == ["coarse"]
    assert summary["mistake_severity"] == 2
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_withheld_fine_class_is_a_miss_there_and_nothing_wrong_above() -> None:
    truth = np.array([[1, 1, 3]], np.uint8)
    confusion = Confusion(TOY)
    confusion.add(
        TwoLevelMap(truth, lift(truth, TOY)), np.array([[1, VOID, 3]], np.uint8), above=[np.array([[1, 1, 2]], np.uint8)]
    )
    summary = summarize(confusion)
    assert summary["levels"]["fine"]["classes"][1]["iou"] == 1 / 2
    assert summary["levels"]["coarse"]["miou"] == 1
    assert summary["consistency"] == {"coarse": 1}
    assert summary["mistake_severity"] is None
    assert confusion.withholds


# -- back-off over thresholds ------------------------------------------------------------------------------------------


def test_curve_by_hand() -> None:
    # Five pixels, the last without a fine label. Truth f1 f1 f0 f3; best leaves f1 f2 f1 f3.
    truth = TwoLevelMap(np.array([[1, 1, 0, 3, 255]], np.uint8), np.array([[1, 1, 0, 2, 1]], np.uint8))
    ids: list[LabelArray] = [np.array([[1, 2, 1, 3, 1]], np.uint8), np.array([[1, 1, 1, 2, 1]], np.uint8)]
    probabilities = [np.array([p], np.float32) for p in ([0.9, 0.4, 0.3, 0.5, 0.9], [0.95, 0.8, 0.6, 0.5, 0.9])]
    curve = BackOffCurve(TOY, [0.9, 0.0, 0.5, 1.0])
    curve.add(truth, ids, probabilities)
    nothing, half, most, all_ = (curve.points()[k] for k in (3, 1, 2, 0))
    assert all_ == {
        "threshold": 0.0, "accuracy": 2 / 4, "coverage": 1, "mean_depth": 2,
        "levels": {"fine": {"share": 1, "accuracy": 2 / 4}, "coarse": {"share": 0, "accuracy": None}},
    }  # fmt: skip
    assert half == {  # fine: f1 right, f3 right; coarse: c1 right, c1 wrong
        "threshold": 0.5, "accuracy": 3 / 4, "coverage": 1, "mean_depth": (2 + 1 + 1 + 2) / 4,
        "levels": {"fine": {"share": 1 / 2, "accuracy": 1}, "coarse": {"share": 1 / 2, "accuracy": 1 / 2}},
    }  # fmt: skip
    assert (most["threshold"], most["accuracy"], most["coverage"], most["mean_depth"]) == (0.9, 1, 1 / 4, 2 / 4)
    assert nothing["accuracy"] is None
    assert (nothing["coverage"], nothing["mean_depth"]) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_curve_agrees_with_a_loop_over_pixels_and_says_more_at_lower_thresholds(
    shape: str, seed: int, thresholds: list[float]
) -> None:
    tree, rng = TREES[shape], np.random.default_rng(seed)
    curve, parts = BackOffCurve(tree, thresholds), [BackOffCurve(tree, thresholds) for _ in "ab"]
    pixels = []
    for part in parts:
        truth, _predicted = random_image(tree, rng)
        leaf = rng.integers(0, tree.n_fine, truth.shape)
        ids = [tree.ancestors(depth)[leaf].astype(label_dtype(len(level))) for depth, level in enumerate(tree.levels)]
        probabilities = np.sort(
            rng.choice([*thresholds, *rng.random(5)], (len(ids), *truth.shape)).astype(np.float32), axis=0
        )
        curve.add(truth, ids, list(probabilities))
        part.add(truth, ids, list(probabilities))
        for y, x in np.argwhere(truth.fine != ignore_value(truth.fine.dtype)).tolist():
            pixels.append((int(truth.fine[y, x]), int(leaf[y, x]), probabilities[:, y, x].tolist()))
    points = curve.points()
    parts[0].merge(parts[1])
    assert parts[0].points() == points
    assert [point["threshold"] for point in points] == sorted(thresholds)
    for point in points:
        said, right = [0] * len(tree.levels), 0
        for fine, leaf_id, chain in pixels:
            reached = [depth for depth, p in enumerate(chain) if p >= np.float32(point["threshold"])]
            if reached:
                said[reached[0]] += 1
                right += names_above(tree, fine)[reached[0]] == names_above(tree, leaf_id)[reached[0]]
        assert point["accuracy"] == (right / sum(said) if sum(said) else None)
        assert point["coverage"] == (sum(said) / len(pixels) if pixels else None)
        assert [level["share"] for level in point["levels"].values()] == [n / len(pixels) if pixels else None for n in said]
    for low, high in pairwise(points):
        if pixels:
            assert low["coverage"] >= high["coverage"]
            assert low["levels"]["fine"]["share"] >= high["levels"]["fine"]["share"]


# -- mistake severity --------------------------------------------------------------------------------------------------


def test_severity_by_hand() -> None:
    assert mistake_severity(one_image(TOY, [[1, 1]], [[1, 2]])) == 1  # a sibling
    assert mistake_severity(one_image(TOY, [[1, 1]], [[1, 3]])) == 2  # another family
    assert mistake_severity(one_image(TOY, [[1, 1]], [[1, VOID]])) == 2
    assert mistake_severity(one_image(TOY, [[1, 1, 1, 1, 0]], [[2, 2, 0, 1, 0]])) == pytest.approx(4 / 3)
    assert math.isnan(mistake_severity(one_image(TOY, [[0, 1, 2]], [[0, 1, 2]])))


def test_severity_of_three_levels_by_hand() -> None:
    assert mistake_severity(one_image(DEEP, [[0]], [[1]])) == 1  # same coarse class
    assert mistake_severity(one_image(DEEP, [[0]], [[2]])) == 2  # same top class
    assert mistake_severity(one_image(DEEP, [[0]], [[4]])) == 3
    assert mistake_severity(one_image(DEEP, [[0]], [[VOID]])) == 3
    assert mistake_severity(one_image(DEEP, [[0, 0, 0, 3]], [[1, 3, 4, 3]])) == pytest.approx(6 / 3)


def test_severity_looks_at_pixels_with_a_fine_label_only() -> None:
    assert mistake_severity(one_image(TOY, [[1, 255]], [[2, 3]], [[1, 1]])) == 1


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([TOY, DEEP, tree_of([0, 0, 1, 2, 2], [0, 1, 1])]), SEEDS)
def test_severity_agrees_with_walking_up_thetree_of(tree: Hierarchy, seed: int) -> None:
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    confusion = Confusion(tree)
    confusion.add(truth, predicted)
    heights = []
    for t, p in zip(truth.fine.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t in (p, 255):
            continue
        mine, theirs = names_above(tree, t), names_above(tree, p) if p != VOID else []
        shared = [height for height, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a == b]
        heights.append(min(shared, default=len(tree.levels)))
    np.testing.assert_allclose(mistake_severity(confusion), np.mean(heights) if heights else math.nan)


# -- summary -----------------------------------------------------------------------------------------------------------


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, float) else []


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS, st.sampled_from(["zero", "skip"]), st.booleans())
def test_summary_is_json_without_nan(shape: str, seed: int, absent: Absent, empty: bool) -> None:
    tree = TREES[shape]
    confusion = Confusion(tree)
    if not empty:
        confusion.add(*random_image(tree, np.random.default_rng(seed)))
    summary = summarize(confusion, absent)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert not any(math.isnan(number) for number in _numbers(summary))
    assert list(summary["levels"]) == [level.name for level in tree.levels]
    for level in tree.levels:
        entry = summary["levels"][level.name]
        assert entry["classes_averaged"] + len(entry["left_out"]) == len(level)
        assert [item["name"] for item in entry["classes"]] == level.names
        defined = [item["iou"] for item in entry["classes"] if item["iou"] is not None]
        assert entry["miou"] == (pytest.approx(sum(defined) / len(defined)) if defined else None)


def test_summary_by_hand() -> None:
    summary = summarize(one_image(TOY, [[0, 0, 1, 1]], [[0, 0, 1, 3]]), "skip")
    assert (summary["protocol"], summary["absent_rule"], summary["images"]) == ("merged", "skip", 1)
    assert summary["mistake_severity"] == 2
    fine = summary["levels"]["fine"]
    assert fine["miou"] == 3 / 4
    assert fine["miou_without_background"] == 1 / 2
    assert fine["left_out"] == ["f2", "f3"]
    assert fine["classes"][1] == {
        "id": 1, "name": "f1", "iou": 1 / 2, "accuracy": 1 / 2, "precision": 1.0, "dice": 2 / 3,
        "pixels": 2, "predicted": 1,
    }  # fmt: skip
    assert fine["classes"][2]["iou"] is None
    assert "single_leaf_classes" not in fine
    assert summary["levels"]["coarse"]["single_leaf_classes"] == 2


def test_classes_of_a_single_leaf_are_counted_on_every_upper_level() -> None:
    summary = summarize(Confusion(DEEP))  # t1 has c2 alone, which has f4 alone
    assert [summary["levels"][name]["single_leaf_classes"] for name in ("coarse", "top")] == [1, 1]
