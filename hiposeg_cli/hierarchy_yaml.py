"""Read and write `hierarchy.yaml` (schema hiposeg/hierarchy@1), refusing whatever could be misread.

Every error names the file and line. Ragged branches are padded with implicit copies, so each level is a partition.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import ConfigError, HierarchyError, did_you_mean
from hiposeg_cli.hierarchy import KINDS, ClassNode, Color, Hierarchy, Level, SourceTable, fold, resolve_preset
from hiposeg_cli.strict_yaml import Mapping, Retyped, Sequence, load_yaml, parse_yaml, plain

SCHEMA = "hiposeg/hierarchy@1"
MAX_CLASSES = 65_534  # 65535 is ignore in 16-bit maps
_TOP_KEYS = ("schema", "name", "doc", "levels", "structure", "classes", "sources")
_CLASS_KEYS = ("id", "name", "parent", "color", "kind", "aliases", "mirror", "implicit", "doc")
_SOURCE_KEYS = ("map", "ignore", "uncovered", "unlabelled")


def load_hierarchy(name_or_path: str | Path) -> Hierarchy:
    """Load a shipped taxonomy by name, or any taxonomy by path.

    Raises: HierarchyError naming file, line and cure.
    """
    path = resolve_preset(str(name_or_path))
    try:
        return _Parser(path).hierarchy(load_yaml(path))
    except ConfigError as error:
        raise HierarchyError(error.where, error.what, error.cure) from None


def parse_hierarchy(text: str, where: object = "hierarchy") -> Hierarchy:
    """Parse a taxonomy from text; see `load_hierarchy`."""
    try:
        return _Parser(where).hierarchy(parse_yaml(text, where))
    except ConfigError as error:
        raise HierarchyError(error.where, error.what, error.cure) from None


class _Parser:
    """One file's parse; holds where it came from so that every error can say it."""

    def __init__(self, where: object) -> None:
        self.where = where

    def fail(self, line: int | None, what: str, cure: str = "") -> HierarchyError:
        return HierarchyError(f"{self.where}:{line}" if line else self.where, what, cure)

    def hierarchy(self, data: Any) -> Hierarchy:
        if not isinstance(data, Mapping):
            raise self.fail(None, "is not a hierarchy file (the top level must be keys)", f"start with `schema: {SCHEMA}`")
        self._known_keys(data, _TOP_KEYS, "the file")
        if data.get("schema") != SCHEMA:
            raise self.fail(data.lines.get("schema", 1), f"schema is {data.get('schema')!r}", f"write `schema: {SCHEMA}`")
        if data.get("structure", "tree") != "tree":
            raise self.fail(data.lines["structure"], "only `structure: tree` can be trained", "give each class one parent")
        level_names = self._level_names(data)
        classes = data.get("classes")
        if not isinstance(classes, Mapping):
            raise self.fail(data.lines.get("classes"), "`classes` must list the classes of each level", "add it")
        for key in classes:
            if key not in level_names:
                raise self.fail(classes.lines[key], f"unknown level {key!r}", did_you_mean(str(key), level_names))
        levels = [self._level(name, classes, top=name == level_names[-1]) for name in level_names]
        self._check_parents(levels, classes)
        self._check_room_for_copies(levels, classes)
        levels = _padded(levels)
        self._check_mirror_parents(levels, classes)
        name = self._text(data, "name", data.line)
        doc = self._text(data, "doc", data.line) if "doc" in data else ""
        hierarchy = Hierarchy(name=name, levels=tuple(levels), doc=doc.strip())
        return replace(hierarchy, sources=self._sources(data.get("sources"), hierarchy))

    def _level_names(self, data: Mapping) -> list[str]:
        levels = data.get("levels")
        line = data.lines.get("levels")
        if not isinstance(levels, list) or len(levels) < 2:
            raise self.fail(line, "`levels` must name at least two levels, finest first", "write `levels: [fine, coarse]`")
        names = [item.get("name") if isinstance(item, Mapping) else item for item in levels]
        texts = [self._word(name, line, "a level name") for name in names]
        if len(set(texts)) != len(texts):
            raise self.fail(line, f"level names must be different, got {texts}", "write `levels: [fine, coarse]`")
        return texts

    def _level(self, level_name: str, classes: Mapping, *, top: bool) -> Level:
        items = classes.get(level_name)
        if not isinstance(items, Sequence) or not items:
            raise self.fail(
                classes.lines.get(level_name, classes.line), f"level {level_name!r} lists no classes", "add them"
            )
        nodes = [self._node(item, position, items.lines[position], top=top) for position, item in enumerate(items)]
        ids = [node.id for node in nodes]
        if sorted(ids) != list(range(len(nodes))):
            gaps = sorted(set(range(len(nodes))) - set(ids)) or [i for i in ids if ids.count(i) > 1]
            raise self.fail(
                classes.lines[level_name], f"ids of level {level_name!r} are not 0..{len(nodes) - 1} (see id {gaps[0]})",
                "number the classes without gaps or repeats",
            )  # fmt: skip
        if len(nodes) > MAX_CLASSES:
            raise self.fail(
                classes.lines[level_name], f"{len(nodes)} classes do not fit 16-bit maps", f"at most {MAX_CLASSES}"
            )
        self._check_unique(nodes, items, level_name)
        self._check_mirror(nodes, items)
        return Level(level_name, tuple(sorted(nodes, key=lambda node: node.id)))

    def _node(self, item: Any, position: int, line: int, *, top: bool) -> ClassNode:
        if not isinstance(item, Mapping):
            item = _named(self._word(item, line, "the class"), line)
        self._known_keys(item, _CLASS_KEYS, "a class")
        name = self._text(item, "name", item.line)
        if top and "parent" in item:
            raise self.fail(item.line, f"{name!r} is on the coarsest level and cannot have a parent", "remove `parent`")
        if not top and "parent" not in item:
            raise self.fail(item.line, f"{name!r} has no parent", "add `parent: NAME`")
        if isinstance(item.get("parent"), list):
            raise self.fail(item.line, f"{name!r} has {len(item['parent'])} parents; a tree allows one", "keep one parent")
        node_id = item.get("id", position)
        if not isinstance(node_id, int) or node_id < 0:
            raise self.fail(item.line, f"{name!r} has id {node_id!r}", "use whole numbers from 0")
        kind = item.get("kind")
        if kind is not None and kind not in KINDS:
            raise self.fail(item.line, f"{name!r} has unknown kind {kind!r}", did_you_mean(str(kind), KINDS))
        return ClassNode(
            id=node_id, name=name, kind=kind, color=self._color(item, node_id),
            parent=None if top else self._text(item, "parent", item.line),
            aliases=tuple(self._texts(item, "aliases")),
            mirror=self._text(item, "mirror", item.line) if "mirror" in item else None,
            implicit=bool(plain(item.get("implicit", False))),
            doc=self._text(item, "doc", item.line) if "doc" in item else "",
        )  # fmt: skip

    def _color(self, item: Mapping, node_id: int) -> Color:
        color = item.get("color")
        if color is None:
            return _voc_color(node_id)
        if not (isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color)):
            raise self.fail(item.line, f"color {color!r} is not three numbers 0..255", "write [R, G, B]")
        return (color[0], color[1], color[2])

    def _text(self, item: Mapping, key: str, line: int | None) -> str:
        """A required text value."""
        if key not in item:
            raise self.fail(line, f"`{key}` is missing", "add it")
        return self._word(item[key], item.lines.get(key, line), f"`{key}`")

    def _texts(self, item: Mapping, key: str) -> list[str]:
        values = item.get(key, [])
        if not isinstance(values, list):
            raise self.fail(item.lines[key], f"`{key}` must be a list", 'write ["a", "b"]')
        return [self._word(value, item.lines[key], f"`{key}`") for value in values]

    def _word(self, value: Any, line: int | None, what: str) -> str:
        """A text that YAML reads as text and that survives being written and read again."""
        if not isinstance(value, str):
            shown = value.text if isinstance(value, Retyped) else str(value)
            line = getattr(value, "line", line)
            if isinstance(value, Retyped | int | float):
                raise self.fail(line, f"YAML does not read {what} {shown} as text", f'write "{shown}"')
            raise self.fail(line, f"{what} is {shown[:60]!r}, not text", "write one word or a quoted text")
        kept = value.replace("\n", " ").replace("\t", " ") if what == "`doc`" else value
        if not kept.strip() or any(unicodedata.category(char) in ("Cc", "Cs", "Cn") for char in kept):
            raise self.fail(line, f"{what} {value!r} is empty or has control characters", "rewrite it")
        return value

    def _known_keys(self, item: Mapping, known: Iterable[str], what: str) -> None:
        for key in item:
            if key not in known:
                raise self.fail(item.lines[key], f"unknown key {key!r} in {what}", did_you_mean(str(key), known))

    def _check_unique(self, nodes: list[ClassNode], items: list[Any], level_name: str) -> None:
        owner: dict[str, ClassNode] = {}
        for node, item in zip(nodes, items, strict=True):
            for spelling in {fold(name) for name in (node.name, *node.aliases)}:
                if owner.get(spelling, node) is not node:
                    raise self.fail(
                        getattr(item, "line", None),
                        f"{node.name!r} and {owner[spelling].name!r} share the name {spelling!r} in level {level_name!r}",
                        "rename one of them",
                    )
                owner[spelling] = node

    def _check_mirror(self, nodes: list[ClassNode], items: list[Any]) -> None:
        by_name = {node.name: node for node in nodes}
        for node, item in zip(nodes, items, strict=True):
            if node.mirror is None:
                continue
            twin = by_name.get(node.mirror)
            if twin is None:
                raise self.fail(
                    item.line, f"{node.name!r} mirrors unknown {node.mirror!r}", did_you_mean(node.mirror, by_name)
                )
            if (twin.mirror or twin.name) != node.name:
                raise self.fail(
                    item.line, f"{node.name!r} mirrors {twin.name!r}, which mirrors {twin.mirror!r}", "make the pair mutual"
                )

    def _check_parents(self, levels: list[Level], classes: Mapping) -> None:
        for level, above in itertools.pairwise(levels):
            own = {fold(node.name): node for node in level.nodes}
            lines = {fold(str(item["name"])): item.line for item in classes[level.name] if isinstance(item, Mapping)}
            for node in level.nodes:
                assert node.parent is not None
                if above.find(node.parent) is not None:
                    continue
                line = lines.get(fold(node.name))
                if fold(node.parent) in own:
                    raise self.fail(line, _same_level(node, own), f"a parent must be on level {above.name!r}")
                raise self.fail(
                    line, f"{node.name!r} has unknown parent {node.parent!r}", did_you_mean(node.parent, above.names)
                )

    def _check_mirror_parents(self, levels: list[Level], classes: Mapping) -> None:
        """A flip must keep each class below its parent: mirrored classes have mirrored parents."""
        for below, above in itertools.pairwise(levels):
            parents = [above.find(node.parent or "") or 0 for node in below.nodes]
            for node, twin in zip(below.nodes, below.mirror_ids(), strict=True):
                if parents[twin] != above.mirror_ids()[parents[node.id]]:
                    has = f"mirrors {node.mirror!r}, but their parents do not" if node.mirror else "has none, its parent has"
                    raise self.fail(
                        classes.lines.get(below.name), f"mirror classes: {node.name!r} {has}",
                        "mirrored classes need one parent, or parents that mirror each other",
                    )  # fmt: skip

    def _check_room_for_copies(self, levels: list[Level], classes: Mapping) -> None:
        """A childless class gets an implicit copy on the level below, whose name must be free there."""
        for below, above in itertools.pairwise(levels):
            parents = {above.find(node.parent or "") for node in below.nodes}
            for node in above.nodes:
                if node.id not in parents and below.find(node.name) is not None:
                    raise self.fail(
                        classes.lines[above.name],
                        f"{node.name!r} has no children, and {below.name} class {node.name!r} has another parent",
                        f"rename one of them, or give {below.name} {node.name!r} the parent {node.name!r}",
                    )

    def _sources(self, data: Any, hierarchy: Hierarchy) -> dict[str, SourceTable]:
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            raise self.fail(None, "`sources` must be keys (one per annotation format)", "write sources: {masks: {map: ...}}")
        return {str(key): self._source(str(key), item, data.lines[key], hierarchy) for key, item in data.items()}

    def _source(self, name: str, item: Any, line: int, hierarchy: Hierarchy) -> SourceTable:
        if not isinstance(item, Mapping) or not isinstance(item.get("map"), Mapping):
            raise self.fail(line, f"source {name!r} needs a `map`", "write map: {raw: class}")
        self._known_keys(item, _SOURCE_KEYS, f"source {name!r}")
        for key in ("uncovered", "unlabelled"):
            value = item.get(key, "ignore")
            if value not in ("ignore", "background"):
                raise self.fail(item.lines[key], f"`{key}` is {value!r}", "write ignore or background")
            if value == "background" and hierarchy.background is None:
                raise self.fail(item.lines[key], f"`{key}: background` but no class has `kind: background`", "mark one")
        ignore = item.get("ignore", [])
        if not isinstance(ignore, list) or not all(isinstance(value, int) for value in ignore):
            raise self.fail(item.lines["ignore"], "`ignore` must list raw ids", "write [0, 255]")
        self._check_targets(item["map"], hierarchy, name)
        default = "background" if hierarchy.background is not None else "ignore"
        return SourceTable(
            map=plain(item["map"]), ignore=tuple(ignore),
            uncovered=item.get("uncovered", "ignore"), unlabelled=item.get("unlabelled", default),
        )  # fmt: skip

    def _check_targets(self, table: Mapping, hierarchy: Hierarchy, source: str) -> None:
        for key, target in table.items():
            line = table.lines[key]
            if isinstance(target, Mapping) and set(target) == {"coarse"}:
                level, target = hierarchy.coarse, target["coarse"]
            elif isinstance(target, Mapping):
                self._check_targets(target, hierarchy, source)
                continue
            else:
                level = hierarchy.fine
            target = self._word(target, line, f"source {source!r}, target of {key!r}:")
            if target != "ignore" and level.find(target) is None:
                raise self.fail(
                    line, f"source {source!r} maps {key!r} to unknown {level.name} class {target!r}",
                    did_you_mean(target, level.names),
                )  # fmt: skip


def _named(name: str, line: int) -> Mapping:
    item = Mapping()
    item["name"], item.line = name, line
    return item


def _same_level(node: ClassNode, own: dict[str, ClassNode]) -> str:
    """Describe a parent on the node's own level, following it to a cycle if there is one."""
    path = [node.name]
    current: ClassNode | None = node
    while current is not None and current.parent is not None:
        path.append(current.parent)
        current = own.get(fold(current.parent))
        if current is not None and fold(current.name) in map(fold, path[:-1]):
            return f"the parents form a cycle: {' -> '.join(path)}"
    return f"{node.name!r} has its parent {node.parent!r} on its own level"


def _padded(levels: list[Level]) -> list[Level]:
    """Give every class without children an implicit copy of itself on the level below, from the top down."""
    padded = list(levels)
    for position in range(len(padded) - 2, -1, -1):
        below, above = padded[position], padded[position + 1]
        parents = {above.find(node.parent or "") for node in below.nodes}
        childless = [node for node in above.nodes if node.id not in parents]
        for node in childless:
            # A copy mirrors its twin's copy; where the twin has children instead, the pair is refused later.
            twin = node.mirror if node.mirror in [other.name for other in childless] else None
            below = _with(below, replace(node, mirror=twin))
        padded[position] = below
    return [_canonical_parents(level, above) for level, above in zip(padded, [*padded[1:], None], strict=True)]


def _with(level: Level, node: ClassNode) -> Level:
    copy = replace(node, id=len(level), parent=node.name, aliases=(), implicit=True)
    return Level(level.name, (*level.nodes, copy))


def _canonical_parents(level: Level, above: Level | None) -> Level:
    """Replace aliases in `parent` by the class's own name."""
    if above is None:
        return level
    names = above.names
    nodes = (replace(node, parent=names[above.find(node.parent or "") or 0]) for node in level.nodes)
    return Level(level.name, tuple(nodes))


def _voc_color(index: int) -> Color:
    """The PASCAL VOC colour of a class id (VOClabelcolormap), for classes whose file names none."""
    red = green = blue = 0
    for shift in range(8):
        red |= (index & 1) << (7 - shift)
        green |= (index >> 1 & 1) << (7 - shift)
        blue |= (index >> 2 & 1) << (7 - shift)
        index >>= 3
    return (red, green, blue)


def dump_hierarchy(hierarchy: Hierarchy) -> str:
    """Write the canonical YAML text of a hierarchy; parsing it gives an equal hierarchy."""
    lines = [f"schema: {SCHEMA}", f"name: {_quoted(hierarchy.name)}"]
    if hierarchy.doc:
        lines.append(f"doc: {_quoted(hierarchy.doc)}")
    lines.append("levels: [" + ", ".join(_quoted(level.name) for level in hierarchy.levels) + "]")
    lines.append("classes:")
    for level in reversed(hierarchy.levels):
        lines.append(f"  {_quoted(level.name)}:")
        lines += [f"    - {_dump_node(node)}" for node in level.nodes]
    if hierarchy.sources:
        lines.append("sources:")
    for name, table in hierarchy.sources.items():
        lines += [f"  {_quoted(name)}:", f"    uncovered: {table.uncovered}", f"    unlabelled: {table.unlabelled}"]
        lines += [f"    ignore: {list(table.ignore)}", "    map:" if table.map else "    map: {}"]
        lines += [f"      {_quoted(key)}: {_quoted(target)}" for key, target in table.map.items()]
    return "\n".join(lines) + "\n"


def _dump_node(node: ClassNode) -> str:
    optional = {
        "parent": node.parent, "kind": node.kind, "aliases": list(node.aliases), "mirror": node.mirror,
        "implicit": node.implicit, "doc": node.doc,
    }  # fmt: skip
    given = {"id": node.id, "name": node.name, "color": list(node.color)} | {k: v for k, v in optional.items() if v}
    return _quoted(given)


def _quoted(value: Any) -> str:
    """JSON is YAML's flow style with every string quoted: nothing in it can be retyped."""
    return json.dumps(value, ensure_ascii=False)
