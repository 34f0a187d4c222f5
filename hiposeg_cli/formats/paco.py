"""PACO: objects and their parts in one LVIS-style JSON, each part linked to its object by `obj_ann_id`.

Published ids are category ids. A part is painted on its own object only, so a part can neither reach into another object nor
survive below one; object pixels outside all parts keep the object. The annotations are not exhaustive: unlabelled is not
background.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hiposeg_cli.formats.base import RawItem, RawLabel
from hiposeg_cli.formats.coco import Coco
from hiposeg_cli.formats.paint import Canvas, Runs, encode_segmentation


@dataclass(frozen=True)
class _Part:
    id: int
    category_id: int
    runs: Runs
    object_id: Any


@dataclass(frozen=True)
class _Object:
    id: int
    category_id: int
    runs: Runs
    parts: list[_Part] = field(default_factory=list)


class Paco(Coco):
    """SRC/annotations/paco_lvis_v1_*.json (or in SRC) with COCO's train2017 and val2017 in SRC or in --images."""

    name = "paco"
    default_hierarchy = "paco-458-75"
    overlap_rule = (
        "objects by descending area, the smaller on top, ties by id; the parts of an object likewise, cut off at its mask"
    )
    prefix: ClassVar[str] = "paco_lvis_v1_"
    json_kind: ClassVar[str] = "a PACO JSON"

    def _split(self, path: Path) -> str:
        stem = path.stem
        return stem.removeprefix(self.prefix) if stem.startswith(self.prefix) else super()._split(path)

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        notes: list[str] = []
        objects = sorted(self._objects(item, size, notes), key=_painting_order)
        canvas, owners = Canvas(size, unlabelled=self._unlabelled), Canvas(size, unlabelled=-1)
        instances = np.zeros(size, dtype=np.uint16) if self.options.instances else None
        part_overlap_px = outside_px = 0
        for number, entry in enumerate(objects, start=1):
            mask, layer = entry.runs.image(size), Canvas(size, unlabelled=entry.category_id)
            for part in sorted(entry.parts, key=_painting_order):
                claimed = part.runs.image(size)
                outside_px += int(np.count_nonzero(claimed & ~mask))
                layer.paint(claimed & mask, part.category_id)
            part_overlap_px += int(np.count_nonzero(layer.contested))
            owners.paint(mask, entry.category_id)
            canvas.ids[mask] = layer.ids[mask]
            if instances is not None:
                instances[mask] = number
        if outside_px:
            notes.append(f"{outside_px} px of parts lie outside their objects; cut off")
        uncovered_px = int(np.count_nonzero(canvas.ids == owners.ids))
        overlap_px = int(np.count_nonzero(owners.contested))
        return RawLabel(canvas.ids, len(objects), overlap_px, part_overlap_px, uncovered_px, tuple(notes), instances)

    def _objects(self, item: RawItem, size: tuple[int, int], notes: list[str]) -> list[_Object]:
        """The objects of one image with their parts; what cannot be used is left out with a note."""
        objects: dict[int, _Object] = {}
        parts: list[_Part] = []
        for annotation in self.annotations(item):
            where, category_id = f"annotation {annotation['id']}", annotation["category_id"]
            try:
                runs = encode_segmentation(annotation.get("segmentation"), *size, notes, where)
                if not runs.area:
                    raise ValueError("covers no pixel; skipped")
            except ValueError as error:
                notes.append(f"{where}: {error}")
                continue
            if ":" in self._categories[category_id]:
                parts.append(_Part(annotation["id"], category_id, runs, annotation.get("obj_ann_id")))
            else:
                objects[annotation["id"]] = _Object(annotation["id"], category_id, runs)
        for part in parts:
            name = self._categories[part.category_id]
            owner = objects.get(part.object_id) if isinstance(part.object_id, int) else None
            if owner is None:
                notes.append(f"annotation {part.id} ({name}): its object {part.object_id!r} is not annotated; skipped")
            elif (kind := self._categories[owner.category_id]) != name.partition(":")[0]:
                notes.append(f"annotation {part.id} ({name}): its object {owner.id} is a {kind}; skipped")
            else:
                owner.parts.append(part)
        return list(objects.values())


def _painting_order(entry: _Object | _Part) -> tuple[int, int]:
    return -entry.runs.area, entry.id
