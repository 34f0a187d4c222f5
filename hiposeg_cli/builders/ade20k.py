"""Taxonomies from the full ADE20K: every pair of object and part that its JSON files name."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hiposeg_cli.builders.base import Builder, BuildOptions, Draft, level_names
from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import fold
from hiposeg_cli.strict_json import parse_json


def _ade20k(path: Path, options: BuildOptions) -> Draft:
    """Objects by name, their parts below them; a part of a part counts as a part of the object.

    A class has the first of its synonyms as name (`car` of `car, auto, automobile`), or all of them where another class
    begins alike.
    """
    parts: dict[str, set[str]] = {}
    files = [path] if path.is_file() else sorted(path.rglob("*.json"))
    for file in files:
        for owner, part in _pairs(file):
            found = parts.setdefault(owner, set())
            if part is not None:
                found.add(part)
    if not parts:
        raise DataError(path, "holds no ADE20K annotation (*.json)", "name the folder of the full release 2021_17_01")
    draft = Draft(path, level_names(2))
    objects = _short(parts)
    table: dict[str, Any] = {}
    for owner in sorted(parts, key=lambda name: fold(objects[name])):
        name, below = objects[owner], _short(parts[owner])
        draft.add("coarse", name)
        if not below:
            draft.add("fine", name, name)
            table[glob.escape(owner)] = name
            continue
        fine = {part: f"{name}'s {short}" for part, short in sorted(below.items(), key=lambda pair: fold(pair[1]))}
        for part_name in fine.values():
            draft.add("fine", part_name, name)
        table[glob.escape(owner)] = {glob.escape(part): part_name for part, part_name in fine.items()}
    draft.sources["ade20k"] = {"uncovered": "object-only", "map": table}
    return draft


def _short(names: Collection[str]) -> dict[str, str]:
    """Each name up to its first comma, whole where two names begin alike."""
    first = {name: name.split(",")[0].strip() for name in names}
    count = Counter(fold(short) for short in first.values())
    return {name: short if count[fold(short)] == 1 and short else name for name, short in first.items()}


def _pairs(path: Path) -> Iterator[tuple[str, str | None]]:
    """(object, part) for each part of one image, and (object, None) for each object."""
    entries = _entries(path)
    try:
        by_id = {entry["id"]: entry for entry in entries}
        for entry in entries:
            owner = entry
            for _ in entries:  # a ring of parts has no object
                above = owner["parts"]["ispartof"]
                above = above[0] if isinstance(above, list) and above else above
                if above == []:
                    break
                owner = by_id[above]
            else:
                raise ValueError(f"the part {entry['id']} is a part of itself")
            yield owner["name"], None if owner is entry else entry["name"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"is not an ADE20K annotation ({error!r})", "use the original file") from None


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the file") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # a few of the published files
    found = parse_json(text, path)
    try:
        entries = found["annotation"]["object"]
    except (KeyError, TypeError):
        raise DataError(path, "is not an ADE20K annotation (annotation.object)", "use the original file") from None
    return entries if isinstance(entries, list) else [entries]


ade20k = Builder(_ade20k, "the folder of ADE20K's full release (or one of its JSON files)")
