"""`extends: BASE` in a taxonomy file: the base's levels, classes and sources, with the file's changes applied.

Works on the files as written, before any check of the whole, so that padding and ids are made for the result. Lines
taken from the base stay known as such.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import did_you_mean
from hiposeg_cli.hierarchy import fold, preset_paths
from hiposeg_cli.strict_yaml import Mapping, Sequence, plain
from hiposeg_cli.taxonomy.fields import Fields, Inherited, named

_OWN = ("schema", "name", "doc", "extends", "remove", "classes", "sources")


def base_path(own: Mapping, fields: Fields) -> Path:
    """The file behind `extends`: a preset's name, or a path from the folder of the file that says it."""
    name, line = fields.text(own, "extends", own.line), own.lines["extends"]
    presets = preset_paths()
    if name in presets:
        return presets[name]
    path = (fields.where.parent if isinstance(fields.where, Path) else Path()) / name
    if not path.is_file():
        raise fields.fail(line, f"extends {name!r}, which is neither a preset nor a file", did_you_mean(name, presets))
    return path


def merged(base: Mapping, own: Mapping, path: Path, fields: Fields) -> Mapping:
    """One file out of a valid base and the file that extends it.

    Classes keep the base's order and are changed by name; new ones follow. Ids written in `own` are kept, all others
    take the free numbers in order.
    """
    result = Mapping()
    result.line = own.line
    for source in (_inherited(base, path), own):
        for key in source:
            if source is own or key not in _OWN:
                _put(result, key, source[key], source.lines[key])
    result.pop("extends", None)
    own_classes = own.get("classes", Mapping())
    if not isinstance(own_classes, Mapping):
        raise fields.fail(own.lines["classes"], "`classes` must list the classes of each level", "write classes: {fine: []}")
    base_classes = _inherited(base["classes"], path)
    removed = _removed(base_classes, own, fields)
    classes = Mapping()
    classes.line = own.lines.get("classes", own.line)
    for level in dict.fromkeys([*base_classes, *own_classes]):
        lines = own_classes.lines if level in own_classes else base_classes.lines
        _put(classes, level, _level(base_classes, own_classes, level, removed, fields), lines[level])
    _put(result, "classes", classes, classes.line)
    result.pop("remove", None)
    names = _level_names(base)
    gone = {level: _gone(removed.get(level, {}), base_classes[level], classes[level]) for level in names}
    _check_orphans(classes, names, gone, fields)
    targets = _Targets(classes, _level_names(own) or names, gone)
    _merge_sources(result, _inherited(base.get("sources"), path), own, targets)
    return result


def _level_names(data: Mapping) -> list[str]:
    """The level names of a file that may yet be refused; none where they are not there."""
    levels = data.get("levels")
    names = [item.get("name") if isinstance(item, Mapping) else item for item in levels] if isinstance(levels, list) else []
    return [str(name) for name in names] if len(names) > 1 else []


def _put(mapping: Mapping, key: Any, value: Any, line: int) -> None:
    mapping[key], mapping.lines[key] = value, line


def _inherited(value: Any, path: Path) -> Any:
    """A copy whose lines say that they are another file's."""
    if isinstance(value, Mapping):
        copy = Mapping()
        copy.line = _mark(value.line, path)
        for key, item in value.items():
            _put(copy, key, _inherited(item, path), _mark(value.lines[key], path))
        return copy
    if isinstance(value, Sequence):
        return Sequence([_inherited(item, path) for item in value], [_mark(line, path) for line in value.lines])
    return value


def _mark(line: int, path: Path) -> Inherited:
    return line if isinstance(line, Inherited) else Inherited(line, path)


def _removed(base: Mapping, own: Mapping, fields: Fields) -> dict[str, dict[str, int]]:
    """Level -> folded name of each class to leave out -> line that says so."""
    remove = own.get("remove", Mapping())
    if not isinstance(remove, Mapping):
        raise fields.fail(own.lines["remove"], "`remove` must list class names by level", "write remove: {fine: [name]}")
    found: dict[str, dict[str, int]] = {}
    for level in remove:
        line = remove.lines[level]
        if level not in base:
            raise fields.fail(line, f"`remove` names unknown level {level!r}", did_you_mean(str(level), base))
        known = {fold(item["name"]): item["name"] for item in _items(base, level, fields)}
        for name in fields.texts(remove, level):
            if fold(name) not in known:
                cure = did_you_mean(name, known.values())
                raise fields.fail(line, f"`remove` names unknown {level} class {name!r}", cure)
            found.setdefault(level, {})[fold(name)] = line
    return found


def _gone(removed: dict[str, int], before: Sequence, after: Sequence) -> dict[str, int]:
    """Folded names and aliases that no class of a level has any more -> line that removed them."""
    kept = {spelling for item in after for spelling in _spellings(item)}
    lines = {spelling: removed.get(_spellings(item)[0]) for item in before for spelling in _spellings(item)}
    return {spelling: line for spelling, line in lines.items() if line is not None and spelling not in kept}


def _spellings(item: Mapping | str) -> list[str]:
    if not isinstance(item, Mapping):
        return [fold(str(item))]
    aliases = item.get("aliases")
    return [fold(str(name)) for name in (item["name"], *(aliases if isinstance(aliases, list) else []))]


def _items(classes: Mapping, level: str, fields: Fields) -> list[Mapping]:
    """The classes of one level as mappings, bare names included."""
    items = classes.get(level, Sequence([], []))
    if not isinstance(items, Sequence):
        raise fields.fail(classes.lines[level], f"level {level!r} must list its classes", "write a list")
    found = []
    for item, line in zip(items, items.lines, strict=True):
        entry = item if isinstance(item, Mapping) else named(fields.word(item, line, "the class"), line)
        fields.text(entry, "name", entry.line)
        found.append(entry)
    return found


def _level(base: Mapping, own: Mapping, level: str, removed: dict[str, dict[str, int]], fields: Fields) -> Sequence:
    """The classes of one level after the changes, with ids only where the file wrote one."""
    items = _items(base, level, fields)
    order = sorted(range(len(items)), key=lambda position: items[position].get("id", position))
    by_name = {fold(items[position]["name"]): items[position] for position in order}
    for item in by_name.values():
        item.pop("id", None)
    for name in removed.get(level, {}):
        del by_name[name]
    changed: set[str] = set()
    for change in _items(own, level, fields):
        name = fold(change["name"])
        if name in changed:
            raise fields.fail(change.line, f"{level} class {change['name']!r} is written twice", "keep one entry")
        changed.add(name)
        item = by_name.setdefault(name, change)
        for key in change:
            if item is not change and key != "name":
                _put(item, key, change[key], change.lines[key])
    found = _without_needless_copies(list(by_name.values()))
    _number(found)
    return Sequence(found, [item.line for item in found])


def _without_needless_copies(items: list[Mapping]) -> list[Mapping]:
    """Leave out the implicit copy of a class that has children of its own by now."""
    owned = {fold(parent) for item in items if not _implicit(item) for parent in _parents(item)}
    return [item for item in items if not (_implicit(item) and fold(item["name"]) in owned)]


def _implicit(item: Mapping) -> bool:
    return bool(plain(item.get("implicit", False)))


def _parents(item: Mapping) -> list[str]:
    parents = item.get("parent", [])
    return [name for name in (parents if isinstance(parents, list) else [parents]) if isinstance(name, str)]


def _number(items: list[Mapping]) -> None:
    """Give the classes without an id the free numbers in order, where any class has one."""
    given = {item["id"] for item in items if isinstance(item.get("id"), int)}
    if any("id" in item for item in items):
        free = (number for number in range(2 * len(items)) if number not in given)
        for item in items:
            if "id" not in item:
                _put(item, "id", next(free), item.line)


def _check_orphans(classes: Mapping, levels: list[str], gone: dict[str, dict[str, int]], fields: Fields) -> None:
    """A class may not be removed from above its children."""
    for below, above in itertools.pairwise(levels):
        for item in classes[below]:
            for parent in _parents(item):
                if fold(parent) in gone[above]:
                    raise fields.fail(
                        gone[above][fold(parent)],
                        f"`remove` names {parent!r}, but {below} class {item['name']!r} is below it",
                        f"remove {item['name']!r} too, or give it another parent",
                    )


class _Targets:
    """What the targets of the base's source tables become."""

    def __init__(self, classes: Mapping, levels: list[str], gone: dict[str, dict[str, int]]) -> None:
        fine, coarse = ([*classes.get(level, [])] for level in levels[:2])
        self.fine = {spelling for item in fine for spelling in _spellings(item)}
        self.coarse = {spelling for item in coarse for spelling in _spellings(item)}
        parents = {fold(parent) for item in fine for parent in _parents(item)}
        self.with_children = {word for item in coarse if parents & {*_spellings(item)} for word in _spellings(item)}
        self.gone = {spelling for spellings in gone.values() for spelling in spellings}

    def of(self, target: Any) -> Any:
        """A class that was removed becomes ignore; the silhouette of one that got parts is known on `coarse` only."""
        if isinstance(target, Mapping):
            return "ignore" if fold(str(target["coarse"])) in self.gone - self.coarse else target
        name = fold(str(target))
        if name in self.fine or name not in self.coarse:
            return "ignore" if name in self.gone - self.fine else target
        if name not in self.with_children:
            return target
        known = Mapping()
        _put(known, "coarse", target, 0)
        return known


def _merge_sources(result: Mapping, base: Mapping | None, own: Mapping, targets: _Targets) -> None:
    """The file's own tables replace those of the base, whose targets follow the changes of the classes."""
    tables = own.get("sources", Mapping())
    if not isinstance(tables, Mapping):
        return  # refused by the reader of sources
    both = Mapping()
    both.line = own.lines.get("sources", own.line)
    for name, table in (base or {}).items():
        if base is not None and name not in tables:
            _follow(table["map"], targets)
            _put(both, name, table, base.lines[name])
    for name in tables:
        _put(both, name, tables[name], tables.lines[name])
    if both:
        _put(result, "sources", both, both.line)


def _follow(table: Mapping, targets: _Targets) -> None:
    for key, target in table.items():
        if isinstance(target, Mapping) and set(target) != {"coarse"}:
            _follow(target, targets)
        else:
            table[key] = targets.of(target)
