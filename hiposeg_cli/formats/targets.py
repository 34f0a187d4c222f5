"""What raw ids and raw names become: the source table of a hierarchy turned into targets for `LookUp`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy, SourceTable
from hiposeg_cli.lookup import Target
from hiposeg_cli.raw_names import match_name


def resolve_target(target: object, hierarchy: Hierarchy, *, ignored: Target = (None, None)) -> Target:
    """Turn a target of a source table (validated when the hierarchy was read) into ids."""
    if isinstance(target, dict):
        return None, hierarchy.coarse.find(str(target["coarse"]))
    if target == "ignore":
        return ignored
    fine_id = hierarchy.fine.find(str(target))
    assert fine_id is not None, target
    return fine_id, int(hierarchy.parent[fine_id])


def id_targets(table: SourceTable, hierarchy: Hierarchy, where: object) -> dict[int, Target]:
    """Targets of a format whose raw labels are numbers: the map's whole-number keys, and the ignored ids."""
    targets: dict[int, Target] = {}
    for raw_id, target in table.map.items():
        if not isinstance(raw_id, int):
            raise ConfigError(where, f"the map's key {raw_id!r} is not a label id", "use whole numbers as keys")
        targets[raw_id] = resolve_target(target, hierarchy)
    for raw_id in table.ignore:
        if raw_id in targets:
            raise ConfigError(where, f"id {raw_id} is both mapped and ignored", "remove one of them")
        targets[raw_id] = (None, None)
    return targets


def named_targets(
    names: Mapping[int, str], table: SourceTable, hierarchy: Hierarchy, where: object, *, kind: str, ignore_unknown: bool
) -> dict[int, Target]:
    """Targets of a format whose raw labels are names, matched exactly (up to case) or by the one glob that fits.

    Args:
        names: raw id -> name.
        where: the file that holds the names, for messages.
        kind: what a name is, such as "category".
        ignore_unknown: names the table does not know become ignore instead of an error.
    """
    targets: dict[int, Target] = {}
    for raw_id, name in names.items():
        target = match_name(table.map, name, where)
        if target is None:
            if not ignore_unknown:
                raise unknown_name(where, f"{kind} (hierarchy {hierarchy.name!r})", name, map(str, table.map))
            target = "ignore"
        targets[raw_id] = resolve_target(target, hierarchy)
    return targets


def unknown_name(where: object, kind: str, name: str, known: Iterable[str]) -> DataError:
    """The error for a class or part name the tables do not know."""
    cure = did_you_mean(name, known)
    return DataError(where, f"unknown {kind} {name!r}", f"{cure}; or pass --unknown ignore" if cure else "map it")
