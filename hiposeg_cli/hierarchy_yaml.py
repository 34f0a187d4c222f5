"""Read and write `hierarchy.yaml` (schema hiposeg/hierarchy@1), refusing whatever could be misread.

Every error names the file and line. Ragged branches are padded with implicit copies, so each level is a partition.
`taxonomy/` holds the parts: fields, `extends`, levels, sources and the canonical text.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import ConfigError, HierarchyError, did_you_mean
from hiposeg_cli.hierarchy import KINDS, ClassNode, Color, Dag, Hierarchy, Level, Taxonomy, fold, resolve_preset
from hiposeg_cli.strict_yaml import Mapping, Sequence, load_yaml, parse_yaml, plain
from hiposeg_cli.taxonomy.dump import SCHEMA, dump_hierarchy
from hiposeg_cli.taxonomy.extends import base_path, merged
from hiposeg_cli.taxonomy.fields import Fields, named
from hiposeg_cli.taxonomy.levels import Refuse, canonical_parents, one_parent, padded, projected, tree_of
from hiposeg_cli.taxonomy.sources import read_sources

__all__ = [
    "SCHEMA", "dump_hierarchy", "load_hierarchy", "load_taxonomy", "parse_hierarchy", "parse_taxonomy", "read_document",
]  # fmt: skip

MAX_CLASSES = 65_534  # 65535 is ignore in 16-bit maps
MAX_8_BIT_CLASSES = 254  # 255 is ignore, and 254 is what arithmetic on 8-bit maps makes of it
_TOP_KEYS = (
    "schema", "name", "doc", "extends", "levels", "structure", "axes", "projection", "classes", "remove", "sources",
)  # fmt: skip
_CLASS_KEYS = ("id", "name", "parent", "axis", "color", "kind", "aliases", "mirror", "implicit", "doc")


def load_hierarchy(name_or_path: str | Path) -> Hierarchy:
    """Load a shipped taxonomy by name, or any taxonomy by path, as the tree that label maps and training use.

    Raises: HierarchyError naming file, line and cure; also for a DAG that chooses no axis.
    """
    return tree_of(load_taxonomy(name_or_path), resolve_preset(str(name_or_path)))


def parse_hierarchy(text: str, where: object = "hierarchy") -> Hierarchy:
    """Parse a taxonomy from text; see `load_hierarchy`."""
    return tree_of(parse_taxonomy(text, where), where)


def load_taxonomy(name_or_path: str | Path) -> Taxonomy:
    """Load a taxonomy as its file states it: a tree, or a DAG with all its axes. See `load_hierarchy`."""
    path = resolve_preset(str(name_or_path))
    try:
        return read_document(load_yaml(path), path)
    except ConfigError as error:
        raise HierarchyError(error.where, error.what, error.cure) from None


def parse_taxonomy(text: str, where: object = "hierarchy") -> Taxonomy:
    """Parse a taxonomy from text as it is stated; see `load_taxonomy`."""
    try:
        return read_document(parse_yaml(text, where), where)
    except ConfigError as error:
        raise HierarchyError(error.where, error.what, error.cure) from None


def read_document(data: Any, where: object) -> Taxonomy:
    """Check the values of a file, or those a builder made, and give their taxonomy. Raises HierarchyError."""
    parser = _Parser(where)
    return parser.taxonomy(parser.flattened(data, [where.resolve()] if isinstance(where, Path) else []))


class _Parser(Fields):
    """One file's parse."""

    def flattened(self, data: Any, trail: list[Path]) -> Mapping:
        """The file with everything it extends merged in.

        Args:
            trail: the files that led here, each extending the next.
        """
        if not isinstance(data, Mapping):
            raise self.fail(None, "is not a hierarchy file (the top level must be keys)", f"start with `schema: {SCHEMA}`")
        self.known_keys(data, _TOP_KEYS, "the file")
        if data.get("schema") != SCHEMA:
            raise self.fail(data.lines.get("schema", 1), f"schema is {data.get('schema')!r}", f"write `schema: {SCHEMA}`")
        if "extends" not in data:
            if "remove" in data:
                raise self.fail(data.lines["remove"], "`remove` needs `extends`", "leave the classes out instead")
            return data
        path = base_path(data, self)
        if path.resolve() in trail:
            names = " -> ".join(str(step.name) for step in [*trail, path])
            raise self.fail(data.lines["extends"], f"the files extend each other: {names}", "remove one `extends`")
        base_parser = _Parser(path)
        base = base_parser.flattened(load_yaml(path), [*trail, path.resolve()])
        base_parser.taxonomy(base)
        return merged(base, data, path, self)

    def taxonomy(self, data: Mapping) -> Taxonomy:
        """The taxonomy of a flattened file."""
        level_names = self._level_names(data)
        axes, projection = self._axes(data)
        classes = data.get("classes")
        if not isinstance(classes, Mapping):
            raise self.fail(data.lines.get("classes"), "`classes` must list the classes of each level", "add it")
        for key in classes:
            if key not in level_names:
                raise self.fail(classes.lines[key], f"unknown level {key!r}", did_you_mean(str(key), level_names))
        levels = [self._level(name, classes, top=name == level_names[-1], dag=bool(axes)) for name in level_names]
        self._check_parents(levels, classes)
        levels = canonical_parents(levels)
        name = self.text(data, "name", data.line)
        doc = self.text(data, "doc", data.line).strip() if "doc" in data else ""
        tree: Taxonomy | None = None
        dag: Dag | None = None
        if axes:
            self._check_axes(levels, classes, axes)
            dag = Dag(name, tuple(levels), axes, projection, doc=doc)
            levels = projected(levels, projection, self._refuse_parents(projection, classes)) if projection else []
        if levels:
            self._check_room_for_copies(levels, classes)
            levels = padded(levels)
            self._check_mirror_parents(levels, classes)
            tree = Hierarchy(name=name, levels=tuple(levels), doc=doc)
        stated = dag or tree
        assert stated is not None
        self._check_ignore(data, tree or stated)
        return replace(stated, sources=read_sources(data.get("sources"), tree or stated, self))

    def _level_names(self, data: Mapping) -> list[str]:
        levels = data.get("levels")
        line = data.lines.get("levels")
        if not isinstance(levels, Sequence) or len(levels) < 2:
            raise self.fail(line, "`levels` must name at least two levels, finest first", "write `levels: [fine, coarse]`")
        for item in levels:
            if isinstance(item, Mapping):
                self.known_keys(item, ("name", "ignore_index"), "a level")
        names = [item.get("name") if isinstance(item, Mapping) else item for item in levels]
        texts = [self.word(name, line, "a level name") for name in names]
        if len(set(texts)) != len(texts):
            raise self.fail(line, f"level names must be different, got {texts}", "write `levels: [fine, coarse]`")
        if dots := [name for name in texts if name in (".", "..")]:
            raise self.fail(line, f"{dots[0]!r} is no name for a level, whose maps lie in a folder", "choose a word")
        return texts

    def _check_ignore(self, data: Mapping, taxonomy: Taxonomy) -> None:
        """A stated ignore value must be the one that the level's maps hold."""
        for item, level in zip(data["levels"], taxonomy.levels, strict=True):
            right = 255 if len(level) <= MAX_8_BIT_CLASSES else 65_535
            if isinstance(item, Mapping) and item.get("ignore_index", right) != right:
                raise self.fail(
                    item.lines["ignore_index"], f"`ignore_index` of level {level.name!r} is {item['ignore_index']!r}",
                    f"write {right}, which is ignore in maps of {len(level)} classes",
                )  # fmt: skip

    def _axes(self, data: Mapping) -> tuple[tuple[str, ...], str | None]:
        """The axes of a DAG and the one chosen as its tree; no axes for a tree."""
        structure = data.get("structure", "tree")
        if structure not in ("tree", "dag"):
            cure = "write tree (each class has one parent) or dag (parents on several axes)"
            raise self.fail(data.lines["structure"], f"unknown structure {structure!r}", cure)
        if structure == "tree":
            for key in ("axes", "projection"):
                if key in data:
                    raise self.fail(data.lines[key], f"`{key}` needs `structure: dag`", "add it, or remove the key")
            return (), None
        axes = self.texts(data, "axes")
        if not axes or len(set(axes)) != len(axes):
            line = data.lines.get("axes", data.lines["structure"])
            raise self.fail(line, f"a DAG needs different `axes`, got {axes}", "write `axes: [object, part_type]`")
        projection = self.text(data, "projection", None) if "projection" in data else None
        if projection is not None and projection not in axes:
            raise self.fail(data.lines["projection"], f"unknown axis {projection!r}", did_you_mean(projection, axes))
        return tuple(axes), projection

    def _level(self, level_name: str, classes: Mapping, *, top: bool, dag: bool) -> Level:
        items = classes.get(level_name)
        if not isinstance(items, Sequence) or not items:
            raise self.fail(
                classes.lines.get(level_name, classes.line), f"level {level_name!r} lists no classes", "add them"
            )
        lines = items.lines
        nodes = [self._node(item, position, lines[position], top=top, dag=dag) for position, item in enumerate(items)]
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

    def _node(self, item: Any, position: int, line: int, *, top: bool, dag: bool) -> ClassNode:
        if not isinstance(item, Mapping):
            item = named(self.word(item, line, "the class"), line)
        self.known_keys(item, _CLASS_KEYS, "a class")
        name = self.text(item, "name", item.line)
        parents = self._parents(item, name, top=top, dag=dag)
        node_id = item.get("id", position)
        if not isinstance(node_id, int) or node_id < 0:
            raise self.fail(item.line, f"{name!r} has id {node_id!r}", "use whole numbers from 0")
        kind = item.get("kind")
        if kind is not None and kind not in KINDS:
            raise self.fail(item.line, f"{name!r} has unknown kind {kind!r}", did_you_mean(str(kind), KINDS))
        if "axis" in item and not dag:
            raise self.fail(item.lines["axis"], f"{name!r} has an axis, but this is a tree", "add `structure: dag`")
        return ClassNode(
            id=node_id, name=name, kind=kind, color=self._color(item, node_id),
            parent=parents[0] if parents else None, co_parents=tuple(parents[1:]),
            axis=self.text(item, "axis", item.line) if "axis" in item else None,
            aliases=tuple(self.texts(item, "aliases")),
            mirror=self._mirror(item),
            implicit=bool(plain(item.get("implicit", False))),
            doc=self.text(item, "doc", item.line) if "doc" in item else "",
        )  # fmt: skip

    def _parents(self, item: Mapping, name: str, *, top: bool, dag: bool) -> list[str]:
        if top and "parent" in item:
            raise self.fail(item.line, f"{name!r} is on the coarsest level and cannot have a parent", "remove `parent`")
        if top:
            return []
        if not item.get("parent", []):
            raise self.fail(item.line, f"{name!r} has no parent", "add `parent: NAME`")
        if not isinstance(item["parent"], list):
            return [self.text(item, "parent", item.line)]
        if not dag:
            cure = "keep one parent, or write `structure: dag`"
            raise self.fail(item.line, f"{name!r} has {len(item['parent'])} parents; a tree allows one", cure)
        return self.texts(item, "parent")

    def _mirror(self, item: Mapping) -> str | None:
        """The class that stands in for this one in a flipped image; `self` says that it stays."""
        mirror = self.text(item, "mirror", item.line) if "mirror" in item else "self"
        return None if mirror == "self" else mirror

    def _color(self, item: Mapping, node_id: int) -> Color:
        color = item.get("color")
        if color is None:
            return _voc_color(node_id)
        if not (isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color)):
            raise self.fail(item.line, f"color {color!r} is not three numbers 0..255", "write [R, G, B]")
        return (color[0], color[1], color[2])

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
            for node in level.nodes:
                for parent in node.parents:
                    if above.find(parent) is not None:
                        continue
                    line = _line(classes, level, node)
                    if fold(parent) in own:
                        raise self.fail(line, _same_level(node, own), f"a parent must be on level {above.name!r}")
                    cure = did_you_mean(parent, above.names)
                    raise self.fail(line, f"{node.name!r} has unknown parent {parent!r}", cure)
                if len({above.find(parent) for parent in node.parents}) < len(node.parents):
                    raise self.fail(_line(classes, level, node), f"{node.name!r} has the same parent twice", "keep one")

    def _check_axes(self, levels: list[Level], classes: Mapping, axes: tuple[str, ...]) -> None:
        """Above the finest level of a DAG, each class, its parents and its mirror twin are on one axis."""
        for level, above in zip(levels, [*levels[1:], None], strict=True):
            for node in level.nodes:
                right = (None,) if level is levels[0] else axes
                if node.axis not in right:
                    cure = "remove `axis`" if level is levels[0] else f"write one of {', '.join(axes)}"
                    raise self.fail(
                        _line(classes, level, node), f"{level.name} class {node.name!r} has axis {node.axis!r}", cure
                    )
                if level is levels[0]:
                    continue
                above_axes = [above.nodes[above.find(name) or 0].axis for name in node.parents] if above else []
                twin = level.nodes[level.find(node.mirror or node.name) or 0]
                if {twin.axis, *above_axes} != {node.axis}:
                    kin = f"mirror {twin.name!r}" if twin.axis != node.axis else f"parents {list(node.parents)}"
                    what = f"{node.name!r} is on axis {node.axis!r}, unlike its {kin}"
                    raise self.fail(_line(classes, level, node), what, "keep to one axis")

    def _refuse_parents(self, axis: str, classes: Mapping) -> Refuse:
        def refuse(level: Level, node: ClassNode, parents: list[str]) -> HierarchyError:
            what = one_parent(level, node, parents, axis)
            return self.fail(_line(classes, level, node), what, "give it one, or project another axis")

        return refuse

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


def _line(classes: Mapping, level: Level, node: ClassNode) -> int | None:
    """The line on which a class is written."""
    items = classes[level.name]
    names = [fold(str(item["name"] if isinstance(item, Mapping) else item)) for item in items]
    line: int | None = items.lines[names.index(fold(node.name))]
    return line


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


def _voc_color(index: int) -> Color:
    """The PASCAL VOC colour of a class id (VOClabelcolormap), for classes whose file names none."""
    red = green = blue = 0
    for shift in range(8):
        red |= (index & 1) << (7 - shift)
        green |= (index >> 1 & 1) << (7 - shift)
        blue |= (index >> 2 & 1) << (7 - shift)
        index >>= 3
    return (red, green, blue)
