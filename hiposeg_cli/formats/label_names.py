"""Label names of annotation tools -> raw ids: `object`, `object:part`, or a part grouped with its object.

Owns what a name means and what a group says about it. Drawing the shapes is `shapes`' business.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import Reader
from hiposeg_cli.formats.targets import resolve_target, unknown_name
from hiposeg_cli.hierarchy import Hierarchy, SourceTable, fold
from hiposeg_cli.lookup import Target
from hiposeg_cli.raw_names import match_name

_OBJECT = "__object__"
_NOTHING: Target = (None, None)


@dataclass(frozen=True)
class Label:
    """The label of one shape: its name, and the group that joins it to others (None for none)."""

    name: str
    group: object = None


class LabelNames:
    """What each label name becomes.

    A raw id stands for a target, not for a name: 0 is unlabelled, 1 is ignore, then one for each other target of the
    table, and the last one, which has no target, is for names the table does not know.

    Args:
        table: name or glob -> target; `object: {part: target}` is short for `object:part`, and its `__object__` is what
            the object's own label means (left out: its coarse class); an ignored part keeps the object's coarse class.
            `__ignore__` and `_background_` need no entry.
        by_class_names: the table lists the taxonomy's own names, so `PARENT:CHILD` means that child too.
        unlabelled: the target of pixels without a shape.
        ignore_unknown: unknown names are ignored instead of refused.
    """

    def __init__(
        self, table: SourceTable, hierarchy: Hierarchy, *, by_class_names: bool, unlabelled: Target, ignore_unknown: bool
    ) -> None:
        self.hierarchy, self.ignore_unknown = hierarchy, ignore_unknown
        self.table = _flat(table.map, hierarchy)
        self._add(_reserved(hierarchy))
        if by_class_names:
            self._add(_children(hierarchy))
        found = {resolve_target(target, hierarchy) for target in self.table.values()} - {_NOTHING}
        ordered = sorted(found, key=lambda target: (target[1] or 0, -1 if target[0] is None else target[0]))
        self.targets: dict[int, Target] = dict(enumerate([unlabelled, _NOTHING, *ordered]))
        self.unknown = len(self.targets)
        self._cache: dict[str, int | None] = {}

    @classmethod
    def of(cls, reader: Reader) -> LabelNames:
        """The names of an annotation tool's reader, by its source table and options."""
        return cls(
            reader.table, reader.hierarchy, by_class_names=reader.name not in reader.hierarchy.sources,
            unlabelled=reader.background_target(reader.options.unlabelled or reader.table.unlabelled),
            ignore_unknown=reader.ignore_unknown,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_cache": {}}

    def _add(self, entries: Mapping[str, object]) -> None:
        """Add names that the table does not spell out."""
        taken = {fold(str(key)) for key in self.table}
        for name, target in entries.items():
            if fold(name) not in taken:
                taken.add(fold(name))
                self.table[name] = target

    @cached_property
    def _ids(self) -> dict[Target, int]:
        return {target: raw_id for raw_id, target in self.targets.items() if raw_id > 0}

    def find(self, name: str, where: object) -> int | None:
        """The raw id of a name; None for one the table does not know. Raises HierarchyError for an ambiguous table."""
        if name not in self._cache:
            target = match_name(self.table, name, where)
            self._cache[name] = None if target is None else self._ids[resolve_target(target, self.hierarchy)]
        return self._cache[name]

    def raw_ids(self, labels: Sequence[Label], where: object) -> list[int]:
        """The raw id of each label of one image.

        A label that shares a group with an object is looked up as `object:label` first.

        Raises: DataError for an unknown name, and for a part that two objects of its group could own.
        """
        groups: dict[object, dict[str, None]] = {}
        for label in labels:
            if label.group is not None:
                groups.setdefault(label.group, {})[label.name.partition(":")[0]] = None
        return [self._raw_id(label, groups.get(label.group, {}), where) for label in labels]

    def _raw_id(self, label: Label, group: Mapping[str, None], where: object) -> int:
        owned: dict[str, int] = {}
        if ":" not in label.name:
            for owner in group:
                raw_id = self.find(f"{owner}:{label.name}", where) if owner != label.name else None
                if raw_id is not None:
                    owned[owner] = raw_id
        if len(set(owned.values())) > 1:
            owners = " and ".join(repr(owner) for owner in owned)
            cure = "give each object a group of its own"
            raise DataError(where, f"{label.name!r} could belong to {owners} of group {label.group}", cure)
        raw_id = next(iter(owned.values()), None) or self.find(label.name, where)
        if raw_id is None and not self.ignore_unknown:
            known = [str(key) for key in self.table if not glob.has_magic(str(key))]
            raise unknown_name(where, f"label (hierarchy {self.hierarchy.name!r})", label.name, known)
        return self.unknown if raw_id is None else raw_id


def _flat(table: Mapping[str | int, Any], hierarchy: Hierarchy) -> dict[str, Any]:
    """The table with `object: {part: target}` written out as `object:part`."""
    flat: dict[str, Any] = {}
    for key, target in table.items():
        name = str(key)
        if not isinstance(target, dict) or set(target) == {"coarse"}:
            flat[name] = target
            continue
        known = hierarchy.coarse.find(name) is not None
        parts = {part: {"coarse": name} if known and entry == "ignore" else entry for part, entry in target.items()}
        if _OBJECT in parts:
            flat[name] = parts[_OBJECT]
        elif known:
            flat[name] = {"coarse": name}
        flat |= {f"{name}:{part}": entry for part, entry in parts.items() if part != _OBJECT}
    return flat


def _reserved(hierarchy: Hierarchy) -> dict[str, object]:
    names: dict[str, object] = {"__ignore__": "ignore"}
    if hierarchy.background is not None:
        names["_background_"] = hierarchy.fine.nodes[hierarchy.background].name
    return names


def _children(hierarchy: Hierarchy) -> dict[str, object]:
    """`car:wheel` for the child `wheel` of `car`, and for its child `car_wheel`."""
    names: dict[str, object] = {}
    for node, coarse_id in zip(hierarchy.fine.nodes, hierarchy.parent, strict=True):
        parent = hierarchy.coarse.nodes[int(coarse_id)]
        for owner in (parent.name, *parent.aliases):
            for own in (node.name, *node.aliases):
                names.setdefault(glob.escape(f"{owner}:{own}"), node.name)
    for node, coarse_id in zip(hierarchy.fine.nodes, hierarchy.parent, strict=True):
        parent = hierarchy.coarse.nodes[int(coarse_id)]
        rest = node.name[len(parent.name) + 1 :]
        if rest and fold(node.name[: len(parent.name)]) == fold(parent.name) and node.name[len(parent.name)] in "_- ":
            for owner in (parent.name, *parent.aliases):
                names.setdefault(glob.escape(f"{owner}:{rest}"), node.name)
    return names
