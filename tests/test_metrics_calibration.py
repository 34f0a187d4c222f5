"""Calibration agrees with the definition worked out pixel by pixel, and adds up exactly."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from metric_cases import DEEP, SEEDS, SHAPES, TOY, TREES, VOID, names_above, random_image
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, label_dtype, lift
from hiposeg_cli.metrics.calibration import BINS, ClassReliability, Reliability, level_probabilities

Levels = list[NDArray[np.float32]]


def _probabilities(tree: Hierarchy, rng: np.random.Generator, size: tuple[int, int] = (6, 7)) -> Levels:
    scores = rng.standard_exponential((tree.n_fine, *size)) ** 2
    return level_probabilities(tree, (scores / scores.sum(axis=0)).astype(np.float32))


def _best(tree: Hierarchy, levels: Levels) -> tuple[list[LabelArray], Levels]:
    ids = [p.argmax(axis=0).astype(label_dtype(len(level))) for p, level in zip(levels, tree.levels, strict=True)]
    return ids, [p.max(axis=0) for p in levels]


def _error(pixels: list[tuple[float, bool]]) -> float:
    """ECE of (probability, right) pairs by its definition."""
    total = 0.0
    for b in range(BINS):
        inside = [(p, right) for p, right in pixels if min(int(np.float32(p) * np.float32(BINS)), BINS - 1) == b]
        if inside:
            total += abs(sum(right for _p, right in inside) - sum(p for p, _right in inside))
    return total / len(pixels) if pixels else math.nan


@settings(max_examples=20, deadline=None)
@given(SHAPES, SEEDS)
def test_errors_agree_with_their_definition(shape: str, seed: int) -> None:
    tree, rng = TREES[shape], np.random.default_rng(seed)
    truth, _ = random_image(tree, rng)
    levels = _probabilities(tree, rng)
    ids, confidences = _best(tree, levels)
    top, classes = Reliability(tree), ClassReliability(tree)
    top.add(truth, ids, confidences)
    classes.add(truth, levels)
    for depth, level in enumerate(tree.levels):
        labels = truth.coarse if depth else truth.fine
        chains = [names_above(tree, k)[depth] for k in range(tree.n_fine)]
        true_names = {k: chains[k] for k in range(tree.n_fine)} if depth == 0 else {
            c: names_above(tree, int(np.flatnonzero(tree.parent == c)[0]))[depth] for c in range(tree.n_coarse)
        }  # fmt: skip
        known = [(y, x) for y, x in np.argwhere(labels != ignore_value(labels.dtype)).tolist()]
        true = {place: level.names.index(true_names[int(labels[place])]) for place in known}
        expected = _error([(float(confidences[depth][p]), int(ids[depth][p]) == true[p]) for p in known])
        np.testing.assert_allclose(top.error(depth), expected, atol=1e-6)
        if len(level) < 10:
            by_class = [_error([(float(levels[depth][k][p]), true[p] == k) for p in known]) for k in range(len(level))]
            np.testing.assert_allclose(classes.error(depth), np.mean(by_class), atol=1e-6)


def test_by_hand() -> None:
    # f1 with 0.9 three times, right twice; 1.0, right: |2 - 2.7| / 4 + |1 - 1| / 4, all in different bins.
    fine = np.array([[1, 1, 0, 3, 255]], np.uint8)
    truth = TwoLevelMap(fine, lift(fine, TOY))
    top = Reliability(TOY)
    ids = [np.array([[1, 1, 1, 3, 1]], np.uint8), np.array([[1, 1, 1, 2, 1]], np.uint8)]
    top.add(truth, ids, [np.array([[0.9, 0.9, 0.9, 1, 1]], np.float32)] * 2)
    assert top.error(0) == pytest.approx(0.7 / 4, abs=1e-7)
    diagram = top.diagram(0)
    assert len(diagram) == BINS == 20
    assert diagram[18] == {
        "low": 0.9, "high": 0.95, "pixels": 3, "accuracy": pytest.approx(2 / 3), "confidence": pytest.approx(0.9, abs=1e-7),
    }  # fmt: skip
    assert (diagram[19]["pixels"], diagram[19]["accuracy"]) == (1, 1)
    assert diagram[0]["accuracy"] is None


def test_certain_and_right_is_calibrated_on_every_level() -> None:
    fine = np.array([[0, 1, 2, 3, 4]], np.uint8)
    truth, leaf = TwoLevelMap(fine, lift(fine, DEEP)), np.eye(5, dtype=np.float32)[:, None]
    levels, top, classes = level_probabilities(DEEP, leaf), Reliability(DEEP), ClassReliability(DEEP)
    top.add(truth, *_best(DEEP, levels))
    classes.add(truth, levels)
    assert [top.error(d) for d in range(3)] == [classes.error(d) for d in range(3)] == [0, 0, 0]


def test_leaf_probabilities_sum_upwards() -> None:
    levels = _probabilities(DEEP, np.random.default_rng(0))
    np.testing.assert_allclose(levels[1][0], levels[0][0] + levels[0][1], rtol=1e-6)
    np.testing.assert_allclose(levels[2][0], levels[0][:4].sum(axis=0), rtol=1e-6)
    assert [len(level) for level in levels] == [5, 3, 2]


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_sums_are_exact_in_any_order_and_split(seed: int) -> None:
    """Float sums would differ in the last digit."""
    rng = np.random.default_rng(seed)
    images = [(random_image(DEEP, rng)[0], _probabilities(DEEP, rng)) for _ in range(4)]
    whole, parts = (Reliability(DEEP), ClassReliability(DEEP)), [(Reliability(DEEP), ClassReliability(DEEP)) for _ in "ab"]
    for n, (truth, levels) in enumerate(images):
        for top, classes in (whole, parts[n % 2]):
            top.add(truth, *_best(DEEP, levels))
            classes.add(truth, levels)
    for mine, theirs in zip(parts[1], parts[0], strict=True):
        mine.merge(theirs)
    assert parts[1][0].summary() == whole[0].summary()
    assert parts[1][1].summary() == whole[1].summary()


def test_an_image_in_pieces_counts_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    truth, _ = random_image(DEEP, rng, (40, 30))
    levels = _probabilities(DEEP, rng, (40, 30))
    whole, pieces = ClassReliability(DEEP), ClassReliability(DEEP)
    whole.add(truth, levels)
    for start in range(0, 40, 7):
        rows = slice(start, start + 7)
        pieces.add(TwoLevelMap(truth.fine[rows], truth.coarse[rows]), [level[:, rows] for level in levels])
    assert all(np.array_equal(a, b) for a, b in zip(whole.counts, pieces.counts, strict=True))


def test_summary_is_json_without_nan() -> None:
    for empty in (Reliability(TOY), ClassReliability(TOY)):
        assert json.loads(json.dumps(empty.summary(), allow_nan=False)) == empty.summary()
    nothing = np.full((2, 2), VOID, np.uint8)
    top = Reliability(TOY)
    top.add(TwoLevelMap(nothing, nothing), [nothing * 0] * 2, [np.ones((2, 2), np.float32)] * 2)
    assert math.isnan(top.error(0))
