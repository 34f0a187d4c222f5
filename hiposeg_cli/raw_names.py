"""Raw label names -> entries of a source table: exact names, globs, and the table a taxonomy has by its own names.

Owns how a name is matched. What a target means is `formats.base`'s business.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.hierarchy import Hierarchy, SourceTable, fold

Entry = TypeVar("Entry")


def match_name(table: Mapping[Any, Entry], name: str, where: object) -> Entry | None:
    """The entry of a source table for one raw name: its exact name, else the one glob that matches, else None.

    Names count as equal after NFC and casefold; `*`, `?` and `[...]` in a key make it a glob too.

    Args:
        table: raw name or glob -> entry; no entry is None.
        where: what the table belongs to, for messages.
    Raises: HierarchyError when two spellings or two globs match, naming both.
    """
    if name in table:
        return table[name]
    folded = fold(name)
    keys = [(key, fold(str(key))) for key in table]
    equal = [key for key, spelling in keys if spelling == folded]
    if not equal:
        equal = [key for key, spelling in keys if fnmatchcase(folded, spelling)]
    if len(equal) > 1:
        raise HierarchyError(
            where,
            f"{name!r} matches both {str(equal[0])!r} and {str(equal[1])!r}",
            "make one of them narrower, or remove it",
        )
    return table[equal[0]] if equal else None


def by_name(hierarchy: Hierarchy) -> SourceTable:
    """The source table of annotations whose raw labels are the taxonomy's own class names.

    Every fine name and alias means that class, every coarse name or alias that no fine class has means
    `{coarse: NAME}`. LabelMe's and CVAT's reserved names are known: `__ignore__`, and `_background_` where the
    taxonomy has a background class.
    """
    table: dict[str | int, Any] = {}
    taken: set[str] = set()

    def add(name: str, target: object) -> None:
        if fold(name) not in taken:
            taken.add(fold(name))
            table[glob.escape(name)] = target  # a class called `what?` must not catch `whats`

    for node in hierarchy.fine.nodes:
        for name in (node.name, *node.aliases):
            add(name, node.name)
    for node in hierarchy.coarse.nodes:
        for name in (node.name, *node.aliases):
            add(name, {"coarse": node.name})
    add("__ignore__", "ignore")
    if hierarchy.background is None:
        return SourceTable(map=table, unlabelled="ignore")
    add("_background_", hierarchy.fine.nodes[hierarchy.background].name)
    return SourceTable(map=table)
