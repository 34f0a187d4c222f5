"""Predictions in COCO's panoptic form: X.json lists the segments of the id PNGs in X/, as panopticapi reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.evaluation.predictions import FolderPredictions, Predicted
from hiposeg_cli.evaluation.truth import Truth, TruthImage
from hiposeg_cli.formats.coco_panoptic import SegmentInfo, listed_segments, segment_positions
from hiposeg_cli.labelmap import ignore_value
from hiposeg_cli.lookup import LookUp
from hiposeg_cli.remarks import collected
from hiposeg_cli.strict_json import load_json

_VOID = ignore_value(np.uint16)  # stands for the category of void pixels: void in every look-up of predictions


class PanopticPredictions(FolderPredictions):
    """The id PNGs of a panoptic JSON, paired with the images of a truth; every segment is an object of its own.

    Args:
        path: the JSON, of which only `annotations` is read.
        lookup: from category ids to the hierarchy; None where these are class id + 1, as written by `hiposeg predict --save
            panoptic` and `hiposeg export --as coco-panoptic`.
    Raises: DataError when the JSON or its folder cannot be read.
    """

    def __init__(self, path: Path, truth: Truth, *, suffix: str = "", lookup: LookUp | None = None) -> None:
        folder = path.with_suffix("")
        if not folder.is_dir():
            raise DataError(path, f"the folder of its id PNGs, {folder.name}/, is missing", "put the PNGs there")
        categories = {node.id + 1: (node.id, int(truth.hierarchy.parent[node.id])) for node in truth.hierarchy.fine.nodes}
        own = LookUp({_VOID: (None, None), **categories}, truth.hierarchy, path)
        super().__init__(folder, truth, suffix=suffix, lookup=lookup or own)
        self.name, self.segments = path, _segments(path)

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


def _segments(path: Path) -> dict[str, list[SegmentInfo]]:
    """Name of each PNG -> its segments, by rising id. Raises DataError."""
    content = load_json(path)
    records = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise DataError(path, "has no list annotations", "is this a panoptic JSON?")
    found: dict[str, list[SegmentInfo]] = {}
    for record in records:
        name = record.get("file_name") if isinstance(record, dict) else None
        if not isinstance(name, str) or name in found:
            raise DataError(path, f"has an annotation with the file_name {name!r}", "name each PNG once")
        found[name] = listed_segments(record, path)
    return found
