"""COCO panoptic: an RGB id PNG per image and a JSON of its segments, one per class or, where known, per object."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hiposeg_cli.exports.base import Exporter, Results, class_of, segment_map
from hiposeg_cli.exports.coco_common import coco_head, coco_images, place_coco_photo
from hiposeg_cli.exports.segments import Segment, segments_of
from hiposeg_cli.exports.stream import JsonStream
from hiposeg_cli.labelmap import PNG_LEVEL, ranked, write_bytes_atomic
from hiposeg_cli.store import Row


class CocoPanoptic(Exporter[list[Segment]]):
    """annotations/panoptic_SPLIT.json with annotations/panoptic_SPLIT/KEY.png; a category's supercategory is its parent."""

    name = "coco-panoptic"
    image_modes = ("reference", "copy", "hardlink", "link")

    def write(self, folder: Path, results: Results[list[Segment]]) -> None:
        image_id = 1
        for split in self.splits:
            with JsonStream(folder / "annotations" / f"panoptic_{split}.json") as file:
                coco_head(file, self, split)
                file.array("categories", self.categories())
                file.array("images", coco_images(self, split, image_id))
                file.array("annotations", _annotations(results, split, image_id))
            image_id += len(self.dataset.split(split))
        if self.level == "fine" and (lost := sum(row.coarse_only_px for row in self.rows())):
            self.warnings.append(f"{lost} pixels with a coarse class only are void here; --level coarse keeps them")

    def categories(self) -> list[dict[str, Any]]:
        """Class id + 1, because other readers take category 0 for none; `isthing` only where objects are told apart."""
        apart = any(row.inst_sha256 for row in self.rows())
        listed = []
        for node in self.classes.nodes:
            parent = self.hierarchy.coarse.nodes[int(self.hierarchy.parent[node.id])] if self.level == "fine" else node
            is_thing = apart and (node.kind or parent.kind) == "thing"
            entry = {"id": node.id + 1, "name": node.name, "supercategory": node.parent or node.name}
            listed.append(entry | {"isthing": int(is_thing), "color": list(node.color)})
        return listed

    def convert(self, row: Row, folder: Path) -> list[Segment]:
        """Write the id PNG of one image; returns its segments, whose ids are their positions from 1."""
        classes = self.class_map(self.labels(row))
        place_coco_photo(self, row, folder)
        segments = segment_map(classes, self.dataset.instances(row))
        found = list(segments_of(segments))
        assert len(found) < 1 << 24, "an RGB id holds no more"
        values, ranks = ranked(segments)
        ids = ranks if values[0] == -1 else ranks + 1
        rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "PNG", compress_level=PNG_LEVEL)
        write_bytes_atomic(folder / "annotations" / f"panoptic_{row.split}" / f"{row.key}.png", buffer.getvalue())
        return found


def _annotations(results: Results[list[Segment]], split: str, first_id: int) -> Iterator[dict[str, Any]]:
    for image_id, (row, found) in enumerate(results(split), start=first_id):
        segments = [
            {"id": number, "category_id": class_of(segment.value) + 1, "area": segment.area,
             "bbox": list(segment.box), "iscrowd": 0}
            for number, segment in enumerate(found, start=1)
        ]  # fmt: skip
        yield {"image_id": image_id, "file_name": f"{row.key}.png", "segments_info": segments}
