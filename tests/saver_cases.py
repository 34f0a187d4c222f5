"""Predictions for the saver tests: small maps over hierarchies of two to four levels, void pixels on each level apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.exports.joint import voc_color
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.infer.prediction import Prediction, Source
from hiposeg_cli.labelmap import LabelArray, ignore_value, label_dtype

Ids = NDArray[np.int64]
VOID_COLOR = (224, 224, 192)  # what PASCAL VOC paints pixels without a label with


def hierarchy(*counts: int) -> Hierarchy:
    """A tree with so many classes on each level, finest first; every class of a level has a colour of its own."""
    names = ["fine", "coarse", "whole", "top"]
    levels = []
    for depth, count in enumerate(counts):
        above = counts[depth + 1] if depth + 1 < len(counts) else 0
        parents = [f"{names[depth + 1]} {k % above}" if above else None for k in range(count)]
        colors = [color for color in map(voc_color, range(1, count + 2)) if color != VOID_COLOR]
        nodes = (ClassNode(k, f"{names[depth]} {k}", colors[k], parents[k]) for k in range(count))
        levels.append(Level(names[depth], tuple(nodes)))
    return Hierarchy("cases", tuple(levels))


PAIR, DEEP, WIDE = hierarchy(7, 3), hierarchy(20, 6, 3, 2), hierarchy(300, 40, 2)


def label_map(level: Level, ids: Ids) -> LabelArray:
    """Ids as a label map, -1 being void."""
    dtype = label_dtype(len(level))
    return np.where(ids < 0, ignore_value(dtype), ids).astype(dtype)


def as_ids(labels: LabelArray) -> Ids:
    """(H, W) int64 of a label map, -1 where void."""
    return np.where(labels == ignore_value(labels.dtype), -1, labels.astype(np.int64))


def maps_of(tree: Hierarchy, shape: tuple[int, int], seed: int) -> tuple[LabelArray, ...]:
    """Speckles and blocks of classes on every level; some pixels are void on the finest level only, some on all."""
    generator = np.random.default_rng(seed)
    height, width = shape
    few = generator.integers(0, tree.n_fine, 3)
    ids = generator.choice([*few, tree.n_fine - 1], shape)
    ids[: height // 2, : width // 2] = few[0]
    void = generator.random(shape)
    maps = []
    for depth, level in enumerate(tree.levels):
        known = void > (0.2 if depth == 0 else 0.1)
        maps.append(label_map(level, np.where(known, tree.ancestors(depth)[ids], -1)))
    return tuple(maps)


def prediction(
    tree: Hierarchy, *, shape: tuple[int, int] = (9, 11), seed: int = 0, name: str = "a", photo: Path = Path("/photos/a.jpg")
) -> Prediction:
    """One photo's prediction with all that savers may need."""
    generator = np.random.default_rng(seed)
    scores = generator.random((tree.n_fine, *shape), dtype=np.float32)
    scores /= scores.sum(axis=0)
    image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
    maps = maps_of(tree, shape, seed)
    return Prediction(Source(photo, name), image, tree, maps, scores.max(axis=0), scores.astype(np.float16))
