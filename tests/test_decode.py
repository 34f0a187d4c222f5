"""Decoding rules: each agrees with a slow loop over pixels, and keeps the promises it is chosen for."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import Tensor

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.labelmap import ignore_value, lift
from hiposeg_cli.learn import decode
from hiposeg_cli.learn.decode import RULES, Decode, LevelMaps, chain, families, level_scores

SEEDS = st.integers(0, 2**32 - 1)
VOID = 255


def tree_of(*parents: list[int]) -> Hierarchy:
    """A tree by the parents of each level's classes, finest first; the coarsest level follows from the last list."""
    sizes = [len(step) for step in parents] + [max(parents[-1]) + 1]
    levels = []
    for depth, size in enumerate(sizes):
        above = [f"{depth + 1}.{p}" for p in parents[depth]] if depth < len(parents) else [None] * size
        levels.append(Level(f"level{depth}", tuple(ClassNode(k, f"{depth}.{k}", (0, 0, 0), above[k]) for k in range(size))))
    return Hierarchy("random", tuple(levels))


def random_tree(rng: np.random.Generator) -> Hierarchy:
    """Two to four levels; every class has a child, and ids of siblings need not follow each other."""
    sizes = [int(rng.integers(1, 4))]
    for _ in range(int(rng.integers(1, 4))):
        sizes.insert(0, sizes[0] + int(rng.integers(0, 4)))
    steps = []
    for below, above in pairwise(sizes):
        extra = rng.integers(0, above, below - above)
        steps.append(rng.permutation([*range(above), *extra]).astype(int).tolist())
    return tree_of(*steps)


def random_logits(tree: Hierarchy, rng: np.random.Generator, scale: float = 2.0) -> Tensor:
    return torch.from_numpy(rng.normal(0, scale, (tree.n_fine, 4, 5)).astype(np.float32))


TOY = tree_of([0, 1, 1])  # class 0 alone; 1 and 2 are siblings
DEEP = tree_of([0, 0, 1, 2], [0, 0, 1])  # leaves 0, 1 below 0; leaf 2 below 1; both below the top 0; leaf 3 alone


def pixels(*probabilities: list[float]) -> Tensor:
    """(F, 1, N) logits of N pixels with these leaf probabilities, shifted as logits may be."""
    shift = torch.arange(len(probabilities)) * 7.0
    return (torch.tensor(probabilities, dtype=torch.float64).log().T + shift)[:, None].float()


def row(labels: Any) -> list[int]:
    return [int(value) for value in labels.ravel()]


# -- the slow loop -----------------------------------------------------------------------------------------------------


def up(tree: Hierarchy, fine_id: int) -> list[int]:
    """The ids of a leaf and its ancestors, by following names."""
    node, ids = tree.fine.nodes[fine_id], [fine_id]
    for level in tree.levels[1:]:
        (node,) = [other for other in level.nodes if other.name == node.parent]
        ids.append(node.id)
    return ids


def best(scores: dict[int, float]) -> int:
    """Whose score is largest; draws that rounding could decide are not looked at."""
    ranked = sorted(scores.values())
    if len(ranked) > 1 and ranked[-1] - ranked[-2] < 1e-4:
        reject()
    return max(scores, key=lambda key: scores[key])


def slow_pixel(tree: Hierarchy, logits: list[float], rule: str, threshold: float) -> list[int]:
    """One pixel's class on each level; VOID where it is withheld."""
    weights = [math.exp(value - max(logits)) for value in logits]
    chains = [up(tree, leaf) for leaf in range(tree.n_fine)]
    p = [
        {k: math.fsum(weights[leaf] for leaf in range(tree.n_fine) if chains[leaf][depth] == k) / math.fsum(weights)
         for k in range(len(level))}
        for depth, level in enumerate(tree.levels)
    ]  # fmt: skip
    if rule == "sum":
        return [best(level) for level in p]
    if rule == "path-sum":
        total = {leaf: sum(math.log(p[d][k]) for d, k in enumerate(chains[leaf])) for leaf in range(tree.n_fine)}
        return up(tree, best(total))
    if rule == "top-down":
        allowed = set(range(tree.n_fine))
        for depth in range(len(tree.levels) - 1, -1, -1):
            choice = best({chains[leaf][depth]: p[depth][chains[leaf][depth]] for leaf in allowed})
            allowed = {leaf for leaf in allowed if chains[leaf][depth] == choice}
        return up(tree, allowed.pop())
    said = up(tree, best(p[0]))
    if rule == "back-off":
        if any(abs(p[depth][k] - threshold) < 1e-4 for depth, k in enumerate(said)):
            reject()
        return [k if p[depth][k] >= threshold else VOID for depth, k in enumerate(said)]
    return said


def whole(maps: LevelMaps, tree: Hierarchy) -> list[Any]:
    """Maps of all levels: those above a fine map that came alone are its ancestors."""
    if len(maps) > 1:
        return list(maps)
    return [np.vectorize(lambda fine, depth=depth: up(tree, fine)[depth])(maps[0]) for depth in range(len(tree.levels))]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RULES), SEEDS, st.floats(0.05, 0.95))
def test_rules_agree_with_a_loop_over_pixels(rule: str, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    logits = random_logits(tree, rng)
    said = whole(Decode(rule, threshold if rule == "back-off" else None).maps(logits, tree), tree)
    assert len(said) == len(tree.levels)
    for y in range(4):
        for x in range(5):
            assert [int(level[y, x]) for level in said] == slow_pixel(tree, logits[:, y, x].tolist(), rule, threshold)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([0.01, 2.0, 40.0]))
def test_level_scores_are_the_logs_of_summed_softmax(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    logits = random_logits(tree, rng, scale)
    softmax = logits.double().softmax(dim=0)
    scores = level_scores(logits, tree)
    total = logits.double().logsumexp(dim=0)
    for depth, level in enumerate(tree.levels):
        at = torch.from_numpy(tree.ancestors(depth))
        summed = torch.zeros(len(level), 4, 5, dtype=torch.float64).index_add(0, at, softmax)
        torch.testing.assert_close((scores[depth].double() - total).exp(), summed, rtol=1e-4, atol=1e-12)
        assert scores[depth].dtype == torch.float32


def test_families_are_the_children_in_id_order() -> None:
    assert families(DEEP, 1) == [[0, 1], [2], [3]]
    assert families(DEEP, 2) == [[0, 1], [2]]
    assert families(tree_of([1, 0, 1]), 1) == [[1], [0, 2]]


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_a_leaf_that_wins_alone_against_a_family_that_wins_together() -> None:
    logits = pixels([0.40, 0.32, 0.28])
    assert [row(m) for m in Decode().maps(logits, TOY)] == [[0]]
    assert [row(m) for m in Decode("sum").maps(logits, TOY)] == [[0], [1]]  # .6 for the family: the levels disagree
    assert [row(m) for m in Decode("top-down").maps(logits, TOY)] == [[1]]
    assert [row(m) for m in Decode("path-sum").maps(logits, TOY)] == [[1]]  # .32 * .60 over .40 * .40
    assert [row(m) for m in Decode("path-sum").maps(pixels([0.45, 0.35, 0.20]), TOY)] == [[0]]  # .45 * .45 over .35 * .55


def test_back_off_goes_up_as_far_as_it_must() -> None:
    logits = pixels([0.10, 0.45, 0.45], [0.10, 0.60, 0.30], [0.45, 0.30, 0.25])
    assert [row(m) for m in Decode("back-off", 0.5).maps(logits, TOY)] == [[VOID, 1, VOID], [1, 1, VOID]]
    assert [row(m) for m in Decode("back-off", 0.95).maps(logits, TOY)] == [[VOID] * 3, [VOID] * 3]
    deep = pixels([0.40, 0.20, 0.35, 0.05], [0.40, 0.35, 0.05, 0.20], [0.30, 0.25, 0.20, 0.25])
    maps = Decode("back-off", 0.7).maps(deep, DEEP)
    assert [row(m) for m in maps] == [[VOID, VOID, VOID], [VOID, 0, VOID], [0, 0, 0]]
    assert [row(m) for m in Decode("back-off", 0.78).maps(deep, DEEP)] == [[VOID] * 3, [VOID] * 3, [0, 0, VOID]]


def test_16_bit_levels_have_their_own_void() -> None:
    tree = tree_of([k % 3 for k in range(300)])
    logits = torch.zeros(300, 1, 2)
    logits[255, 0, 0] = 20
    fine, coarse = Decode("back-off", 0.5).maps(logits, tree)
    assert (fine.dtype, coarse.dtype) == (np.uint16, np.uint8)
    assert (row(fine), row(coarse)) == ([255, 65535], [0, 255])
    for rule in ("leaf", "sum", "top-down", "path-sum"):
        assert Decode(rule).maps(logits, tree)[0][0, 0] == 255


def test_large_scores_do_not_overflow() -> None:
    logits = torch.tensor([9e4, 9e4 - 1, -9e4])[:, None, None]
    fine, coarse = Decode("sum").maps(logits, TOY)
    assert (row(fine), row(coarse)) == ([0], [0])
    assert chain(logits, TOY).probabilities[0][0, 0] == pytest.approx(1 / (1 + math.exp(-1)), abs=0.01)


# -- promises ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["leaf", "top-down", "path-sum", "back-off"]), SEEDS, st.floats(0, 1))
def test_coarse_is_the_parent_of_every_fine_class_that_is_said(rule: str, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    fine, *above = Decode(rule, threshold if rule == "back-off" else None).maps(random_logits(tree, rng), tree)
    coarse = above[0] if above else lift(fine, tree)
    known = fine != ignore_value(fine.dtype)
    assert np.array_equal(coarse[known], tree.parent[fine[known]])
    assert known.all() or rule == "back-off"


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_where_no_parent_has_two_children_the_rules_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, depth = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    tree = tree_of(*(rng.permutation(size).tolist() for _ in range(depth)))
    logits = random_logits(tree, rng)
    leaf = Decode().maps(logits, tree)[0]
    for rule in ("sum", "top-down", "path-sum"):
        said = whole(Decode(rule).maps(logits, tree), tree)
        assert all(np.array_equal(a, b) for a, b in zip(said, whole((leaf,), tree), strict=True))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0, 1), st.floats(0, 1))
def test_back_off_says_everything_at_0_and_more_the_lower_the_threshold(seed: int, first: float, second: float) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    logits = random_logits(tree, rng)
    everything = Decode("back-off", 0.0).maps(logits, tree)
    leaf = whole(Decode().maps(logits, tree), tree)
    assert all(np.array_equal(a, b) for a, b in zip(everything, leaf, strict=True))
    low, high = (Decode("back-off", t).maps(logits, tree) for t in sorted((first, second)))
    for said_low, said_high, whole_level in zip(low, high, leaf, strict=True):
        told = said_high != VOID
        assert np.array_equal(said_high[told], said_low[told])
        assert np.array_equal(said_low[said_low != VOID], whole_level[said_low != VOID])


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([0.001, 3.0, 1000.0]))
def test_probability_never_falls_upwards_nor_passes_one(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng)
    found = chain(random_logits(tree, rng, scale), tree)
    for below, above in pairwise(found.probabilities):
        assert (below <= above).all()
    assert (found.probabilities[-1] <= 1).all()


def test_leaf_computes_nothing_but_the_argmax(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("leaf needs no sums")

    monkeypatch.setattr(decode, "level_scores", never)
    logits = torch.rand(3, 4, 5)
    (fine,) = Decode().maps(logits, TOY)
    assert np.array_equal(fine, logits.numpy().argmax(axis=0))


def test_scores_are_not_written_to() -> None:
    logits = random_logits(DEEP, np.random.default_rng(0))
    before = logits.clone()
    for rule in RULES:
        Decode(rule, 0.5 if rule == "back-off" else None).maps(logits, DEEP)
    assert torch.equal(logits, before)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "threshold", "words"),
    [
        ("top_down", None, "--decode top_down: is not a choice - did you mean 'top-down'"),
        ("back-off", None, "--decode back-off: needs a probability - add --confidence"),
        ("back-off", 1.5, "--confidence 1.5: is no probability - choose between 0 and 1"),
        ("back-off", -0.1, "--confidence -0.1: is no probability"),
        ("back-off", math.nan, "--confidence nan: is no probability"),
        ("sum", 0.7, "--confidence 0.7: has no meaning for --decode sum - pass --decode back-off"),
    ],
)
def test_wrong_rules_and_thresholds_are_refused(rule: str, threshold: float | None, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Decode(rule, threshold)
    assert words in str(caught.value)


def test_names_tell_thresholds_apart() -> None:
    names = {Decode("back-off", t).name for t in (0.7, 0.70000001, 0.0)} | {Decode(rule).name for rule in RULES[:-1]}
    assert len(names) == 3 + len(RULES) - 1
