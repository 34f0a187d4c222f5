"""ADE20K's source table: which class a nested stack of object and part names becomes, each entry under a compact id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.formats.targets import resolve_target, unknown_name
from hiposeg_cli.hierarchy import Hierarchy, SourceTable
from hiposeg_cli.lookup import Target
from hiposeg_cli.raw_names import match_name

_OBJECT, _REST = "__object__", "*"


class Code(NamedTuple):
    """A code of a mask and its name, None where the JSON has none."""

    code: int
    name: str | None


@dataclass
class _Node:
    """One entry of the table.

    Attributes:
        key: as written, for messages.
        id: compact id of its own pixels.
        below: entries for its parts.
        rest: compact id of parts that are not listed; None refuses them.
        closed: its parts are not looked at.
    """

    key: str
    id: int
    below: dict[str, _Node] = field(default_factory=dict)
    rest: int | None = None
    closed: bool = False
    found: dict[Code, _Node | None] = field(default_factory=dict)

    def find(self, code: Code, where: object) -> _Node | None:
        """The entry for a part: by its code, its whole name or a glob, or its name up to the first comma."""
        if code not in self.found:
            self.found[code] = self._find(code, where)
        return self.found[code]

    def _find(self, code: Code, where: object) -> _Node | None:
        by_code = self.below.get(f"#{code.code}")
        if by_code is not None or code.name is None:
            return by_code
        by_name = match_name(self.below, code.name, where)
        first = code.name.split(",")[0]
        return by_name if by_name is not None or first == code.name else match_name(self.below, first, where)


class PartTable:
    """The table of one hierarchy.

    Args:
        uncovered: what pixels of an object without a part become; None keeps the object's coarse class.
        ignore_unknown: names the table does not know become ignore instead of an error.

    Attributes:
        targets: compact id (from 1) -> (fine id, coarse id).
    """

    def __init__(
        self, table: SourceTable, hierarchy: Hierarchy, where: object, *, uncovered: Target | None, ignore_unknown: bool
    ) -> None:
        self.targets: dict[int, Target] = {}
        self._hierarchy, self._where, self._uncovered, self._ignore_unknown = hierarchy, where, uncovered, ignore_unknown
        self._top = _Node("", 0)
        for key, entry in _texts(table.map, where).items():
            if key == _REST:
                self._top.rest = self._number(self._resolve(entry, None))
            else:
                self._top.below[key] = self._object(key, entry)
        if self._top.rest is None and ignore_unknown:
            self._top.rest = self._number((None, None))

    def find(self, stack: Sequence[Code], path: Path, json_path: Path) -> tuple[int, bool]:
        """The compact id of an object (first of the stack) with its nested parts, and whether a part covers it.

        An object whose parts the table does not ask for counts as covered.
        Raises: DataError for a name the table does not know.
        """
        node = self._top.find(stack[0], self._where)
        if node is None:
            if self._top.rest is None:
                raise self._unknown("object", stack[0], self._top, path, json_path)
            return self._top.rest, True
        if node.closed:
            return node.id, True
        best, owners = node.id, [node]
        for code in stack[1:]:
            entry = next((entry for owner in owners if (entry := owner.find(code, self._where)) is not None), None)
            if entry is not None:
                best, owners = entry.id, [entry, *owners]
            elif best == owners[0].id and owners[0].rest is not None:
                best = owners[0].rest
            elif all(owner.rest is None for owner in owners):
                raise self._unknown(f"part of {node.key}", code, node, path, json_path)
        return best, best != node.id or not node.below

    def _object(self, key: str, entry: Any) -> _Node:
        """An object's entry with its parts; their common parent is the object's coarse class."""
        if not _has_parts(entry):
            return _Node(key, self._number(self._resolve(entry, None)), closed=True)
        coarse_id = self._coarse_of(key, entry)
        return self._node(key, entry, coarse_id, own=self._uncovered or (None, coarse_id))

    def _node(self, key: str, entry: Any, coarse_id: int | None, own: Target) -> _Node:
        if not _has_parts(entry):
            return _Node(key, self._number(self._resolve(entry, coarse_id)))
        parts = _texts(entry, self._where)
        if _OBJECT in parts:
            own = self._resolve(parts[_OBJECT], coarse_id)
        node = _Node(key, self._number(own))
        for name, target in parts.items():
            if name == _REST:
                node.rest = self._number(self._resolve(target, coarse_id))
            elif name != _OBJECT:
                node.below[name] = self._node(name, target, coarse_id, own=(None, coarse_id))
        if node.rest is None and self._ignore_unknown:
            node.rest = self._number((None, coarse_id))
        return node

    def _number(self, target: Target) -> int:
        self.targets[len(self.targets) + 1] = target
        return len(self.targets)

    def _resolve(self, target: Any, coarse_id: int | None) -> Target:
        """Ids of a target; an ignored part keeps the coarse class of its object."""
        if _has_parts(target):
            raise ConfigError(self._where, f'"{_REST}" and {_OBJECT} cannot have parts', "name one class, or ignore")
        return resolve_target(target, self._hierarchy, ignored=(None, coarse_id))

    def _coarse_of(self, key: str, entry: Any) -> int | None:
        parents = {target[1] for target in self._fine_targets(entry)}
        if len(parents) == 1:
            return parents.pop()
        whole = self._hierarchy.coarse.find(key)
        return self._hierarchy.coarse.find(key.split(",")[0]) if whole is None else whole

    def _fine_targets(self, entry: Any) -> list[Target]:
        if _has_parts(entry):
            return [target for below in entry.values() for target in self._fine_targets(below)]
        target = resolve_target(entry, self._hierarchy)
        return [target] if target[0] is not None else []

    def _unknown(self, kind: str, code: Code, node: _Node, path: Path, json_path: Path) -> DataError:
        if code.name is None:
            return DataError(path, f"holds code {code.code}, which {json_path.name} does not name", "use one release")
        return unknown_name(path, f"{kind} (hierarchy {self._hierarchy.name!r})", code.name, node.below)


def _has_parts(entry: Any) -> bool:
    return isinstance(entry, Mapping) and set(entry) != {"coarse"}


def _texts(table: Mapping[Any, Any], where: object) -> Mapping[str, Any]:
    for key in table:
        if not isinstance(key, str):
            raise ConfigError(where, f"the map's key {key!r} is not a name", f'write a name, or a mask code as "#{key}"')
    return table
