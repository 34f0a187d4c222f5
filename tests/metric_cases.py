"""Trees and images for the tests of metrics."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value, label_dtype, lift
from hiposeg_cli.metrics import Confusion

SEEDS = st.integers(0, 2**32 - 1)
VOID = 255


def tree_of(parents: list[int], tops: list[int] | None = None, background: bool = False) -> Hierarchy:
    """Fine classes f0, f1, ... below coarse c0, c1, ... and, with `tops`, those below t0, t1, ..."""
    kinds = ["background" if background and k == 0 else None for k in range(len(parents))]
    fine = [ClassNode(k, f"f{k}", (0, 0, 0), f"c{p}", kind=kinds[k]) for k, p in enumerate(parents)]
    n_coarse = max(parents) + 1
    coarse = [ClassNode(k, f"c{k}", (0, 0, 0), f"t{tops[k]}" if tops else None, kind=kinds[k]) for k in range(n_coarse)]
    levels = [Level("fine", tuple(fine)), Level("coarse", tuple(coarse))]
    if tops:
        levels.append(Level("top", tuple(ClassNode(k, f"t{k}", (0, 0, 0)) for k in range(max(tops) + 1))))
    return Hierarchy("toy", tuple(levels))


TOY = tree_of([0, 1, 1, 2], background=True)  # c0: f0; c1: f1, f2; c2: f3
DEEP = tree_of([0, 0, 1, 1, 2], [0, 0, 1])  # t0: c0 (f0, f1), c1 (f2, f3); t1: c2 (f4)
TREES = {
    "toy": TOY, "deep": DEEP, "one each": tree_of([0, 1]), "one family": tree_of([0] * 5),
    "16 bit": tree_of([k % 3 for k in range(300)]),
}  # fmt: skip
SHAPES = st.sampled_from(sorted(TREES))


def random_image(
    tree: Hierarchy, rng: np.random.Generator, size: tuple[int, int] = (6, 7)
) -> tuple[TwoLevelMap, LabelArray]:
    """A truth with ignored and coarse-only pixels, and a prediction with void ones."""
    dtype = label_dtype(tree.n_fine)
    ignore = ignore_value(dtype)
    n_used = min(tree.n_fine, 6)
    used = np.sort(rng.choice(tree.n_fine, n_used, replace=False))
    fine: LabelArray = rng.choice([*used, ignore, ignore], size).astype(dtype)
    coarse = lift(fine, tree)
    unlabelled = fine == ignore
    coarse[unlabelled] = rng.choice([*range(tree.n_coarse), 255], int(unlabelled.sum()))
    predicted: LabelArray = np.where(rng.random(size) < 0.5, fine, rng.choice([*used, ignore], size)).astype(dtype)
    return TwoLevelMap(fine, coarse), predicted


def one_image(
    tree: Hierarchy, fine: list[list[int]], predicted: list[list[int]], coarse: list[list[int]] | None = None
) -> Confusion:
    truth = np.array(fine, dtype=np.uint8)
    above = lift(truth, tree) if coarse is None else np.array(coarse, dtype=np.uint8)
    confusion = Confusion(tree)
    confusion.add(TwoLevelMap(truth, above), np.array(predicted, dtype=np.uint8))
    return confusion


def names_above(tree: Hierarchy, fine_id: int) -> list[str]:
    """A fine class and its ancestors, by following names."""
    chain, node = [], tree.fine.nodes[fine_id]
    for level in tree.levels:
        chain.append(node.name)
        if node.parent is not None:
            (node,) = [n for n in tree.levels[tree.levels.index(level) + 1].nodes if n.name == node.parent]
    return chain
