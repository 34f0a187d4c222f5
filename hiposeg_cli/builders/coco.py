"""Taxonomies from the categories of a COCO JSON, grouped by their supercategories."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from hiposeg_cli.builders.base import Builder, BuildOptions, Draft, known
from hiposeg_cli.builders.tables import color_of
from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.coco_json import Scan
from hiposeg_cli.hierarchy import fold
from hiposeg_cli.taxonomy.document import as_document


def _coco(path: Path, options: BuildOptions) -> Draft:
    """Categories in file order below their supercategories; `isthing` and `color` are kept where the file has them."""
    categories: list[Any] = []
    kinds: set[str] = set()

    def see(annotation: Any, start: int, end: int) -> None:
        panoptic = isinstance(annotation, dict) and "segments_info" in annotation
        kinds.add("coco-panoptic" if panoptic else "coco")

    take = {"categories": lambda entry, start, end: categories.append(entry), "annotations": see, "images": _nothing}
    if "categories" not in Scan(path).lists(take) or not categories:
        raise DataError(path, "lists no categories", "is this an instances or panoptic JSON?")
    draft = Draft(path, ["fine", "coarse"])
    loose = []
    for position, category in enumerate(categories):
        name = category.get("name") if isinstance(category, dict) else None
        if not isinstance(name, str):
            raise DataError(path, f"categories[{position}] has no name", "repair the exporter")
        group = category.get("supercategory") or (name if _is_background(name) else options.supercategory)
        if not isinstance(group, str):
            loose.append(name)
            continue
        draft.add("coarse", group)
        kind = {0: "stuff", 1: "thing"}.get(category.get("isthing", -1))
        color = category.get("color")
        draft.add("fine", name, group, kind=kind, color=color_of(color, path) if isinstance(color, str) else color)
    if loose:
        what = f"{len(loose)} categories have no supercategory ({known(loose)})"
        raise DataError(path, what, "pass --supercategory NAME for them, or add it to the file")
    _agree_on_kind(draft)
    names = {glob.escape(category["name"]): category["name"] for category in categories}
    draft.sources[kinds.pop() if len(kinds) == 1 else "coco"] = {"map": names}
    return draft


def _nothing(entry: Any, start: int, end: int) -> None:
    """Images say nothing about categories."""


def _is_background(name: str) -> bool:
    return fold(name) in ("background", "_background_")


def _agree_on_kind(draft: Draft) -> None:
    """A supercategory is a thing or stuff where all its categories are."""
    for group in draft.classes["coarse"]:
        kinds = {item.get("kind") for item in draft.classes["fine"] if item["parent"] == group["name"]}
        if len(kinds) == 1 and None not in kinds:
            group["kind"] = as_document(kinds.pop())


coco = Builder(_coco, "a COCO instances or panoptic JSON", frozenset({"supercategory"}))
