"""The `sources` of a taxonomy file: how raw labels become its classes, checked against the classes there are."""

from __future__ import annotations

from typing import Any

from hiposeg_cli.errors import did_you_mean
from hiposeg_cli.hierarchy import SourceTable, Taxonomy
from hiposeg_cli.strict_yaml import Mapping, plain
from hiposeg_cli.taxonomy.fields import Fields

_SOURCE_KEYS = ("map", "ignore", "uncovered", "unlabelled")
_FILLS = {"uncovered": ("object-only", "ignore", "background"), "unlabelled": ("ignore", "background")}


def read_sources(data: Any, taxonomy: Taxonomy, fields: Fields) -> dict[str, SourceTable]:
    """The source table of each format. Raises HierarchyError for a target that is no class."""
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise fields.fail(None, "`sources` must be keys (one per annotation format)", "write sources: {masks: {map: ...}}")
    return {str(key): _source(str(key), item, data.lines[key], taxonomy, fields) for key, item in data.items()}


def _source(name: str, item: Any, line: int, taxonomy: Taxonomy, fields: Fields) -> SourceTable:
    if not isinstance(item, Mapping) or not isinstance(item.get("map"), Mapping):
        raise fields.fail(line, f"source {name!r} needs a `map`", "write map: {raw: class}")
    fields.known_keys(item, _SOURCE_KEYS, f"source {name!r}")
    for key, choices in _FILLS.items():
        value = item.get(key, "ignore")
        if value not in choices:
            raise fields.fail(item.lines[key], f"`{key}` is {value!r}", f"write {', '.join(choices[:-1])} or background")
        if value == "background" and taxonomy.background is None:
            raise fields.fail(item.lines[key], f"`{key}: background` but no class has `kind: background`", "mark one")
    ignore = item.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(value, int) for value in ignore):
        raise fields.fail(item.lines["ignore"], "`ignore` must list raw ids", "write [0, 255]")
    _check_targets(item["map"], taxonomy, name, fields)
    default = "background" if taxonomy.background is not None else "ignore"
    return SourceTable(
        map=plain(item["map"]), ignore=tuple(ignore),
        uncovered=item.get("uncovered", "object-only"), unlabelled=item.get("unlabelled", default),
    )  # fmt: skip


def _check_targets(table: Mapping, taxonomy: Taxonomy, source: str, fields: Fields) -> None:
    for key, target in table.items():
        line = table.lines[key]
        if isinstance(target, Mapping) and set(target) == {"coarse"}:
            level, target = taxonomy.coarse, target["coarse"]
        elif isinstance(target, Mapping):
            _check_targets(target, taxonomy, source, fields)
            continue
        else:
            level = taxonomy.fine
        target = fields.word(target, line, f"source {source!r}, target of {key!r}:")
        if target != "ignore" and level.find(target) is None:
            raise fields.fail(
                line, f"source {source!r} maps {key!r} to unknown {level.name} class {target!r}",
                did_you_mean(target, level.names),
            )  # fmt: skip
