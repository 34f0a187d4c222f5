"""What differs between two taxonomies, level by level and by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hiposeg_cli.hierarchy import ClassNode, Dag, Level, Taxonomy, fold

_FIELDS = ("id", "color", "kind", "mirror", "aliases", "axis", "implicit")


@dataclass(frozen=True)
class Change:
    """One difference of one class: `what` changed from `old` to `new`."""

    name: str
    what: str
    old: Any = None
    new: Any = None

    def words(self) -> str:
        if self.what in ("added", "removed"):
            return f"{self.what} {self.name}" + (f" (below {_shown(self.new or self.old)})" if self.new or self.old else "")
        return f"{self.name}: {self.what} {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class LevelDiff:
    """The differences of one level; `old` and `new` are its names, None where one side lacks the level."""

    old: str | None
    new: str | None
    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes) or self.old != self.new


@dataclass(frozen=True)
class Diff:
    """The differences of two taxonomies; true when there are any. Their names and docs do not count."""

    levels: tuple[LevelDiff, ...] = ()
    sources: tuple[Change, ...] = ()
    structure: tuple[Change, ...] = field(default=())

    def __bool__(self) -> bool:
        return any(self.levels) or bool(self.sources) or bool(self.structure)

    def words(self) -> Iterator[str]:
        """One line a difference, coarsest level first."""
        yield from (change.words() for change in self.structure)
        for level in reversed(self.levels):
            if level.old != level.new:
                yield f"level {_shown(level.old)} -> {_shown(level.new)}"
            yield from (f"{level.new or level.old}: {change.words()}" for change in level.changes)
        yield from (f"source {change.name}: {change.what}" for change in self.sources)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"equal": not self}


def diff(old: Taxonomy, new: Taxonomy) -> Diff:
    """Compare two taxonomies; levels are paired from the finest up."""
    levels: list[LevelDiff] = []
    above: dict[str, str] = {}
    for depth in range(max(len(old.levels), len(new.levels)) - 1, -1, -1):
        before, after = (tree.levels[depth] if depth < len(tree.levels) else None for tree in (old, new))
        found, above = _level_diff(before, after, above)
        levels.insert(0, found)
    formats = dict.fromkeys([*old.sources, *new.sources])
    sources = [Change(name, _presence(name in old.sources, name in new.sources)) for name in formats]
    sources = [change for change in sources if change.what != "both" or old.sources[change.name] != new.sources[change.name]]
    changed = [Change(c.name, "changed") if c.what == "both" else c for c in sources]
    return Diff(tuple(levels), tuple(changed), tuple(_structure(old, new)))


def _presence(before: bool, after: bool) -> str:
    return "both" if before and after else "removed" if before else "added"


def _structure(old: Taxonomy, new: Taxonomy) -> list[Change]:
    def facts(taxonomy: Taxonomy) -> dict[str, Any]:
        if isinstance(taxonomy, Dag):
            return {"structure": "dag", "axes": list(taxonomy.axes), "projection": taxonomy.projection}
        return {"structure": "tree", "axes": None, "projection": None}

    before, after = facts(old), facts(new)
    return [Change("taxonomy", key, before[key], after[key]) for key in before if before[key] != after[key]]


def _level_diff(old: Level | None, new: Level | None, above: dict[str, str]) -> tuple[LevelDiff, dict[str, str]]:
    """The differences of one level, and its renamed classes; `above` has those of the level above."""
    before, after = (list(level.nodes) if level else [] for level in (old, new))
    pairs = _pairs(before, after)
    changes = [Change(node.name, "removed", old=_parent(node)) for node in before if node.id not in pairs]
    changes += [Change(node.name, "added", new=_parent(node)) for node in after if node.id not in pairs.values()]
    by_id = {node.id: node for node in after}
    renamed = {node.name: by_id[pairs[node.id]].name for node in before if node.id in pairs}
    for node in before:
        if node.id in pairs:
            changes += _changes(node, by_id[pairs[node.id]], renamed, above)
    return LevelDiff(old.name if old else None, new.name if new else None, tuple(changes)), renamed


def _pairs(before: Sequence[ClassNode], after: Sequence[ClassNode]) -> dict[int, int]:
    """Id before -> id after of the classes that are the same: by name first, else where one's alias is the other's name."""
    names = {fold(node.name): node.id for node in after}
    pairs = {node.id: names[fold(node.name)] for node in before if fold(node.name) in names}
    left = [node for node in after if node.id not in set(pairs.values())]
    for node in before:
        if node.id in pairs:
            continue
        own = {fold(spelling) for spelling in (node.name, *node.aliases)}
        for other in left:
            others = {fold(spelling) for spelling in (other.name, *other.aliases)}
            if fold(other.name) in own or fold(node.name) in others:
                pairs[node.id] = other.id
                left.remove(other)
                break
    return pairs


def _changes(old: ClassNode, new: ClassNode, renamed: dict[str, str], above: dict[str, str]) -> list[Change]:
    changes = [Change(old.name, "renamed", old.name, new.name)] if old.name != new.name else []
    if tuple(above.get(parent, parent) for parent in old.parents) != new.parents:
        changes.append(Change(new.name, "moved", _parent(old), _parent(new)))
    for key in _FIELDS:
        before, after = getattr(old, key), getattr(new, key)
        if before != after and not (key == "mirror" and renamed.get(before, before) == after):
            changes.append(Change(new.name, key, before, after))
    return changes


def _parent(node: ClassNode) -> Any:
    return list(node.parents) if node.co_parents else node.parent


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
