"""SeCS and SpCS agree with loops over pixels, and with cases by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import DEEP, SEEDS, TOY, VOID, names_above, random_image

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, lift
from hiposeg_cli.metrics.chains import Chains


def test_by_hand() -> None:
    # Truth background, then c1 four times. Fine and coarse said: f0 c1 | f1 c1, f1 c2, f3 c2, void c1.
    fine = np.array([[0, 1, 1, 1, 1]], np.uint8)
    chains = Chains(TOY)
    chains.add(
        TwoLevelMap(fine, lift(fine, TOY)), [np.array([[0, 1, 1, 3, VOID]], np.uint8), np.array([[1, 1, 2, 2, 1]], np.uint8)]
    )
    assert chains.semantic() == 2 / 4
    assert chains.spatial(0) == pytest.approx((0 / 1 + 1 / 2 + 1 / 1) / 3)  # f2 is not predicted
    assert chains.summary() == {"secs": 1 / 2, "spcs": {"fine": 1 / 2}}


def test_tiny_parts_win_spatial_consistency() -> None:
    fine = np.full((10, 10), 1, np.uint8)
    predicted = np.zeros((10, 10), np.uint8)
    predicted[0, 0] = 1
    coarse = np.full((10, 10), 1, np.uint8)
    chains = Chains(TOY)
    chains.add(TwoLevelMap(fine, lift(fine, TOY)), [predicted, coarse])
    assert chains.spatial(0) == (0 + 1) / 2
    assert chains.semantic() == 1 / 100


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([TOY, DEEP]), SEEDS)
def test_agree_with_a_loop_over_pixels_and_add_up(tree: Hierarchy, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole, parts = Chains(tree), (Chains(tree), Chains(tree))
    inside = fits = 0
    area: dict[tuple[int, int], list[bool]] = {}
    for n in range(3):
        truth, predicted = random_image(tree, rng)
        above: list[LabelArray] = [
            rng.choice([*range(len(level)), VOID], truth.shape).astype(np.uint8) for level in tree.levels[1:]
        ]
        for chains in (whole, parts[n % 2]):
            chains.add(truth, [predicted, *above])
        for y, x in np.argwhere(truth.coarse != VOID):
            said = [int(labels[y, x]) for labels in (predicted, *above)]
            names = [tree.levels[d].names[k] if k != VOID else None for d, k in enumerate(said)]
            links = []
            for depth, level in enumerate(tree.levels[:-1]):
                parent = level.nodes[said[depth]].parent if names[depth] else None
                links.append(parent is not None and parent == names[depth + 1])
                if names[depth]:
                    area.setdefault((depth, said[depth]), []).append(links[-1])
            if tree.coarse.nodes[truth.coarse[y, x]].kind != "background":
                inside, fits = inside + 1, fits + all(links)
    np.testing.assert_equal(whole.semantic(), fits / inside if inside else math.nan)
    for depth in range(len(tree.levels) - 1):
        shares = [np.mean(links) for (d, _label), links in area.items() if d == depth]
        np.testing.assert_allclose(whole.spatial(depth), np.mean(shares) if shares else math.nan)
    parts[0].merge(parts[1])
    assert parts[0].summary() == whole.summary()


def test_ancestors_are_wholly_consistent() -> None:
    fine = np.array([[0, 1, 2, 3, 4]], np.uint8)
    chains = Chains(DEEP)
    maps = [DEEP.ancestors(depth)[fine].astype(np.uint8) for depth in range(3)]
    chains.add(TwoLevelMap(fine, lift(fine, DEEP)), maps)
    assert chains.summary() == {"secs": 1, "spcs": {"fine": 1, "coarse": 1}}
    assert names_above(DEEP, 4) == ["f4", "c2", "t1"]
    assert json.loads(json.dumps(Chains(DEEP).summary(), allow_nan=False)) == Chains(DEEP).summary()
