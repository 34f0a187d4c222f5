"""Means over scores, protocols, and the edge cases that every evaluator is held to."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import DEEP, SEEDS, SHAPES, TOY, TREES, VOID, one_image, random_image, tree_of

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.labelmap import TwoLevelMap, lift
from hiposeg_cli.metrics import PROTOCOLS, Confusion, find_protocol, score, summarize
from hiposeg_cli.metrics.confusion import class_counts
from hiposeg_cli.metrics.cross_table import cross_table, pieces
from hiposeg_cli.metrics.scores import ZeroShot, below, branching_miou, iou_of, n_leaves, object_average, zero_shot

# -- tables ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    SEEDS, st.sampled_from([np.uint8, np.uint16]), st.sampled_from([np.uint8, np.uint16]), st.integers(1, 40),
    st.sampled_from([(3, 5), (40, 50), (300, 300), (900, 700)]),
)  # fmt: skip
def test_tables_agree_with_adding_one_by_one(seed: int, first: type, second: type, run: int, shape: tuple[int, int]) -> None:
    """Runs, noise and pieces are counted in ways of their own."""
    rng = np.random.default_rng(seed)
    n_rows, n_columns = int(rng.integers(1, 255)), int(rng.integers(1, 255))

    def drawn(dtype: type) -> np.ndarray:
        ids = [*range(255 if dtype is np.uint8 else 300), np.iinfo(dtype).max]
        return (
            rng.choice(ids, shape[0] * shape[1] // run + 1).repeat(run)[: shape[0] * shape[1]].reshape(shape).astype(dtype)
        )

    rows, columns = drawn(first), drawn(second)
    expected = np.zeros((n_rows + 2, n_columns + 2), dtype=np.int64)
    places = [
        np.where(ids == np.iinfo(ids.dtype).max, 0, np.minimum(ids.astype(int) + 1, n + 1))
        for ids, n in ((rows, n_rows), (columns, n_columns))
    ]
    np.add.at(expected, tuple(places), 1)
    assert np.array_equal(cross_table(rows, columns, n_rows, n_columns), expected)


def test_all_ways_of_counting_were_reached() -> None:
    """The test above would say nothing of a way that no size reaches."""
    runs = np.zeros((900, 700), np.uint8)
    noise = np.random.default_rng(0).integers(0, 9, (900, 700)).astype(np.uint8)
    assert [piece.lengths is None for piece in pieces((runs, runs))] == [False, False]
    assert [piece.lengths is None for piece in pieces((runs, noise))] == [True, True]
    assert sum(int(piece.lengths.sum()) for piece in pieces((runs, runs)) if piece.lengths is not None) == runs.size


@pytest.mark.parametrize("size", [(4097, 4096), (1, (1 << 24) + 5)])
def test_more_than_2_to_the_24_pixels_are_counted_exactly(size: tuple[int, int]) -> None:
    """float32 counters stop at 2^24."""
    fine = np.zeros(size, np.uint8)
    fine[0, :3] = 1
    confusion = Confusion(TOY)
    confusion.add(TwoLevelMap(fine, fine), np.zeros(size, np.uint8))
    assert confusion.counts[0, 0] == fine.size - 3 > 1 << 24
    assert confusion.counts[1, 0] == 3
    assert score(confusion.matrix(0), TOY.fine).iou[0] == (fine.size - 3) / fine.size


# -- means -------------------------------------------------------------------------------------------------------------


def test_object_average_by_hand() -> None:
    assert object_average(np.array([0.5, 0.2, 0.4, 1.0]), TOY.parent) == pytest.approx((0.5 + 0.3 + 1.0) / 3)
    assert object_average(np.array([0.5, math.nan, 0.4, math.nan]), TOY.parent) == pytest.approx((0.5 + 0.4) / 2)
    assert math.isnan(object_average(np.full(4, math.nan), TOY.parent))


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_object_average_is_a_mean_of_means(shape: str, seed: int) -> None:
    tree, rng = TREES[shape], np.random.default_rng(seed)
    values = np.where(rng.random(tree.n_fine) < 0.3, math.nan, rng.random(tree.n_fine))
    for depth in range(1, len(tree.levels)):
        means = []
        for label in range(len(tree.levels[depth])):
            mine = [v for v, a in zip(values, tree.ancestors(depth), strict=True) if a == label and not math.isnan(v)]
            means += [sum(mine) / len(mine)] if mine else []
        found = object_average(values, tree.ancestors(depth))
        np.testing.assert_allclose(found, np.mean(means) if means else math.nan)


def test_classes_with_one_leaf_leave_the_branching_mean() -> None:
    scores = score(one_image(TOY, [[0, 0, 1, 3]], [[0, 1, 2, 3]]).matrix(1), TOY.coarse)
    assert n_leaves(TOY, 1).tolist() == [1, 2, 1]
    assert branching_miou(scores, TOY, 1) == scores.iou[1]
    assert scores.miou != scores.iou[1]
    assert n_leaves(DEEP, 2).tolist() == [4, 1]


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS, st.sampled_from(["zero", "skip"]))
def test_dice_and_recall_follow_from_counts(shape: str, seed: int, absent: str) -> None:
    tree = TREES[shape]
    confusion = Confusion(tree)
    confusion.add(*random_image(tree, np.random.default_rng(seed)))
    scores = score(confusion.matrix(0), tree.fine, absent)
    np.testing.assert_allclose(scores.dice, 2 * scores.iou / (1 + scores.iou))
    hits, wrong, missed = class_counts(confusion.matrix(0)).astype(float)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(scores.accuracy, hits / (hits + missed))
        np.testing.assert_array_equal(scores.precision, hits / (hits + wrong))


def test_zero_shot_by_hand() -> None:
    iou = np.array([0.6, 0.2, math.nan, 0.4])
    split = zero_shot(iou, below(TOY, 1, {"c1"}))
    assert (split.seen, split.unseen) == (0.5, 0.2)
    assert split.harmonic == pytest.approx(2 * 0.5 * 0.2 / 0.7)
    assert ZeroShot(0.0, 0.0).harmonic == 0
    assert ZeroShot(0.5, 0.0).harmonic == 0
    assert ZeroShot(math.nan, 0.5).summary() == {"seen": None, "unseen": 0.5, "harmonic": None}
    assert below(DEEP, 2, {"t0"}).tolist() == [True] * 4 + [False]


# -- protocols ---------------------------------------------------------------------------------------------------------


def test_unknown_protocol() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cityscapes'"):
        find_protocol("cityscape")
    assert find_protocol("voc") is PROTOCOLS["voc"]


def test_every_protocol_says_what_it_is_in_one_line() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.text
        assert "\n" not in protocol.text


def test_background_is_in_the_mean_or_out_of_it() -> None:
    confusion = one_image(TOY, [[0, 0, 1, 1]], [[0, 1, 1, 3]])
    assert summarize(confusion, PROTOCOLS["voc"])["levels"]["fine"]["miou"] == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    without = summarize(confusion, PROTOCOLS["cityscapes"])["levels"]["fine"]
    assert without["miou"] == pytest.approx((1 / 3 + 0) / 2)  # the background pixel taken for f1 is wrong all the same
    assert (without["classes_averaged"], without["left_out"]) == (2, ["f0", "f2"])


def test_a_class_in_no_truth_is_skipped_by_coco_stuff_only() -> None:
    confusion = one_image(TOY, [[0, 0, 1, 1]], [[0, 0, 1, 3]])
    miou = {name: summarize(confusion, protocol)["levels"]["fine"]["miou"] for name, protocol in PROTOCOLS.items()}
    assert miou.pop("coco-stuff") == pytest.approx((1 + 1 / 2) / 2)
    assert miou.pop("cityscapes") == pytest.approx((1 / 2 + 0) / 2)
    assert list(miou.values()) == pytest.approx([(1 + 1 / 2 + 0) / 3] * 4)


def test_pascal_part_counts_uncovered_pixels_as_background_on_the_finest_level() -> None:
    # Three pixels of c1 without a part: said background, f1, void.
    confusion = one_image(TOY, [[255, 255, 255, 1]], [[0, 1, VOID, 1]], [[1, 1, 1, 1]])
    ignoring, covering = (PROTOCOLS[name].scores(confusion, 0) for name in ("hiposeg", "pascal-part"))
    assert ignoring.pixels.tolist() == [0, 1, 0, 0]
    assert covering.pixels.tolist() == [3, 1, 0, 0]
    assert covering.iou[:2].tolist() == [1 / 3, 1 / 2]
    assert PROTOCOLS["pascal-part"].scores(confusion, 1).iou[1] == 2 / 4  # above, they are the object
    assert summarize(confusion, PROTOCOLS["pascal-part"])["levels"]["fine"]["miou_avg"] == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_uncovered_pixels_need_a_background() -> None:
    with pytest.raises(ConfigError, match="has no background class"):
        Confusion(DEEP).matrix(0, uncovered="background")


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_fine_labelled_pixels_only_are_the_fold_of_the_fine_matrix(shape: str, seed: int) -> None:
    tree = TREES[shape]
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    whole, covered = Confusion(tree), Confusion(tree)
    whole.add(truth, predicted)
    covered.add(TwoLevelMap(truth.fine, lift(truth.fine, tree)), predicted)
    only_fine = replace(PROTOCOLS["hiposeg"], coarse_pixels="fine-labelled")
    for depth in range(len(tree.levels)):
        assert np.array_equal(only_fine.scores(whole, depth).pixels, covered.matrix(depth).sum(axis=1))
        assert np.array_equal(whole.matrix(depth, "fine-labelled"), covered.matrix(depth))


# -- edge cases --------------------------------------------------------------------------------------------------------


def test_one_part_objects_have_equal_scores_on_both_levels() -> None:
    tree = tree_of([0, 1, 1])
    confusion = Confusion(tree)
    truth, predicted = random_image(tree, np.random.default_rng(3), (30, 30))
    confusion.add(TwoLevelMap(truth.fine, lift(truth.fine, tree)), predicted)
    assert score(confusion.matrix(0), tree.fine).iou[0] == score(confusion.matrix(1), tree.coarse).iou[0]


@settings(max_examples=40, deadline=None)
@given(SHAPES, SEEDS)
def test_hits_only_grow_upwards(shape: str, seed: int) -> None:
    tree = TREES[shape]
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    confusion = Confusion(tree)
    confusion.add(truth, predicted)
    hits = [class_counts(confusion.matrix(depth))[0].sum() for depth in range(len(tree.levels))]
    assert hits == sorted(hits)


def test_constant_prediction_by_hand() -> None:
    scores = score(one_image(TOY, [[0, 1, 2, 3]], [[1, 1, 1, 1]]).matrix(0), TOY.fine)
    assert scores.iou.tolist() == [0, 1 / 4, 0, 0]
    assert scores.pixel_accuracy == 1 / 4


def test_an_image_all_ignored_changes_nothing_but_the_share_of_ignored_pixels() -> None:
    nothing = np.full((3, 4), 255, np.uint8)
    confusion = one_image(TOY, [[0, 1]], [[0, 1]])
    before = confusion.counts.copy()
    confusion.add(TwoLevelMap(nothing, nothing), np.zeros((3, 4), np.uint8))
    assert np.array_equal(confusion.counts, before)
    assert summarize(confusion)["ignored_share"] == 12 / 14
    assert summarize(Confusion(TOY))["ignored_share"] is None


def test_iou_of_counts_by_hand() -> None:
    counts = np.array([[2, 0, 0], [1, 3, 0], [1, 0, 0]])
    np.testing.assert_array_equal(iou_of(counts), [2 / 4, 0, math.nan])
    np.testing.assert_array_equal(iou_of(counts, "skip"), [2 / 4, math.nan, math.nan])
