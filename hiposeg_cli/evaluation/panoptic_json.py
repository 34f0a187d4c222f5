"""Predictions in COCO's panoptic form: X.json lists the segments of the id PNGs in X/, as panopticapi reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.evaluation.predictions import FolderPredictions, Predicted, with_void
from hiposeg_cli.evaluation.truth import Truth, TruthImage
from hiposeg_cli.formats.coco_panoptic import SegmentInfo, listed_segments, segment_positions
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import ignore_value
from hiposeg_cli.lookup import LookUp, Target
from hiposeg_cli.raw_names import match_name
from hiposeg_cli.remarks import collected
from hiposeg_cli.strict_json import load_json

_VOID = ignore_value(np.uint16)  # stands for the category of void pixels: void in every look-up of predictions
_CATEGORY_IDS = range(_VOID)
_SOURCE = "coco-panoptic"


class PanopticPredictions(FolderPredictions):
    """The id PNGs of a panoptic JSON, paired with the images of a truth; every segment is an object of its own.

    Args:
        path: the JSON, of which `annotations` is read, and `categories` where it has them.
        lookup: from category ids to the hierarchy; None goes by the names of the categories or, in a JSON without these,
            takes ids as class id + 1, as `hiposeg predict --save panoptic` and `hiposeg export --as coco-panoptic` do.
    Raises: DataError when the JSON or its folder cannot be read, or its categories are no classes of the finest level.
    """

    def __init__(self, path: Path, truth: Truth, *, suffix: str = "", lookup: LookUp | None = None) -> None:
        content, folder = load_json(path), path.with_suffix("")
        self.segments = _segments(content, path)
        if not any(folder.rglob("*.png")):
            raise DataError(path, f"the folder of its id PNGs, {folder.name}/, holds none", "put the PNGs there")
        targets = _targets(content.get("categories"), truth.hierarchy, path) if lookup is None else {}
        super().__init__(folder, truth, suffix=suffix, lookup=lookup or with_void(targets, truth.hierarchy, path))
        self.name = path

    def read(self, image: TruthImage, files: Mapping[str, Path], truth: Truth) -> Predicted:
        (level, path), *_ = files.items()
        name = path.relative_to(self.name.with_suffix("")).as_posix()
        if name not in self.segments:
            raise DataError(path, f"is in no annotation of {self.name.name}", "use PNGs and JSON of one prediction")
        segments = self.segments[name]
        with truth.allowed(image), collected() as remarks:
            numbers = segment_positions(path, segments)
        categories = np.array([_VOID, *(segment.category_id for segment in segments)], dtype=np.int32)
        maps = self._mapped(categories[numbers], path)
        return Predicted(maps, path, {level: str(path)}, numbers=numbers, remarks=tuple(found.what for found in remarks))


def _segments(content: Any, path: Path) -> dict[str, list[SegmentInfo]]:
    """Name of each PNG -> its segments, by rising id. Raises DataError."""
    records = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise DataError(path, "has no list annotations", "is this a panoptic JSON?")
    found: dict[str, list[SegmentInfo]] = {}
    for record in records:
        name = record.get("file_name") if isinstance(record, dict) else None
        if not isinstance(name, str):
            raise DataError(path, "has an annotation without file_name", "is this a panoptic JSON?")
        if name in found:
            raise DataError(path, f"has two annotations of {name}", "keep one")
        found[name] = listed_segments(record, path, _CATEGORY_IDS)
    return found


def _targets(listed: object, hierarchy: Hierarchy, path: Path) -> dict[int, Target]:
    """What category ids mean, by their names or without any by class id + 1. Raises DataError."""
    if listed is None:
        return {node.id + 1: (node.id, int(hierarchy.parent[node.id])) for node in hierarchy.fine.nodes}
    targets: dict[int, Target] = {}
    for entry in listed if isinstance(listed, list) else [listed]:
        number, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if type(number) is not int or not isinstance(name, str):
            raise DataError(path, "has a category without id and name", "repair it, or leave `categories` out")
        if number not in _CATEGORY_IDS:
            raise DataError(path, f"category id {number} is not 0..{_CATEGORY_IDS[-1]}", "renumber the categories")
        fine_id = _class_named(name, hierarchy, path)
        if fine_id is None:
            what = f"category {number} is {name!r}, no class of the level {hierarchy.fine.name}"
            raise DataError(path, what, "name the predictions of that level, or pass --pred-ids for official ids")
        targets[number] = fine_id, int(hierarchy.parent[fine_id])
    return targets


def _class_named(name: str, hierarchy: Hierarchy, path: Path) -> int | None:
    """The fine class that a category is, as the taxonomy's table of COCO panoptic has it, or by its own name."""
    table = hierarchy.sources.get(_SOURCE)
    target = match_name(table.map, name, path) if table is not None else None
    return hierarchy.fine.find(target if isinstance(target, str) else name)
