"""`--save polygons`: outlines of the classes along the pixel borders, a JSON for every photo.

    {"schema": "hiposeg/polygons@1", "file_name": "a.jpg", "size": [width, height],
     "classes": [{"level": "fine", "id": 3, "name": "body",
                  "polygons": [{"outer": [[x, y], ...], "holes": [[[x, y], ...], ...]}]}]}

Points are corners of pixels: pixel (x, y), counted from 0 at the top left, covers the square from (x, y) to (x + 1, y + 1).
A line is closed without its first point at the end; outlines run clockwise on the screen, holes the other way round. All
lines are upright or level, so filling them gives the very pixels back. A polygon is one region of pixels that share a
side. Void pixels are in none; classes that do not occur are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hiposeg_cli.exports.contours import Points, Region, regions_of
from hiposeg_cli.hierarchy import Level
from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.infer.savers.boxes import class_boxes
from hiposeg_cli.infer.savers.photo import photo_name
from hiposeg_cli.labelmap import LabelArray, write_bytes_atomic

SCHEMA = "hiposeg/polygons@1"


class Polygons(Saver):
    """OUT/polygons/PHOTO.json, every level in it; see the module's head."""

    name = "polygons"
    suffix = ".json"

    def save(self, prediction: Prediction, path: Path) -> None:
        height, width = prediction.maps[0].shape
        levels = zip(prediction.hierarchy.levels, prediction.maps, strict=True)
        classes = [entry for level, labels in levels for entry in _classes(level, labels)]
        head = {"schema": SCHEMA, "file_name": photo_name(prediction.source), "size": [width, height]}
        write_bytes_atomic(path, (json.dumps(head | {"classes": classes}, ensure_ascii=False) + "\n").encode())


def regions_by_class(labels: LabelArray) -> Iterator[tuple[int, Region]]:
    """(class id, region) of a label map, classes in order, a class's regions in the order of their first pixels."""
    for class_id, box in class_boxes(labels).items():
        corner = np.array([box[1].start, box[0].start])
        for region in regions_of(labels[box] == class_id):
            yield class_id, Region(region.outline + corner, tuple(hole + corner for hole in region.holes))


def _classes(level: Level, labels: LabelArray) -> list[dict[str, Any]]:
    polygons: dict[int, list[dict[str, Any]]] = {}
    for class_id, region in regions_by_class(labels):
        holes = [_pairs(hole) for hole in region.holes]
        polygons.setdefault(class_id, []).append({"outer": _pairs(region.outline), "holes": holes})
    return [
        {"level": level.name, "id": class_id, "name": level.nodes[class_id].name, "polygons": found}
        for class_id, found in polygons.items()
    ]


def _pairs(line: Points) -> list[list[int]]:
    pairs: list[list[int]] = line.tolist()
    return pairs
