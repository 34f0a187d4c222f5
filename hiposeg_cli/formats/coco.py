"""COCO instances JSON: polygons, crowds and both kinds of RLE, drawn by pycocotools, the reference rasteriser.

Published ids are category ids. Overlap rule: annotations are painted by descending mask area (small on top), ties by
annotation id; crowd regions are ignore where nothing else is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.coco_json import CocoJson, ImageRecord
from hiposeg_cli.formats.files import IMAGE_SUFFIXES, require_inside, safe_key, walk
from hiposeg_cli.formats.paint import Region, encode_segmentation, paint_regions
from hiposeg_cli.formats.targets import named_targets
from hiposeg_cli.lookup import MAX_RAW_ID, Target

_MAX_CATEGORY_ID = MAX_RAW_ID - 2  # two more ids stand for unlabelled pixels and crowds
_SPLITS = ("train", "val", "valid", "validation", "test")


class Coco(Reader):
    """SRC/annotations/instances_*.json (or one JSON in SRC) with images in the folders the JSON implies."""

    needs = ("pycocotools",)
    name = "coco"
    default_hierarchy = "coco-80-12"
    honours = frozenset({"images", "unlabelled", "instances"})
    named = True
    lists_objects = True
    overlap_rule: str = (
        "annotations by descending area, the smaller on top, ties by id; crowds are ignore where nothing is drawn"
    )
    not_sent = frozenset({"_listing"})
    prefix: ClassVar[str] = "instances_"
    json_kind: ClassVar[str] = "an instances JSON"

    def targets(self) -> dict[int, Target]:
        unlabelled = self.background_target(self.options.unlabelled or self.table.unlabelled)
        return {
            self._unlabelled: unlabelled,
            self._crowd: (None, None),
            **named_targets(
                self._categories, self.table, self.hierarchy, self._files[0], kind="category",
                ignore_unknown=self.ignore_unknown,
            ),
        }  # fmt: skip

    @cached_property
    def _files(self) -> list[Path]:
        folder = self.root / "annotations"
        wanted = f"{self.prefix}*.json"
        found = sorted(folder.glob(wanted)) or sorted(folder.glob("*.json")) or sorted(self.root.glob("*.json"))
        if not found:
            raise DataError(self.root, f"no annotation JSON found (annotations/{wanted})", "check the folder")
        return found

    @cached_property
    def _tables(self) -> dict[str, CocoJson]:
        """File name -> its index."""
        for path in self._files:
            require_inside(path, self.link_root)
        return {path.name: self.open_json(path) for path in self._files}

    def open_json(self, path: Path) -> CocoJson:
        """Index and cross-check one JSON."""
        return CocoJson(path, self.json_kind)

    def _split(self, path: Path) -> str:
        """`train` for instances_train2017.json and train.json; `train` too for the one JSON of a folder without splits."""
        split = re.sub(r"\d{4}$", "", path.stem.removeprefix(self.prefix)) or "train"
        alone = len(self._files) == 1 and path.parent == self.root
        return "train" if alone and split not in _SPLITS else split

    def labels_from(self) -> object:
        return self._files[0]

    @cached_property
    def _categories(self) -> dict[int, str]:
        categories: dict[int, str] = {}
        for table in self._tables.values():
            for category in table.categories.values():
                if not 0 <= category.id <= _MAX_CATEGORY_ID:
                    raise DataError(
                        table.path, f"category id {category.id} is not 0..{_MAX_CATEGORY_ID}", "renumber the categories"
                    )
                if categories.setdefault(category.id, category.name) != category.name:
                    raise DataError(
                        table.path, f"category {category.id} has another name than in {self._files[0]}", "use one"
                    )
        return categories

    @property
    def _unlabelled(self) -> int:
        return max(self._categories) + 1

    @property
    def _crowd(self) -> int:
        return max(self._categories) + 2

    def items(self) -> list[RawItem]:
        items = []
        for name, table in self._tables.items():
            photos = self._photos(table)
            for image in sorted(table.images.values(), key=lambda image: image.file_name):
                with self.each_image():
                    items.append(self._item(f"{name}:{image.id}", table, image, photos))
        return items

    def _item(self, source: str, table: CocoJson, image: ImageRecord, photos: Mapping[str, Path]) -> RawItem:
        safe_key(image.file_name, table.path)  # refuses names that leave the folder
        if image.file_name not in photos:
            cure = "add it, or pass --images FOLDER"
            raise DataError(table.path, f"image {image.id}, {image.file_name}, is missing", cure)
        key = safe_key(str(Path(image.file_name).with_suffix("")), table.path)
        spans = table.spans(image.id)
        return RawItem(key, self._split(table.path), photos[image.file_name], source, spans, recorded=image.size)

    @cached_property
    def _listing(self) -> dict[Path, dict[str, Path]]:
        """Folder -> relative name -> photo, of every folder photos may be relative to; each is listed once."""
        folder = self.options.images
        if folder is not None:
            return {folder: {path.relative_to(folder).as_posix(): path for path in self._images_below(folder)}}
        listing: dict[Path, dict[str, Path]] = {}
        for path in self._images_below(self.root):
            for parent in path.relative_to(self.root).parents:
                base = self.root / parent
                listing.setdefault(base, {})[path.relative_to(base).as_posix()] = path
        return listing

    def _images_below(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            raise DataError(folder, "no such folder", "pass --images FOLDER with the photos")
        return list(walk(folder, IMAGE_SUFFIXES, root=self.photo_root))

    def _photos(self, table: CocoJson) -> dict[str, Path]:
        """File name -> photo, below the folder named like the JSON, else the only one that holds its first image."""
        if self.options.images is not None:
            return self._listing[self.options.images]
        first = next((image for image in table.images.values() if _is_safe(image.file_name)), None)
        if first is None:
            return {}  # each image is refused for its name
        holding = [folder for folder, files in self._listing.items() if first.file_name in files]
        named = [folder for folder in holding if folder.name == table.path.stem.removeprefix(self.prefix)]
        if len(named or holding) == 1:
            return self._listing[(named or holding)[0]]
        name = first.file_name
        if not holding:
            raise DataError(table.path, f"its image {name} is in none of the folders of {self.root}", "pass --images FOLDER")
        raise DataError(
            table.path, f"its image {name} is in several folders ({holding[0].name}, {holding[1].name}, ...)",
            "name a folder like the JSON (train2017 for instances_train2017.json), or pass --images FOLDER",
        )  # fmt: skip

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        notes: list[str] = []
        regions: list[Region] = []
        for annotation in self.annotations(item):
            try:
                regions.append(self._region(annotation, size, notes, len(regions) + 1))
            except ValueError as error:
                notes.append(f"annotation {annotation['id']}: {error}")
        painted = paint_regions(regions, size, unlabelled=self._unlabelled, with_instances=self.options.instances)
        return RawLabel(painted.ids, len(regions), painted.overlap_px, warnings=tuple(notes), instances=painted.instances)

    def raw_files(self, item: RawItem) -> list[Path]:
        if item.spans is None:
            return super().raw_files(item)
        return [item.image_path, self._tables[item.source.rpartition(":")[0]].path]

    def annotations(self, item: RawItem) -> list[dict[str, Any]]:
        """The annotations of one image, in file order."""
        assert item.spans is not None
        return self._tables[item.source.rpartition(":")[0]].read(item.spans)

    def _region(self, annotation: dict[str, Any], size: tuple[int, int], notes: list[str], number: int) -> Region:
        where = f"annotation {annotation['id']}"
        runs = encode_segmentation(annotation.get("segmentation"), *size, notes, where)
        if not runs.area:
            raise ValueError("covers no pixel; skipped")
        order = (-runs.area, annotation["id"])
        if annotation.get("iscrowd"):
            return Region(self._crowd, runs, order, under=True)
        return Region(annotation["category_id"], runs, order, instance=number)


def _is_safe(name: str) -> bool:
    with suppress(DataError):
        return bool(safe_key(name))
    return False
