"""`--save labelme`: the finest level as polygons that labelme 5 opens, to be corrected by hand.

labelme fills a polygon with Pillow, which counts points as pixels and paints the line itself, too. So lines go through the
outermost pixels of a region, not around them, and labelme's `shape_to_mask` gives the very pixels back. labelme knows no
holes: a line leads from the outline to each hole and back along the pixels on both sides of the way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hiposeg_cli.exports.contours import Points
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.infer.savers.photo import exif_orientation, photo_path, turned
from hiposeg_cli.infer.savers.polygons import regions_by_class
from hiposeg_cli.labelmap import write_bytes_atomic

_VERSION = "5.5.0"  # labelme warns where the first number is not its own


class Labelme(Saver):
    """OUT/labelme/PHOTO.json: a shape for every region, labelled with its class.

    `group_id` is the id of the coarse class, which `flags` names; void pixels are in no shape. `imagePath` leads from the
    JSON to the photo; the picture itself is not embedded. labelme shows a photo turned by its EXIF orientation, so the
    shapes are turned with it, unlike the label maps.
    """

    name = "labelme"
    suffix = ".json"

    def save(self, prediction: Prediction, path: Path) -> None:
        hierarchy = prediction.hierarchy
        labels = turned(prediction.maps[0], exif_orientation(prediction.source.path))
        height, width = labels.shape
        shapes = [_shape(hierarchy, fine_id, region.joined()) for fine_id, region in regions_by_class(labels)]
        data = {
            "version": _VERSION, "flags": {}, "shapes": shapes, "imagePath": photo_path(prediction.source, path.parent),
            "imageData": None, "imageHeight": height, "imageWidth": width,
        }  # fmt: skip
        write_bytes_atomic(path, (json.dumps(data, ensure_ascii=False) + "\n").encode())


def _shape(hierarchy: Hierarchy, fine_id: int, line: Points) -> dict[str, Any]:
    coarse = hierarchy.coarse.nodes[int(hierarchy.parent[fine_id])]
    return {
        "label": hierarchy.fine.nodes[fine_id].name, "points": through_pixels(line).tolist(), "group_id": coarse.id,
        "description": "", "shape_type": "polygon", "flags": {coarse.name: True}, "mask": None,
    }  # fmt: skip


def through_pixels(line: Points) -> Points:
    """Draw a closed line in, from the borders of its outermost pixels to the pixels themselves.

    Args:
        line: (N, 2) corners with the region on the right of the line, as `Region.joined` gives them.
    Returns: (M, 2) int64 pixels, M <= N; corners where the line does not turn are left out.
    """
    ahead = np.sign(np.roll(line, -1, axis=0) - line)
    behind = np.roll(ahead, 1, axis=0)
    turns = (ahead != behind).any(axis=1)
    # One of the two lines that meet is upright: going down, its pixels are one to the left. The other is level: going
    # left, its pixels are one above.
    way = (ahead + behind)[turns]
    assert way.all(), "an outline of pixels turns by right angles only"
    pixels: Points = line[turns] - np.stack([way[:, 1] > 0, way[:, 0] < 0], axis=1)
    return pixels
