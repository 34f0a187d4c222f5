"""Taxonomies from tables: CSV files of classes, and Cityscapes-like tables of ids, names and categories."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiposeg_cli.builders.base import Builder, BuildOptions, Draft
from hiposeg_cli.builders.text import read_text
from hiposeg_cli.errors import DataError, did_you_mean
from hiposeg_cli.strict_json import parse_json

_NOT_LEVELS = ("color", "mirror", "id", "kind", "aliases")
_CITYSCAPES = {"id", "name", "category", "trainid"}
_HEX = re.compile(r"#?([0-9a-fA-F]{6})")
_TRAIN_IDS = range(254)


@dataclass(frozen=True)
class Row:
    """One row of a table: its line and its cells by column, blanks stripped."""

    line: int
    cells: dict[str, str]


def read_csv(path: Path) -> tuple[list[str], list[Row]]:
    """The columns (lower case) and rows of a CSV file separated by commas, semicolons or tabs. Raises DataError."""
    lines = read_text(path).splitlines(keepends=True)
    separator = max(",;\t", key=(lines[0] if lines else "").count)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        columns = [cell.strip().casefold() for cell in next(reader, [])]
        if not any(columns) or len(set(columns)) < len(columns):
            raise DataError(f"{path}:1", f"the columns are {columns}", "name each column once in the first line")
        rows = []
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if len(values) > len(columns):
                found = f"has {len(values)} cells for {len(columns)} columns"
                raise DataError(f"{path}:{reader.line_num}", found, f"put a cell that holds {separator!r} in quotes")
            rows.append(Row(reader.line_num, dict(zip(columns, values, strict=False))))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}", f"is no CSV ({error})", "repair the line") from None
    return columns, rows


def color_of(text: str, where: object) -> list[int]:
    """`#rrggbb`, or three numbers. Raises DataError."""
    if match := _HEX.fullmatch(text):
        return [int(match[1][i : i + 2], 16) for i in (0, 2, 4)]
    parts = [int(part) for part in re.findall(r"\d{1,3}", text)]
    if len(parts) != 3 or max(parts) > 255 or re.search(r"[^\d\s,;()\[\]]", text):
        raise DataError(where, f"color {text!r} is neither #rrggbb nor three numbers 0..255", "rewrite it")
    return parts


def _number(text: str, column: str, where: object) -> int:
    if not re.fullmatch(r"-?\d{1,6}", text):
        raise DataError(where, f"{column} {text!r} is no whole number", "correct it")
    return int(text)


def _csv(path: Path, options: BuildOptions) -> Draft:
    """A class a row: `fine`, `coarse`, further levels, and what else is known of the fine class.

    A row without `fine` is a coarse class without parts. `id` is the value in label PNGs: classes are numbered in its
    order, and a `masks` table is made of it.
    """
    columns, rows = read_csv(path)
    levels = [column for column in columns if column not in _NOT_LEVELS]
    if levels[:2] != ["fine", "coarse"]:
        raise DataError(f"{path}:1", f"the columns are {columns}", "begin with the columns fine,coarse")
    if not rows:
        raise DataError(path, "lists no classes", "write one row a class")
    draft = Draft(path, levels)
    if "id" in columns:
        rows = _by_id(rows, path)
        found = {int(row.cells["id"]): row.cells["fine"] or row.cells["coarse"] for row in rows}
        draft.sources["masks"] = {"map": found, "ignore": [] if 255 in found else [255]}
    lines: dict[str, int] = {}
    for row in rows:
        where = f"{path}:{row.line}"
        names = [row.cells.get(level, "") for level in levels]
        if not all(names[1:]):
            raise DataError(where, f"{names[0]!r} has no {levels[names.index('', 1)]}", "fill the cell")
        if names[0] in lines:
            raise DataError(where, f"{names[0]!r} is there twice, first on line {lines[names[0]]}", "rename one")
        for number in range(len(levels) - 1, 0, -1):
            draft.add(levels[number], names[number], *names[number + 1 : number + 2], line=row.line)
        keys = _keys(row, where)
        if names[0]:
            lines[names[0]] = row.line
            draft.add("fine", names[0], names[1], line=row.line, **keys)
    return draft


def _by_id(rows: list[Row], path: Path) -> list[Row]:
    """The rows in the order of their ids, which must differ."""
    found: dict[int, Row] = {}
    for row in rows:
        raw_id = _number(row.cells.get("id", ""), "id", f"{path}:{row.line}")
        if raw_id in found:
            raise DataError(f"{path}:{row.line}", f"the id {raw_id} is that of line {found[raw_id].line} too", "change one")
        found[raw_id] = row
    return [found[raw_id] for raw_id in sorted(found)]


def _keys(row: Row, where: str) -> dict[str, Any]:
    cells = {column: row.cells[column] for column in _NOT_LEVELS if row.cells.get(column)}
    return {
        "color": color_of(cells["color"], where) if "color" in cells else None,
        "mirror": cells.get("mirror"),
        "kind": cells.get("kind"),
        "aliases": [part.strip() for part in cells["aliases"].split("|")] if "aliases" in cells else None,
    }


def _cityscapes(path: Path, options: BuildOptions) -> Draft:
    """A label a row: raw id, name, category and train id; rows without a train id are ignored on purpose.

    Labels that share a train id become one class, named after the first of them.
    """
    rows = list(_label_rows(path))
    by_train_id: dict[int, list[tuple[int, Row]]] = {}
    ignored = []
    for row in rows:
        where = f"{path}:{row.line}" if row.line else path
        raw_id, train_id = (_number(row.cells[column], column, where) for column in ("id", "trainid"))
        if train_id in _TRAIN_IDS:
            by_train_id.setdefault(train_id, []).append((raw_id, row))
        else:
            ignored.append(raw_id)
    if sorted(by_train_id) != list(range(len(by_train_id))) or not by_train_id:
        raise DataError(
            path, f"the train ids are {sorted(by_train_id)}", "number the classes 0, 1, 2, ... and ignore with 255"
        )
    draft = Draft(path, ["fine", "coarse"])
    found: dict[int, str] = {}
    for train_id in sorted(by_train_id):
        first = by_train_id[train_id][0][1]
        for raw_id, row in by_train_id[train_id]:
            where = f"{path}:{row.line}" if row.line else path
            if row.cells["category"] != first.cells["category"]:
                what = f"{row.cells['name']!r} shares train id {train_id} with {first.cells['name']!r} of another category"
                raise DataError(where, what, "give them one category")
            if raw_id in found or raw_id in ignored:
                raise DataError(where, f"the id {raw_id} is there twice", "keep one")
            found[raw_id] = first.cells["name"]
        draft.add("coarse", first.cells["category"], line=first.line)
        color = color_of(first.cells["color"], path) if first.cells.get("color") else None
        draft.add("fine", first.cells["name"], first.cells["category"], line=first.line, color=color)
    draft.sources["cityscapes"] = {"map": found, "ignore": ignored}
    return draft


def _label_rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file, or of a JSON list of objects."""
    if path.suffix.lower() == ".py":
        raise DataError(path, "is a program, which is never run", "save its table as CSV or JSON: id,name,category,trainId")
    text = read_text(path)
    rows: list[Row]
    if text.lstrip()[:1] in ("[", "{"):
        data = parse_json(text, path)
        entries = data.get("labels") if isinstance(data, dict) else data
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(path, "is no list of labels", "write [{id, name, category, trainId}, ...]")
        rows = [Row(0, {str(key).casefold(): _cell(value) for key, value in entry.items()}) for entry in entries]
    else:
        rows = read_csv(path)[1]
    for row in rows:
        missing = sorted(column for column in _CITYSCAPES if not row.cells.get(column))
        if missing:
            where = f"{path}:{row.line}" if row.line else path
            raise DataError(where, f"a label has no {missing[0]}", did_you_mean(missing[0], row.cells))
        yield row


def _cell(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


table = Builder(_csv, "a CSV file with the columns fine,coarse[,more levels][,id,color,mirror,kind,aliases]")
cityscapes = Builder(_cityscapes, "a CSV or JSON table of labels: id,name,category,trainId[,color]")
