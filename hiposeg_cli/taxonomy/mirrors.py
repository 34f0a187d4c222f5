"""Left and right in class names: which classes change places when an image is flipped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from hiposeg_cli.hierarchy import Level

_SIDE = re.compile(r"(?:(?<![^\W\d_])|(?<=[a-z])(?=[A-Z]))(?i:left|right|[lr](?![^\W\d_]))")
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


def other_side(name: str) -> str | None:
    """The name of the class on the other side, `left_arm` for `right_arm`; None for a name without a side.

    A side is the word left or right or the lone letter l or r, or the beginning of a word (`leftmirror`); the names
    `light` and `bright` have none.
    """

    def swap(match: re.Match[str]) -> str:
        word = match.group()
        other = _OTHER[word.lower()]
        if word.isupper() and (len(word) > 1 or name.isupper()):
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    twin = _SIDE.sub(swap, name)
    return None if twin == name else twin


def with_mirrors(levels: Sequence[Level]) -> list[Level]:
    """Pair left and right classes that name no mirror, wherever a flip then keeps every class below its parent."""
    swaps = [_named_pairs(level) for level in levels]
    parents = [[above.find(node.parent or "") or 0 for node in below.nodes] for below, above in itertools.pairwise(levels)]
    guessed = [{node.id for node in level.nodes if node.mirror is None} for level in levels]
    changed = True
    while changed:
        changed = False
        for depth, parent in enumerate(parents):
            for node_id, twin in list(swaps[depth].items()):
                above = parent[node_id]
                if parent[twin] == swaps[depth + 1][above]:
                    continue
                for level, wrong in ((depth + 1, above), (depth, node_id)):
                    if wrong in guessed[level] and swaps[level][wrong] != wrong:
                        other = swaps[level][wrong]
                        swaps[level][wrong], swaps[level][other] = wrong, other
                        changed = True
                        break
    return [_with(level, swap) for level, swap in zip(levels, swaps, strict=True)]


def _named_pairs(level: Level) -> dict[int, int]:
    """Id -> id of the twin: the stated one, else the class of the other side's name, else itself."""
    swap = {node.id: node.id for node in level.nodes}
    for node in level.nodes:
        if node.mirror is not None:
            swap[node.id] = level.find(node.mirror) or 0
            continue
        twin = level.find(other_side(node.name) or node.name)
        if twin is not None and level.nodes[twin].mirror is None and other_side(level.nodes[twin].name) == node.name:
            swap[node.id] = twin
    return swap


def _with(level: Level, swap: dict[int, int]) -> Level:
    nodes = (
        node if swap[node.id] == node.id else replace(node, mirror=level.nodes[swap[node.id]].name) for node in level.nodes
    )
    return Level(level.name, tuple(nodes))
