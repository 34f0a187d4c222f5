"""One label per pixel over both levels, for layouts that hold a single map: unique names, unique colours.

A pixel with a fine class takes that class. A pixel known on the coarse level only takes a label of its own for its
coarse class; where a coarse class has one child of the same name (a branch without parts), that child says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Color, Hierarchy, Level, fold
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, valid_pixels


@dataclass(frozen=True)
class JointClass:
    """One label: a fine class, or what is left of a coarse class without one (`fine_id` None)."""

    name: str
    color: Color
    fine_id: int | None
    coarse_id: int


class JointLabels:
    """The labels of a hierarchy and the encoding of two-level maps into them; a label's position is its id."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        of_coarse = [_same_child(hierarchy, node.id) for node in hierarchy.coarse.nodes]
        own = [node for node in hierarchy.coarse.nodes if of_coarse[node.id] is None]
        names = unique_names((*hierarchy.fine.names, *(node.name for node in own)), hierarchy.coarse.name)
        fine = [JointClass(n.name, n.color, n.id, int(hierarchy.parent[n.id])) for n in hierarchy.fine.nodes]
        coarse = [JointClass(name, n.color, None, n.id) for name, n in zip(names[len(fine) :], own, strict=True)]
        self.classes: tuple[JointClass, ...] = (*fine, *coarse)
        position = {entry.coarse_id: number for number, entry in enumerate(self.classes) if entry.fine_id is None}
        self._of_coarse = np.array(
            [position[k] if child is None else child for k, child in enumerate(of_coarse)], dtype=np.int32
        )

    def encode(self, labels: TwoLevelMap) -> NDArray[np.int32]:
        """(H, W) int32 label of each pixel, -1 where both levels are ignore."""
        joint = level_map(labels.fine)
        only = labels.coarse_only()
        joint[only] = self._of_coarse[labels.coarse[only]]
        return joint


def _same_child(hierarchy: Hierarchy, coarse_id: int) -> int | None:
    """The fine class that says the same as a coarse one: its only child, under the same name."""
    children = hierarchy.children(coarse_id)
    if len(children) != 1:
        return None
    same = fold(hierarchy.fine.nodes[children[0]].name) == fold(hierarchy.coarse.nodes[coarse_id].name)
    return children[0] if same else None


def level_map(labels: LabelArray) -> NDArray[np.int32]:
    """(H, W) int32 of a label map, -1 for ignore."""
    return np.where(valid_pixels(labels), labels.astype(np.int32), np.int32(-1))


def level_classes(level: Level) -> tuple[JointClass, ...]:
    """The classes of one level in the form of joint labels."""
    return tuple(JointClass(node.name, node.color, node.id, node.id) for node in level.nodes)


def unique_names(names: Iterable[str], suffix: str) -> list[str]:
    """Names that differ even where case does not count: a repeated one gets ` (suffix)`, then a number."""
    taken: set[str] = set()
    unique = []
    for name in names:
        chosen = next(variant for variant in _variants(name, suffix) if fold(variant) not in taken)
        taken.add(fold(chosen))
        unique.append(chosen)
    return unique


def _variants(name: str, suffix: str) -> Iterator[str]:
    yield name
    yield f"{name} ({suffix})"
    number = 2
    while True:
        yield f"{name} ({suffix} {number})"
        number += 1


def unique_colors(colors: Iterable[Color], reserved: Iterable[Color] = ()) -> list[Color]:
    """Colours that all differ: a repeated or reserved one is replaced by the next free colour of the PASCAL VOC map."""
    wanted = list(colors)
    taken = set(reserved)
    fresh = (voc_color(index) for index in range(1, 1 << 24))
    free = (color for color in fresh if color not in taken and color not in wanted)
    unique = []
    for color in wanted:
        chosen = next(free) if color in taken else color
        taken.add(chosen)
        unique.append(chosen)
    return unique


def voc_color(index: int) -> Color:
    """The PASCAL VOC colour of an id: every index below 2**24 has its own."""
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (index & 1) << shift
        green |= (index >> 1 & 1) << shift
        blue |= (index >> 2 & 1) << shift
        index >>= 3
    return red, green, blue
