"""COCO instances JSON: one annotation per class (or object) and image, masks as compressed run lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiposeg_cli.exports.base import Exporter, Results, class_of, segment_map
from hiposeg_cli.exports.coco_common import coco_head, coco_images, place_coco_photo
from hiposeg_cli.exports.joint import unique_names
from hiposeg_cli.exports.segments import Segment, segments_of
from hiposeg_cli.exports.stream import JsonStream
from hiposeg_cli.labelmap import LabelArray
from hiposeg_cli.store import Row


class CocoRle(Exporter[list[tuple[int, Segment]]]):
    """annotations/instances_SPLIT.json with categories of both levels; a fine class's supercategory is its coarse class."""

    name = "coco-rle"
    default_level = None
    image_modes = ("reference", "copy", "hardlink", "link")

    def write(self, folder: Path, results: Results[list[tuple[int, Segment]]]) -> None:
        image_id = annotation_id = 1
        for split in self.splits:
            with JsonStream(folder / "annotations" / f"instances_{split}.json") as file:
                coco_head(file, self, split)
                file.array("categories", self.categories())
                file.array("images", coco_images(self, split, image_id))
                annotations = _Annotations(results, split, image_id, annotation_id)
                file.array("annotations", annotations)
            image_id, annotation_id = image_id + len(self.dataset.split(split)), annotations.next_id

    def categories(self) -> list[dict[str, Any]]:
        """Fine classes from id 1, coarse ones after them; only those of the chosen level, under the same ids."""
        fine, coarse = self.hierarchy.fine, self.hierarchy.coarse
        names = unique_names((*fine.names, *coarse.names), coarse.name)
        listed = []
        for node in fine.nodes if self.level != "coarse" else ():
            entry = {"id": 1 + node.id, "name": names[node.id], "supercategory": node.parent, "level": fine.name}
            listed.append(entry | {"color": list(node.color)})
        for node in coarse.nodes if self.level != "fine" else ():
            name = names[len(fine) + node.id]
            entry = {"id": 1 + len(fine) + node.id, "name": name, "supercategory": node.parent or node.name}
            listed.append(entry | {"level": coarse.name, "color": list(node.color)})
        return listed

    def convert(self, row: Row, folder: Path) -> list[tuple[int, Segment]]:
        """(category id, segment) of one image, fine classes first."""
        labels = self.labels(row)
        place_coco_photo(self, row, folder)
        found = [] if self.level == "coarse" else self._segments(row, labels.fine, 1)
        return found if self.level == "fine" else found + self._segments(row, labels.coarse, 1 + self.hierarchy.n_fine)

    def _segments(self, row: Row, labels: LabelArray, first_id: int) -> list[tuple[int, Segment]]:
        segments = segments_of(segment_map(labels, self.dataset.instances(row)))
        return [(first_id + class_of(segment.value), segment) for segment in segments]


class _Annotations:
    """The annotations of a split, numbered as they are taken."""

    def __init__(self, results: Results[list[tuple[int, Segment]]], split: str, image_id: int, next_id: int) -> None:
        self.results, self.split, self.image_id, self.next_id = results, split, image_id, next_id

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for image_id, (row, found) in enumerate(self.results(self.split), start=self.image_id):
            for category_id, segment in found:
                yield {
                    "id": self.next_id, "image_id": image_id, "category_id": category_id, "iscrowd": 0,
                    "area": segment.area, "bbox": list(segment.box),
                    "segmentation": {"size": [row.height, row.width], "counts": segment.rle},
                }  # fmt: skip
                self.next_id += 1
