"""The taxonomy: the only owner of class counts, names, parents and colours.

A `Hierarchy` is a forest of named classes in levels, finest first. Label maps use the first two levels, `fine` and
`coarse`; every further level is a look-up from `fine`. A `Dag` lets a class have several parents, on named axes, and
becomes a `Hierarchy` by choosing one axis. Reading and writing files is `hierarchy_yaml`'s business.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import HierarchyError, did_you_mean

Color = tuple[int, int, int]
KINDS = ("thing", "stuff", "background", "void")


def fold(name: str) -> str:
    """The form in which two names count as the same."""
    return unicodedata.normalize("NFC", name).casefold()


@dataclass(frozen=True)
class ClassNode:
    """One class of one level. `implicit` marks the copy that pads a ragged branch down to the finest level.

    Only the classes of a `Dag` have an `axis` (above the finest level) and `co_parents` (parents beside the first).
    """

    id: int
    name: str
    color: Color
    parent: str | None = None
    kind: str | None = None
    aliases: tuple[str, ...] = ()
    mirror: str | None = None
    implicit: bool = False
    doc: str = ""
    axis: str | None = None
    co_parents: tuple[str, ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        """All parents: none on the coarsest level, one in a tree."""
        return () if self.parent is None else (self.parent, *self.co_parents)


@dataclass(frozen=True)
class Level:
    """All classes of one level; a node's position is its id."""

    name: str
    nodes: tuple[ClassNode, ...]

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def folder(self) -> str:
        """Name of the folder that predicted maps of this level lie in."""
        return self.name.replace("/", "-")

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.nodes]

    @cached_property
    def _index(self) -> dict[str, int]:
        aliases = {fold(alias): node.id for node in self.nodes for alias in node.aliases}
        return aliases | {fold(node.name): node.id for node in self.nodes}

    def find(self, name: str) -> int | None:
        """Id of the class with this name or alias, ignoring case; None when there is none."""
        return self._index.get(fold(name))

    def colors(self) -> NDArray[np.uint8]:
        """(K, 3) uint8 RGB, by id."""
        return np.array([node.color for node in self.nodes], dtype=np.uint8).reshape(-1, 3)

    def mirror_ids(self) -> NDArray[np.int64]:
        """(K,) int64: the id each class takes when the image is flipped left to right."""
        swap = [node.id if node.mirror is None else self.find(node.mirror) for node in self.nodes]
        return np.array(swap, dtype=np.int64)


@dataclass(frozen=True)
class SourceTable:
    """How the raw labels of one annotation format become classes of this hierarchy.

    Attributes:
        map: raw id or name -> target; for part formats raw object -> {raw part or glob -> target}. A target is the
            name of a fine class, `ignore`, or `{coarse: NAME}` for a raw class known on the coarse level only.
        ignore: raw ids that carry no label on either level.
        uncovered: what object pixels without a part become: `object-only` keeps their coarse label, `ignore` and
            `background` do not.
        unlabelled: what pixels without any annotation become: `ignore` or `background`.
    """

    map: Mapping[str | int, Any]
    ignore: tuple[int, ...] = ()
    uncovered: str = "object-only"
    unlabelled: str = "background"


@dataclass(frozen=True)
class Hierarchy:
    """A named tree of classes in at least two levels, finest first; see the module's head."""

    name: str
    levels: tuple[Level, ...]
    sources: Mapping[str, SourceTable] = field(default_factory=dict)
    doc: str = ""

    @property
    def fine(self) -> Level:
        return self.levels[0]

    @property
    def coarse(self) -> Level:
        return self.levels[1]

    @property
    def n_fine(self) -> int:
        return len(self.fine)

    @property
    def n_coarse(self) -> int:
        return len(self.coarse)

    @cached_property
    def parent(self) -> NDArray[np.int64]:
        """(F,) int64: the coarse id of each fine id."""
        return self.ancestors(1)

    def ancestors(self, depth: int) -> NDArray[np.int64]:
        """(F,) int64: the id on `levels[depth]` of each fine class; `depth` 0 is the identity."""
        table = np.arange(self.n_fine, dtype=np.int64)
        for below in range(depth):
            table = self.parents(below)[table]
        return table

    def parents(self, depth: int) -> NDArray[np.int64]:
        """(K,) int64: the id on the level above of each class of `levels[depth]`."""
        return self._parents[depth]

    @cached_property
    def _parents(self) -> list[NDArray[np.int64]]:
        return [
            np.array([above.find(node.parent or "") for node in below.nodes], dtype=np.int64)
            for below, above in itertools.pairwise(self.levels)
        ]

    def children(self, coarse_id: int) -> list[int]:
        """Fine ids below one coarse class."""
        return [int(fine_id) for fine_id in np.flatnonzero(self.parent == coarse_id)]

    @cached_property
    def background(self) -> int | None:
        """Fine id of the background class, or None when the hierarchy has none."""
        return _background(self.fine)

    @cached_property
    def digest(self) -> str:
        """sha256 of the tree (level names, class names in id order, parents): equal digests mean equal label spaces."""
        tree = [[level.name, [[node.name, node.parent] for node in level.nodes]] for level in self.levels]
        return hashlib.sha256(json.dumps(tree, ensure_ascii=False).encode()).hexdigest()

    def source(self, format_name: str) -> SourceTable:
        """The table for one annotation format. Raises HierarchyError when the taxonomy has none."""
        if format_name not in self.sources:
            known = ", ".join(self.sources) or "none"
            raise HierarchyError(
                f"hierarchy {self.name!r}",
                f"says nothing about the format {format_name!r} (it has: {known})",
                f"add `sources: {{{format_name}: {{map: ...}}}}` to its file, or choose another --hierarchy",
            )
        return self.sources[format_name]

    def require_same(self, other: Hierarchy, *, mine: object, theirs: object) -> None:
        """Refuse two artefacts made with different trees, naming the first difference."""
        if self.digest == other.digest:
            return
        raise HierarchyError(
            theirs, f"was made with another hierarchy than {mine}: {_first_difference(self, other)}",
            "use artefacts of one hierarchy, or prepare and train again",
        )  # fmt: skip


@dataclass(frozen=True)
class Dag:
    """A taxonomy in which a class may have several parents; only its projection on one axis can be trained.

    Attributes:
        axes: what the classes above the finest level are grouped by, for example `object` and `part_type`.
        projection: the axis whose tree label maps use; None where the file chooses none.
    """

    name: str
    levels: tuple[Level, ...]
    axes: tuple[str, ...]
    projection: str | None = None
    sources: Mapping[str, SourceTable] = field(default_factory=dict)
    doc: str = ""

    @property
    def fine(self) -> Level:
        return self.levels[0]

    @property
    def coarse(self) -> Level:
        return self.levels[1]

    @cached_property
    def background(self) -> int | None:
        """Fine id of the background class, or None when there is none."""
        return _background(self.fine)


Taxonomy = Hierarchy | Dag


def _background(fine: Level) -> int | None:
    marked = [node.id for node in fine.nodes if node.kind == "background"]
    return marked[0] if marked else None


def _first_difference(mine: Hierarchy, theirs: Hierarchy) -> str:
    for a, b in zip(mine.levels, theirs.levels, strict=False):
        if a.name != b.name:
            return f"a level is called {b.name!r}, not {a.name!r}"
        for x, y in zip(a.nodes, b.nodes, strict=False):
            if (x.name, x.parent) != (y.name, y.parent):
                return f"{a.name} class {x.id} is {y.name!r} (parent {y.parent!r}), not {x.name!r} ({x.parent!r})"
        if len(a) != len(b):
            return f"{len(b)} {a.name} classes, not {len(a)}"
    return f"{len(theirs.levels)} levels ({theirs.name}), not {len(mine.levels)} ({mine.name})"


def preset_dir() -> Path:
    """The folder of shipped taxonomies: inside the wheel, or beside the package in an editable install."""
    package = Path(__file__).resolve().parent
    inside = package / "hierarchies"
    return inside if inside.is_dir() else package.parent / "hierarchies"


def preset_paths() -> dict[str, Path]:
    """Name -> file of every shipped taxonomy, sorted by name."""
    return {path.stem: path for path in sorted(preset_dir().glob("*.yaml"))}


def resolve_preset(name_or_path: str) -> Path:
    """The file behind a preset's name or a path. Raises HierarchyError when there is neither."""
    presets = preset_paths()
    if name_or_path in presets:
        return presets[name_or_path]
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        if not path.is_file():
            raise HierarchyError(path, "no such hierarchy file", "check the path, or name a preset")
        return path
    raise HierarchyError(
        f"hierarchy {name_or_path!r}", "is neither a preset nor a file", did_you_mean(name_or_path, presets)
    )
