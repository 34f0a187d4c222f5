"""Objects in label maps: a class and an object number for each pixel, on which PQ is counted on every level.

A class is of things by its `kind`, without one by that of its nearest ancestor (a part is one of its object), and without
any when all classes below it are. Each object of a class of things is a segment, and each class of stuff is one. A fine
class without a `kind` below a thing is a part of it; objects with two or more parts are scored by PartPQ, too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import ClassNode, Hierarchy
from hiposeg_cli.labelmap import LabelArray, ranked, valid_pixels
from hiposeg_cli.metrics.panoptic import Segments

Numbers = NDArray[np.integer]  # (H, W) object of each pixel, 0 for none


def things(hierarchy: Hierarchy, depth: int) -> NDArray[np.bool_]:
    """(K,) bool: the classes of a level whose objects are told apart; see the module's head."""
    leaves = zip(hierarchy.fine.nodes, hierarchy.ancestors(depth).tolist(), strict=True)
    with_stuff = {ancestor for leaf, ancestor in leaves if _kind(hierarchy, 0, leaf) != "thing"}
    kinds = [_kind(hierarchy, depth, node) for node in hierarchy.levels[depth].nodes]
    return np.array([kind == "thing" or (kind is None and k not in with_stuff) for k, kind in enumerate(kinds)])


def has_parts(hierarchy: Hierarchy) -> NDArray[np.bool_]:
    """(C,) bool: the coarse classes that are objects made of two or more fine classes."""
    n_children = np.bincount(hierarchy.parent, minlength=hierarchy.n_coarse)
    of_kind = np.array([node.kind is not None for node in hierarchy.fine.nodes])
    n_of_kind = np.bincount(hierarchy.parent[of_kind], minlength=hierarchy.n_coarse)
    objects: NDArray[np.bool_] = things(hierarchy, 1) & (n_children > 1) & (n_of_kind == 0)
    return objects


def segments_of(labels: LabelArray, numbers: Numbers, things: NDArray[np.bool_]) -> Segments:
    """The segments of one level of an image; things without a number are a crowd.

    Args:
        things: (K,) bool of the level; numbers of other classes are not looked at.
    """
    valid = valid_pixels(labels)
    classes = labels[valid].astype(np.int64)
    pairs, place = ranked((classes << 32) + np.where(things[classes], numbers[valid], 0))
    result = np.zeros(labels.shape, dtype=np.int64)
    result[valid] = place + 1
    of_class = {segment: int(pair >> 32) for segment, pair in enumerate(pairs.tolist(), start=1)}
    unnumbered = (segment for segment, pair in enumerate(pairs.tolist(), start=1) if not pair & 0xFFFFFFFF)
    return Segments(result, of_class, frozenset(segment for segment in unnumbered if things[of_class[segment]]))


def _kind(hierarchy: Hierarchy, depth: int, node: ClassNode) -> str | None:
    """The kind of a class, or that of its nearest ancestor with one."""
    while node.kind is None and node.parent is not None:
        depth += 1
        node = hierarchy.levels[depth].nodes[hierarchy.levels[depth].find(node.parent) or 0]
    return node.kind
