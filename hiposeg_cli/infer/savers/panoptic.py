"""`--save panoptic`: COCO panoptic id PNGs and the JSON of their segments, one for every class that occurs in a photo.

OUT/panoptic.json goes with OUT/panoptic/ (finest level), OUT/panoptic_LEVEL.json with OUT/panoptic_LEVEL/: panopticapi
looks for the PNGs of X.json in X/. A pixel's id is R + 256 G + 65536 B; 0 is void. Categories are those of
`hiposeg export --as coco-panoptic`, class id + 1, and a segment has the id of its category.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.exports.stream import JsonStream
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.infer.prediction import Prediction
from hiposeg_cli.infer.savers.boxes import Box, class_boxes
from hiposeg_cli.infer.savers.joined import Categories, JoinedSaver, Pieces, replacing
from hiposeg_cli.infer.savers.levels import level_paths
from hiposeg_cli.infer.savers.photo import as_text
from hiposeg_cli.labelmap import PNG_LEVEL, LabelArray, count_ids, ignore_value, write_bytes_atomic


class Panoptic(JoinedSaver):
    """OUT/panoptic/PHOTO.png, those of other levels, and OUT/panoptic/PHOTO.json for the joined files."""

    name = "panoptic"
    suffix = ".png"

    def save(self, prediction: Prediction, path: Path) -> None:
        levels = list(zip(prediction.hierarchy.levels, prediction.maps, strict=True))
        self.save_piece(prediction, path, [_segments(level, labels) for level, labels in levels])
        for (level, target), labels in zip(level_paths(prediction, path), reversed(prediction.maps), strict=True):
            buffer = io.BytesIO()
            Image.fromarray(_id_colors(level, labels)[labels]).save(buffer, "PNG", compress_level=PNG_LEVEL)
            write_bytes_atomic(target, buffer.getvalue())

    def categories(self, hierarchy: Hierarchy, depth: int) -> Categories:
        """All are stuff: no objects are told apart."""
        return [
            {"id": node.id + 1, "name": node.name, "supercategory": node.parent or node.name, "isthing": 0,
             "color": list(node.color)}
            for node in hierarchy.levels[depth].nodes
        ]  # fmt: skip

    def join(self, target: Path, level: str, categories: Categories, pieces: Pieces) -> None:
        with replacing(target) as path, JsonStream(path) as stream:
            stream.field("info", {"description": f"level {level}, written by hiposeg predict --save panoptic"})
            stream.field("licenses", [])
            stream.array("categories", categories)
            stream.array("images", pieces.images())
            stream.array("annotations", _annotations(pieces, level))


def _segments(level: Level, labels: LabelArray) -> list[dict[str, Any]]:
    areas = count_ids(labels, len(level)).tolist()
    return [
        {"id": k + 1, "category_id": k + 1, "area": areas[k], "bbox": _bbox(box), "iscrowd": 0}
        for k, box in class_boxes(labels).items()
    ]


def _bbox(box: Box) -> list[int]:
    """x, y, width, height."""
    rows, columns = box
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]


def _id_colors(level: Level, labels: LabelArray) -> NDArray[np.uint8]:
    """(values of the map's type, 3) uint8: each class id + 1 as R + 256 G, which holds every 16-bit map; 0 for void."""
    ids = np.arange(1, len(level) + 1)
    table = np.zeros((ignore_value(labels.dtype) + 1, 3), dtype=np.uint8)
    table[: len(level), 0], table[: len(level), 1] = ids & 255, ids >> 8
    return table


def _annotations(pieces: Pieces, level: str) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        file_name = as_text(f"{piece.name}.png")
        yield {"image_id": piece.image["id"], "file_name": file_name, "segments_info": piece.levels[level]}
