"""COCO panoptic: an RGB PNG of segment ids per image, and a JSON that says what each segment is.

An id is R + 256 G + 65536 B; 0 is void, which is ignore. A pixel whose id the JSON does not list is an error. A segment with
no pixel, or with more or fewer than its `area` says, is a warning: what its pixels are is certain all the same. Crowds keep
their category, as in panopticapi's panoptic2semantic_segmentation.py. Published ids are category ids.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel
from hiposeg_cli.formats.coco import Coco
from hiposeg_cli.formats.coco_json import CocoJson
from hiposeg_cli.formats.files import safe_key, walk
from hiposeg_cli.image_file import read_rgb_png
from hiposeg_cli.lookup import Target

_MAX_ID = (1 << 24) - 1


class PanopticJson(CocoJson):
    """An indexed panoptic JSON; `pngs` is image id -> file name of its PNG."""

    def __init__(self, path: Path, what: str) -> None:
        self.pngs: dict[int, str] = {}
        super().__init__(path, what, per_image=True)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "pngs"}

    def _take_annotation(self, entry: dict[str, Any], start: int, end: int) -> None:
        super()._take_annotation(entry, start, end)
        image_id, name = entry["image_id"], entry.get("file_name")
        if not isinstance(name, str):
            raise DataError(self.path, f"the annotation of image {image_id} has no file_name", "repair the exporter")
        if image_id in self.pngs:
            raise DataError(self.path, f"image {image_id} has two annotations", "keep one")
        self.pngs[image_id] = name


@dataclass(frozen=True)
class SegmentInfo:
    """One entry of `segments_info`; `area` is None where the file states none."""

    id: int
    category_id: int
    is_crowd: bool
    area: Any


class CocoPanoptic(Coco):
    """SRC/annotations/panoptic_*2017.json with panoptic_*2017/*.png beside it (or in SRC), images as for coco."""

    name = "coco-panoptic"
    default_hierarchy = "coco-panoptic-133-27"
    honours = frozenset({"images", "instances"})
    overlap_rule = "none: one segment per pixel; crowds keep their category and get no object number"
    not_sent = Coco.not_sent | {"_png_names"}
    prefix: ClassVar[str] = "panoptic_"
    json_kind: ClassVar[str] = "a panoptic JSON"

    def targets(self) -> dict[int, Target]:
        return super().targets() | {self._unlabelled: (None, None)}

    def open_json(self, path: Path) -> CocoJson:
        return PanopticJson(path, self.json_kind)

    @cached_property
    def _png_dirs(self) -> dict[str, Path]:
        """JSON file name -> folder of its PNGs."""
        found = {}
        for path in self._files:
            folders = [folder for folder in (path.with_suffix(""), self.root / path.stem) if folder.is_dir()]
            if not folders:
                raise DataError(path, f"the folder of its id PNGs, {path.stem}/, is missing", f"extract {path.stem}.zip")
            found[path.name] = folders[0]
        return found

    @cached_property
    def _png_names(self) -> dict[Path, frozenset[str]]:
        """Folder -> relative names of the PNGs below it, each folder listed once."""
        return {
            folder: frozenset(path.relative_to(folder).as_posix() for path in walk(folder, (".png",), root=self.link_root))
            for folder in self._png_dirs.values()
        }

    def items(self) -> list[RawItem]:
        items = []
        for item in super().items():
            with self.each_image():
                items.append(self._with_png(item))
        return items

    def _with_png(self, item: RawItem) -> RawItem:
        """The same item, found by its PNG."""
        name, _, image_id = item.source.rpartition(":")
        table, folder = self._tables[name], self._png_dirs[name]
        assert isinstance(table, PanopticJson)
        png = table.pngs.get(int(image_id))
        if png is None:
            raise DataError(table.path, f"image {image_id} has no annotation", "use the JSON of the photos' split")
        safe_key(png, table.path)
        if png not in self._png_names[folder]:
            raise DataError(folder / png, "no such file, but the JSON names it", f"extract {folder.name}.zip again")
        return replace(item, source=(folder / png).relative_to(self.root).as_posix())

    def _table_of(self, item: RawItem) -> CocoJson:
        path = self.root / item.source
        return next(self._tables[name] for name, folder in self._png_dirs.items() if path.is_relative_to(folder))

    def raw_files(self, item: RawItem) -> list[Path]:
        return [item.image_path, self.root / item.source]  # the JSON is watched by its index

    def annotations(self, item: RawItem) -> list[dict[str, Any]]:
        assert item.spans is not None
        return self._table_of(item).read(item.spans)

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path = self.root / item.source
        table = self._table_of(item)
        (record,) = self.annotations(item)
        segments = listed_segments(record, table.path, table.categories)
        position = segment_positions(path, segments)
        counts = np.bincount(position.ravel(), minlength=len(segments) + 1).tolist()
        notes = [_area_note(*pair, self._categories) for pair in zip(segments, counts[1:], strict=True)]
        categories = np.array([self._unlabelled, *(segment.category_id for segment in segments)], dtype=np.int32)
        things = [table.categories[segment.category_id].isthing for segment in segments]
        objects = [is_thing and not segment.is_crowd for is_thing, segment in zip(things, segments, strict=True)]
        numbers = np.concatenate([[0], np.cumsum(objects) * objects]).astype(np.uint16)
        instances = numbers[position] if self.options.instances else None
        warnings = tuple(note for note in notes if note)
        return RawLabel(categories[position], sum(things), warnings=warnings, instances=instances)


def listed_segments(record: dict[str, Any], path: Path, known: Container[int]) -> list[SegmentInfo]:
    """The segments of one annotation record of a JSON, by rising id.

    Args:
        known: the category ids there are.
    Raises: DataError naming the record for one that cannot be used.
    """
    listed = record.get("segments_info")
    where = f"the annotation of image {record.get('image_id', record.get('file_name'))}"
    if not isinstance(listed, list):
        raise DataError(path, f"{where} has no list segments_info", "is this a panoptic JSON?")
    found: dict[int, SegmentInfo] = {}
    for entry in listed:
        entry = entry if isinstance(entry, dict) else {}
        segment_id, category_id = entry.get("id"), entry.get("category_id")
        if type(segment_id) is not int or not 0 < segment_id <= _MAX_ID:
            raise DataError(path, f"{where} has a segment of id {segment_id!r}", f"ids are 1..{_MAX_ID}")
        if segment_id in found:
            raise DataError(path, f"{where} has the segment {segment_id} twice", "keep one")
        if type(category_id) is not int or category_id not in known:
            raise DataError(path, f"{where}, segment {segment_id}, has unknown category_id {category_id!r}", "repair it")
        found[segment_id] = SegmentInfo(segment_id, category_id, bool(entry.get("iscrowd")), entry.get("area"))
    return [found[segment_id] for segment_id in sorted(found)]


def segment_positions(path: Path, segments: Sequence[SegmentInfo]) -> NDArray[np.intp]:
    """(H, W) position of each pixel's segment in an id PNG, from 1 in the order given (by rising id); 0 for void.

    Raises: DataError for a file that cannot be read, and for ids that are not listed.
    """
    pixels = read_rgb_png(path).astype(np.int32)  # 8-bit arithmetic would overflow
    ids: NDArray[np.signedinteger] = pixels[..., 0] | pixels[..., 1] << 8 | pixels[..., 2] << 16
    known = np.array([0, *(segment.id for segment in segments)], dtype=np.int32)
    position: NDArray[np.intp] = np.searchsorted(known, ids).clip(max=len(segments))
    strange = ids[known[position] != ids]
    if strange.size:
        values, counts = np.unique(strange, return_counts=True)
        shown = ", ".join(f"{value} ({count} px)" for value, count in list(zip(values, counts, strict=True))[:5])
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        raise DataError(
            path, f"segment ids that segments_info does not list: {shown}{more}", "use PNG and JSON of one release"
        )
    return position


def _area_note(segment: SegmentInfo, pixels: int, names: dict[int, str]) -> str:
    """What is odd about the size of a segment, or nothing."""
    what = f"segment {segment.id} ({names[segment.category_id]})"
    if not pixels:
        return f"{what} has no pixel"
    if segment.area is not None and segment.area != pixels:
        return f"{what} covers {pixels} px, its area says {segment.area}"
    return ""
