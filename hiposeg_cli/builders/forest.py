"""Ragged forests of names -> levels: what text files, tables and label maps have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiposeg_cli.builders.base import Draft, level_names
from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import fold


@dataclass
class Twig:
    """One name of a forest, its children, and where it is written.

    Attributes:
        keys: what else a class may say (`color`, `aliases`, ...).
    """

    name: str
    line: int = 0
    children: list[Twig] = field(default_factory=list)
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def height(self) -> int:
        return 1 + max((child.height for child in self.children), default=0)


def forest_draft(roots: Sequence[Twig], where: Path) -> Draft:
    """The levels of a forest: roots on the coarsest, the deepest names on the finest.

    A name that occurs twice on a level becomes `parent_name` there, as `head` below both `cat` and `dog`. A name without
    children stands for itself on all levels below.

    Raises: DataError when nothing is below anything.
    """
    depth = max((root.height for root in roots), default=0)
    if depth < 2:
        raise DataError(where, "has one level of names only", "put each part or class below what it belongs to")
    draft = Draft(where, level_names(depth))
    twice = _repeated(roots, depth)

    def place(twig: Twig, parent: str | None, number: int) -> None:
        name = twig.name if parent is None or fold(twig.name) not in twice[number] else f"{parent}_{twig.name}"
        draft.add(draft.levels[number], name, parent, line=twig.line, **twig.keys)
        for child in twig.children:
            place(child, name, number - 1)

    for root in roots:
        place(root, None, depth - 1)
    return draft


def _repeated(roots: Sequence[Twig], depth: int) -> list[set[str]]:
    """The names that occur more than once on each level, childless ones from above included."""
    seen: list[set[str]] = [set() for _ in range(depth)]
    twice: list[set[str]] = [set() for _ in range(depth)]

    def visit(twig: Twig, number: int) -> None:
        for level in range(number, -1, -1) if not twig.children else (number,):
            (twice if fold(twig.name) in seen[level] else seen)[level].add(fold(twig.name))
        for child in twig.children:
            visit(child, number - 1)

    for root in roots:
        visit(root, depth - 1)
    return twice
