"""Taxonomies from CVAT: the labels of a project as JSON, or the labelmap.txt of a PASCAL VOC export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hiposeg_cli.builders.base import Builder, BuildOptions, Draft
from hiposeg_cli.builders.forest import Twig, forest_draft
from hiposeg_cli.builders.tables import color_of
from hiposeg_cli.builders.text import read_lines
from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import fold
from hiposeg_cli.strict_json import load_json


@dataclass
class _Label:
    name: str
    line: int = 0
    color: list[int] | None = None
    parts: list[_Label] = field(default_factory=list)


def _cvat(path: Path, options: BuildOptions) -> Draft:
    """Labels with their parts below them; a label that is a part of another one is no object of its own."""
    labels = list(_from_text(path) if path.suffix.lower() == ".txt" else _from_json(path))
    by_name = {fold(label.name): label for label in labels}
    if len(by_name) < len(labels):
        names = [fold(label.name) for label in labels]
        twice = next(label for number, label in enumerate(labels) if fold(label.name) in names[:number])
        where = f"{path}:{twice.line}" if twice.line else path
        raise DataError(where, f"the label {twice.name!r} is there twice", "keep one")
    owned = {fold(part.name) for label in labels for part in label.parts}
    objects = [label for label in labels if label.parts or fold(label.name) not in owned]
    roots = []
    for label in objects:
        parts = [Twig(part.name, part.line or label.line, keys=_keys(part, by_name)) for part in label.parts]
        roots.append(Twig(label.name, label.line, parts, _keys(label, {})))
    return forest_draft(roots, path)


def _keys(label: _Label, known: dict[str, _Label]) -> dict[str, Any]:
    """The colour of a label; a part without one has that of the label of its name."""
    same = known.get(fold(label.name))
    color = label.color or (same.color if same else None)
    return {} if color is None else {"color": color}


def _from_text(path: Path) -> Iterator[_Label]:
    """`name:r,g,b:part,part:action,action` a line."""
    for number, line in read_lines(path):
        fields = [part.strip() for part in line.split(":")]
        if not 2 <= len(fields) <= 4 or not fields[0]:
            raise DataError(f"{path}:{number}", f"{line!r} is no label", "write name:r,g,b:parts:actions")
        color = color_of(fields[1], f"{path}:{number}") if fields[1] else None
        parts = [_Label(part.strip()) for part in fields[2].split(",") if part.strip()] if len(fields) > 2 else []
        yield _Label(fields[0], number, color, parts)


def _from_json(path: Path) -> Iterator[_Label]:
    """The list of labels that CVAT shows under Raw, or an answer of its server; skeletons have `sublabels`."""
    data = load_json(path)
    if isinstance(data, dict):
        data = data.get("labels", data.get("results"))
    if not isinstance(data, list) or not data:
        raise DataError(path, "is no list of labels", "save what CVAT shows under Raw in a project's label constructor")
    for position, entry in enumerate(data):
        yield _label(entry, f"label {position}", path)


def _label(entry: Any, what: str, path: Path) -> _Label:
    if isinstance(entry, str):
        entry = {"name": entry}
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise DataError(path, f"{what} has no name", "export the labels again")
    below = entry.get("sublabels") or entry.get("parts") or []
    if not isinstance(below, list):
        raise DataError(path, f"the parts of {name!r} are no list", "export the labels again")
    color = color_of(str(entry["color"]), path) if entry.get("color") else None
    return _Label(name, 0, color, [_label(part, f"a part of {name!r}", path) for part in below])


cvat = Builder(_cvat, "CVAT's labels as JSON, or labelmap.txt of a PASCAL VOC export")
