"""Errors on the tree agree with walking a graph of it, and with cases done by hand; siblings and cousins likewise."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import DEEP, SEEDS, TOY, VOID, names_above, one_image, random_image, tree_of

from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.metrics import Confusion, mistake_severity, score, summarize, tree_errors
from hiposeg_cli.metrics.tree import cousin_miou, family_iou, lca_depths, lca_heights, path_lengths, sibling_miou


def _node(number: int, name: str, parent: str | None = None, implicit: bool = False) -> ClassNode:
    return ClassNode(number, name, (0, 0, 0), parent, implicit=implicit)


# animal: cat (head, body), dog without parts; sky, padded twice; plant: tree and grass, both without parts
RAGGED = Hierarchy(
    "ragged",
    (
        Level("fine", (_node(0, "head", "cat"), _node(1, "body", "cat"), _node(2, "dog", "dog", True),
                       _node(3, "sky", "sky", True), _node(4, "tree", "tree", True), _node(5, "grass", "grass", True))),
        Level("coarse", (_node(0, "cat", "animal"), _node(1, "dog", "animal"), _node(2, "sky", "sky", True),
                         _node(3, "tree", "plant"), _node(4, "grass", "plant"))),
        Level("top", (_node(0, "animal"), _node(1, "sky"), _node(2, "plant"))),
    ),
)  # fmt: skip
TREES = {"toy": TOY, "deep": DEEP, "ragged": RAGGED, "odd": tree_of([0, 0, 1, 2, 2], [0, 1, 1])}
NAMES = st.sampled_from(sorted(TREES))


def _graph(tree: Hierarchy) -> tuple[nx.DiGraph, list[str]]:
    """The tree below a root, copies being one with what they copy, and the node of each fine class."""
    graph, own = nx.DiGraph(), {}
    for depth in range(len(tree.levels) - 1, -1, -1):
        for node in tree.levels[depth].nodes:
            above = own[depth + 1, node.parent] if node.parent else "root"
            own[depth, node.name] = above if node.implicit else f"{depth} {node.name}"
            if not node.implicit:
                graph.add_edge(above, own[depth, node.name])
    return graph, [own[0, name] for name in tree.fine.names]


def _height(graph: nx.DiGraph, node: str) -> int:
    return max(nx.single_source_shortest_path_length(graph, node).values())


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_distances_agree_with_the_graph(tree: Hierarchy) -> None:
    graph, leaves = _graph(tree)
    plain = graph.to_undirected()
    heights, shared, paths = lca_heights(tree), lca_depths(tree), path_lengths(tree)
    for i, true in enumerate(leaves):
        for k, said in enumerate([*leaves, "root"]):
            meet = nx.lowest_common_ancestor(graph, true, said)
            assert heights[i, k] == _height(graph, meet)
            assert shared[i, k] == nx.shortest_path_length(graph, "root", meet)
            assert paths[i, k] == nx.shortest_path_length(plain, true, said)


def test_ragged_tree_by_hand() -> None:
    """A class that is padded down is no deeper for it: sky is one step below the root, dog and tree two, head three."""
    heights, paths = lca_heights(RAGGED), path_lengths(RAGGED)
    assert heights[0].tolist() == [0, 1, 2, 3, 3, 3, 3]
    assert heights[4].tolist() == [3, 3, 3, 3, 0, 1, 3]  # tree and grass meet in plant, which has only leaves below
    assert paths[0].tolist() == [0, 2, 3, 4, 5, 5, 3]
    assert paths[3].tolist() == [4, 4, 3, 0, 3, 3, 1]
    assert lca_depths(RAGGED).diagonal().tolist() == [3, 3, 2, 1, 2, 2]


def test_errors_by_hand() -> None:
    # f1 four times: right, sibling f2, other family f3, void; f0 once, right.
    errors = tree_errors(one_image(TOY, [[1, 1, 1, 1, 0]], [[1, 2, 3, VOID, 0]]))
    assert errors.distance == (0 + 1 + 2 + 2 + 0) / 5
    assert errors.severity == (1 + 2 + 2) / 3
    assert errors.balanced_distance == (5 / 4 + 0) / 2
    assert errors.balanced_severity == 5 / 3  # f0 has no mistakes
    assert errors.path_distance == (0 + 2 + 4 + 2 + 0) / 5
    assert errors.path_severity == 8 / 3
    assert errors.precision == (2 + 1 + 0 + 0 + 2) / (2 + 2 + 2 + 0 + 2)
    assert errors.recall == 5 / 10
    assert errors.f_score == pytest.approx(2 * (5 / 8) * (1 / 2) / (5 / 8 + 1 / 2))


def test_without_mistakes_or_without_pixels() -> None:
    right = tree_errors(one_image(TOY, [[0, 1, 2]], [[0, 1, 2]]))
    assert (right.distance, right.path_distance, right.f_score) == (0, 0, 1)
    assert math.isnan(right.severity)
    assert math.isnan(right.balanced_severity)
    assert all(value is None for value in tree_errors(Confusion(TOY)).summary().values())
    assert tree_errors(one_image(TOY, [[0]], [[3]])).f_score == 0


@settings(max_examples=60, deadline=None)
@given(NAMES, SEEDS)
def test_errors_agree_with_a_loop_over_pixels(name: str, seed: int) -> None:
    tree = TREES[name]
    graph, leaves = _graph(tree)
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    confusion = Confusion(tree)
    confusion.add(truth, predicted)
    by_class: dict[int, list[int]] = {}
    shared = said_steps = true_steps = 0
    for t, p in zip(truth.fine.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t == VOID:
            continue
        true, said = leaves[t], leaves[p] if p != VOID else "root"
        by_class.setdefault(t, []).append(_height(graph, nx.lowest_common_ancestor(graph, true, said)))
        mine, theirs = ({node, *nx.ancestors(graph, node)} - {"root"} for node in (true, said))
        shared, said_steps, true_steps = shared + len(mine & theirs), said_steps + len(theirs), true_steps + len(mine)
    errors = tree_errors(confusion)
    every = [height for heights in by_class.values() for height in heights]
    np.testing.assert_allclose(errors.distance, np.mean(every) if every else math.nan)
    wrong = {t: [height for height in heights if height] for t, heights in by_class.items()}
    mistakes = [height for heights in wrong.values() for height in heights]
    np.testing.assert_allclose(errors.severity, np.mean(mistakes) if mistakes else math.nan)
    assert mistake_severity(confusion) == errors.severity or math.isnan(errors.severity)
    np.testing.assert_allclose(
        errors.balanced_distance, np.mean([np.mean(h) for h in by_class.values()]) if every else math.nan
    )
    balanced = [np.mean(heights) for heights in wrong.values() if heights]
    np.testing.assert_allclose(errors.balanced_severity, np.mean(balanced) if balanced else math.nan)
    np.testing.assert_allclose(errors.precision, shared / said_steps if said_steps else math.nan)
    np.testing.assert_allclose(errors.recall, shared / true_steps if true_steps else math.nan)


# -- siblings and cousins ----------------------------------------------------------------------------------------------


def test_siblings_by_hand() -> None:
    # f1: one right, one taken for its sibling f2, one for f3. f2: right once, void once.
    confusion = one_image(TOY, [[1, 1, 1, 2, 2]], [[1, 2, 3, 2, VOID]])
    iou = family_iou(confusion, 1)
    assert iou[1:].tolist() == [2 / 3, 1 / 2, 0]  # f2 loses its false positive
    assert math.isnan(iou[0])
    assert sibling_miou(confusion) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert cousin_miou(confusion) == sibling_miou(confusion)  # in two levels the grandparent is the root


def test_cousins_by_hand() -> None:
    # f0 taken for its sibling f1, its cousin f2, and the stranger f4.
    confusion = one_image(DEEP, [[0, 0, 0, 0]], [[0, 1, 2, 4]])
    assert family_iou(confusion, 1)[0] == 2 / 4
    assert family_iou(confusion, 2)[0] == 3 / 4


@settings(max_examples=60, deadline=None)
@given(NAMES, SEEDS)
def test_siblings_agree_with_forgiving_pixels_one_by_one(name: str, seed: int) -> None:
    tree = TREES[name]
    truth, predicted = random_image(tree, np.random.default_rng(seed))
    confusion = Confusion(tree)
    confusion.add(truth, predicted)
    for depth in range(1, len(tree.levels)):
        forgiven = predicted.copy()
        for y, x in np.argwhere((truth.fine != VOID) & (predicted != VOID)):
            t, p = int(truth.fine[y, x]), int(predicted[y, x])
            if names_above(tree, t)[depth] == names_above(tree, p)[depth]:
                forgiven[y, x] = t
        again = Confusion(tree)
        again.add(truth, forgiven)
        np.testing.assert_array_equal(family_iou(confusion, depth), score(again.matrix(0), tree.fine).iou)
    fine = score(confusion.matrix(0), tree.fine).miou
    assert math.isnan(fine) or fine <= sibling_miou(confusion) <= cousin_miou(confusion) <= 1


def names_of(tree: dict[str, float | None]) -> set[str]:
    return {name for name, value in tree.items() if value is not None}


def test_summary_shows_errors_beside_severity_and_none_where_classes_were_withheld() -> None:
    summary = summarize(one_image(TOY, [[1, 1]], [[1, 2]]))
    assert summary["mistake_severity"] == summary["tree"]["severity"] == 1
    assert {"distance", "sibling_miou", "cousin_miou", "h_f_score"} <= names_of(summary["tree"])
