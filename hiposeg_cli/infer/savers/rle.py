"""`--save rle`: COCO results with masks as compressed run lengths, one for every class that occurs in a photo.

OUT/rle.json (finest level) and OUT/rle_LEVEL.json (above) are lists in COCO's format for stuff results, each entry
{image_id, file_name, category_id, segmentation {size, counts}}. A label map ranks nothing, so there is no `score`.
Beside each, OUT/rle.images.json is a data set without annotations that says which image and category is which:
`COCO("rle.images.json").loadRes("rle.json")` reads both. A category's id is its class id, as in the label maps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.exports.joint import level_map
from hiposeg_cli.exports.segments import segments_of
from hiposeg_cli.exports.stream import JsonStream
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.infer.prediction import Prediction
from hiposeg_cli.infer.savers.joined import Categories, JoinedSaver, Pieces, replacing
from hiposeg_cli.labelmap import LabelArray


class Rle(JoinedSaver):
    """OUT/rle/PHOTO.json, every level in it, joined into the files that the module's head describes."""

    name = "rle"
    suffix = ".json"

    def save(self, prediction: Prediction, path: Path) -> None:
        self.save_piece(prediction, path, [_entries(labels) for labels in prediction.maps])

    def categories(self, hierarchy: Hierarchy, depth: int) -> Categories:
        return [
            {"id": node.id, "name": node.name, "supercategory": node.parent or node.name, "color": list(node.color)}
            for node in hierarchy.levels[depth].nodes
        ]

    def join(self, target: Path, level: str, categories: Categories, pieces: Pieces) -> None:
        with replacing(target) as path, path.open("w", encoding="utf-8", newline="\n") as file:
            between = "["
            for result in _results(pieces, level):
                file.write(f"{between}\n{json.dumps(result, ensure_ascii=False)}")
                between = ","
            file.write("[]\n" if between == "[" else "\n]\n")
        with replacing(target.with_suffix(".images.json")) as path, JsonStream(path) as stream:
            stream.field("info", {"description": f"level {level}, written by hiposeg predict --save rle"})
            stream.array("categories", categories)
            stream.array("images", pieces.images())
            stream.field("annotations", [])


def _entries(labels: LabelArray) -> list[dict[str, Any]]:
    # 32 bits hold a class as well as the 64 that objects need, at half the memory.
    segments = segments_of(cast("NDArray[np.int64]", level_map(labels)))
    return [{"category_id": segment.value, "counts": segment.rle} for segment in segments]


def _results(pieces: Pieces, level: str) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        image = piece.image
        for entry in piece.levels[level]:
            mask = {"size": [image["height"], image["width"]], "counts": entry["counts"]}
            ids = {"image_id": image["id"], "file_name": image["file_name"], "category_id": entry["category_id"]}
            yield ids | {"segmentation": mask}
