"""What every builder of taxonomies shares: a draft of named classes, and the way from a draft to a valid taxonomy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hiposeg_cli.builders.palette import child_colors, root_colors
from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.hierarchy import Color, Hierarchy, Taxonomy, fold
from hiposeg_cli.hierarchy_yaml import SCHEMA, dump_hierarchy, read_document
from hiposeg_cli.registry import BUILDERS
from hiposeg_cli.strict_yaml import Mapping
from hiposeg_cli.taxonomy.document import as_document
from hiposeg_cli.taxonomy.mirrors import with_mirrors

_BACKGROUND = ("background", "_background_")


@dataclass(frozen=True)
class BuildOptions:
    """Choices a user may make; each builder names those it honours beside `name` and `mirror`."""

    name: str | None = None
    mirror: bool = True
    levels: int | None = None
    supercategory: str | None = None


@dataclass
class Draft:
    """The classes of a taxonomy to be, finest level first; a class is what a YAML file would say of it."""

    where: Path
    levels: list[str]
    sources: dict[str, Any] = field(default_factory=dict)
    classes: dict[str, list[Mapping]] = field(init=False)
    _index: dict[tuple[str, str, str | None], Mapping] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.classes = {name: [] for name in self.levels}

    def add(self, level: str, name: str, parent: str | None = None, *, line: int = 0, **keys: Any) -> Mapping:
        """Add a class, or find the one of this name and parent; keys that are None are left out."""
        key = (level, name, parent)
        if key in self._index:
            return self._index[key]
        given = {"name": name, "parent": parent} | keys
        item = as_document({key: value for key, value in given.items() if value is not None}, line)
        assert isinstance(item, Mapping)
        self._index[key] = item
        self.classes[level].append(item)
        return item


@dataclass(frozen=True)
class Builder:
    """One kind of source.

    Attributes:
        build: makes a draft, or a finished taxonomy, of a file or folder. Raises HiposegError naming file and line.
        source: what SOURCE is, for the help.
        honours: the options it reads.
    """

    build: Callable[[Path, BuildOptions], Draft | Taxonomy]
    source: str
    honours: frozenset[str] = frozenset()


def build_taxonomy(kind: str, source: Path, options: BuildOptions) -> Taxonomy:
    """Build a taxonomy from a source. Raises HiposegError for a source that cannot be read as one."""
    builder: Builder = BUILDERS.load(kind)
    for option in ("levels", "supercategory"):
        if getattr(options, option) is not None and option not in builder.honours:
            raise ConfigError(f"--{option}", f"does not apply to {kind}", "leave it out")
    if not source.exists():
        raise DataError(source, "no such file or folder", f"name {builder.source}")
    made = builder.build(source, options)
    name = options.name or _slug(source)
    if not isinstance(made, Draft):
        return made if options.name is None else replace(made, name=name)
    return _finished(made, f"Built by `hiposeg hierarchy build {kind}` from {source.name}.", name, mirror=options.mirror)


def _finished(draft: Draft, doc: str, name: str, *, mirror: bool) -> Taxonomy:
    _mark_background(draft)
    _paint(draft)
    document = {"schema": SCHEMA, "name": name, "doc": doc, "levels": draft.levels, "classes": draft.classes}
    taxonomy = read_document(as_document(document | ({"sources": draft.sources} if draft.sources else {})), draft.where)
    if mirror and isinstance(taxonomy, Hierarchy):
        return replace(taxonomy, levels=tuple(with_mirrors(taxonomy.levels)))
    return taxonomy


def _mark_background(draft: Draft) -> None:
    for items in draft.classes.values():
        for item in items:
            if fold(str(item["name"])) in _BACKGROUND:
                item.setdefault("kind", "background")
                item.setdefault("color", as_document([0, 0, 0]))


def _paint(draft: Draft) -> None:
    """Give each class without a colour one of its own, from the coarsest level down."""
    parents: dict[str, Color] = {}
    for level in reversed(draft.levels):
        items = draft.classes[level]
        taken = {tuple(item["color"]) for item in items if isinstance(item.get("color"), list)}
        families: dict[str, list[Mapping]] = {}
        for item in items:
            if "color" not in item:
                families.setdefault(fold(str(item.get("parent"))), []).append(item)
        for parent, family in families.items():
            base = parents.get(parent)
            found = root_colors(len(family), taken) if base is None else child_colors(base, len(family), taken)
            taken |= set(found)
            for item, color in zip(family, found, strict=True):
                item["color"] = as_document(color)
        parents = {fold(str(item["name"])): tuple(item["color"]) for item in items}


def level_names(count: int) -> list[str]:
    """Names for `count` levels, finest first."""
    return ["fine", "coarse", *(f"level{number}" for number in range(3, count + 1))][:count]


def _slug(source: Path) -> str:
    stem = source.name.removesuffix(source.suffix) or source.resolve().name
    return re.sub(r"[^\w.]+", "-", stem).strip("-").lower() or "taxonomy"


def render(taxonomy: Taxonomy, kind: str) -> str:
    """The YAML file of a built taxonomy, with a few words at its top."""
    counts = ", ".join(f"{len(level)} {level.name}" for level in taxonomy.levels)
    head = (
        f"# {counts} classes, built by `hiposeg hierarchy build {kind}`. Every name, colour and kind may be edited;\n"
        "# `hiposeg hierarchy check FILE` says what is wrong in which line. Ids are those of the label maps.\n"
    )
    return head + dump_hierarchy(taxonomy)


def known(items: Sequence[str], most: int = 8) -> str:
    """A few names for a message, and how many more there are."""
    return ", ".join(map(repr, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")
