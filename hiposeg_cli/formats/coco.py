"""COCO instances JSON: polygons, crowds and both kinds of RLE, drawn by pycocotools, the reference rasteriser.

Published ids are category ids. Overlap rule: annotations are painted by descending mask area (small on top), ties by
annotation id; crowd regions are ignore where nothing else is drawn.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import Canvas, RawItem, RawLabel, Reader, Target, resolve_target, safe_key, unknown_name
from hiposeg_cli.labelmap import MAX_RAW_ID, check_photo

_KEYS = ("images", "annotations", "categories")


class Coco(Reader):
    """SRC/annotations/instances_*.json (or one JSON in SRC) with images in the folders the JSON implies."""

    name = "coco"
    default_hierarchy = "coco-80-12"
    honours = frozenset({"images", "unlabelled"})
    overlap_rule: str = (
        "annotations by descending area, the smaller on top, ties by id; crowds are ignore where nothing is drawn"
    )

    def targets(self) -> dict[int, Target]:
        unlabelled = self.background_target(self.options.unlabelled or self.table.unlabelled)
        targets: dict[int, Target] = {self._unlabelled: unlabelled, self._crowd: (None, None)}
        names = {str(key).casefold(): target for key, target in self.table.map.items()}
        for category_id, name in self._categories.items():
            if name.casefold() not in names:
                raise unknown_name(
                    self._files[0],
                    f"category (hierarchy {self.hierarchy.name!r}, source coco)",
                    name,
                    map(str, self.table.map),
                )
            targets[category_id] = resolve_target(names[name.casefold()], self.hierarchy)
        return targets

    @cached_property
    def _files(self) -> list[Path]:
        folder = self.root / "annotations"
        found = sorted(folder.glob("instances_*.json")) or sorted(folder.glob("*.json")) or sorted(self.root.glob("*.json"))
        if not found:
            raise DataError(self.root, "no annotation JSON found (annotations/instances_*.json)", "check the folder")
        return found

    @cached_property
    def _tables(self) -> dict[Path, dict[str, Any]]:
        """Parsed and cross-checked JSON files."""
        return {path: _load(path) for path in self._files}

    def _split(self, path: Path) -> str:
        """`train` for instances_train2017.json and train.json; `train` too for the one JSON of a folder without splits."""
        if len(self._files) == 1 and path.parent == self.root:
            return "train"
        return re.sub(r"\d{4}$", "", path.stem.removeprefix("instances_"))

    def labels_from(self) -> object:
        return self._files[0]

    @cached_property
    def _categories(self) -> dict[int, str]:
        categories: dict[int, str] = {}
        for path, table in self._tables.items():
            for category in table["categories"]:
                if not 0 <= category["id"] <= MAX_RAW_ID:
                    raise DataError(path, f"category id {category['id']} is not 0..{MAX_RAW_ID}", "renumber the categories")
                if categories.setdefault(category["id"], category["name"]) != category["name"]:
                    raise DataError(path, f"category {category['id']} has another name than in {self._files[0]}", "use one")
        return categories

    @property
    def _unlabelled(self) -> int:
        return max(self._categories) + 1

    @property
    def _crowd(self) -> int:
        return max(self._categories) + 2

    def items(self) -> list[RawItem]:
        items = []
        for path, table in self._tables.items():
            folder = self._image_dir(path, table)
            for image in sorted(table["images"], key=lambda image: str(image["file_name"])):
                photo = folder / _relative(image, path)
                if not photo.is_file():
                    raise DataError(photo, f"image {image['id']} of the JSON is missing", "add it, or pass --images FOLDER")
                key = safe_key(Path(image["file_name"]).with_suffix("").as_posix(), path)
                items.append(RawItem(key, self._split(path), photo, f"{path.name}:{image['id']}"))
        return items

    def _image_dir(self, json_path: Path, table: dict[str, Any]) -> Path:
        """The folder of a JSON's images: the one named like the JSON, else the only one that holds its first image."""
        first = _relative(table["images"][0], json_path)
        if self.options.images is not None:
            return self.options.images
        folders = [self.root, *sorted(path for path in self.root.rglob("*") if path.is_dir())]
        holding = [folder for folder in folders if (folder / first).is_file()]
        named = [folder for folder in holding if folder.name == json_path.stem.removeprefix("instances_")]
        if len(named or holding) == 1:
            return (named or holding)[0]
        if not holding:
            raise DataError(json_path, f"its image {first} is in none of the folders of {self.root}", "pass --images FOLDER")
        raise DataError(
            json_path, f"its image {first} is in several folders ({holding[0].name}, {holding[1].name}, ...)",
            "name a folder like the JSON (train2017 for instances_train2017.json), or pass --images FOLDER",
        )  # fmt: skip

    @cached_property
    def _by_image(self) -> dict[str, list[dict[str, Any]]]:
        index: dict[str, list[dict[str, Any]]] = {}
        for path, table in self._tables.items():
            for annotation in table["annotations"]:
                index.setdefault(f"{path.name}:{annotation['image_id']}", []).append(annotation)
        return index

    def read(self, item: RawItem) -> RawLabel:
        from pycocotools import mask as rle

        height, width = check_photo(item.image_path)
        self._check_recorded_size(item, height, width)
        warnings: list[str] = []
        drawn: list[tuple[int, dict[str, Any], Any]] = []
        for annotation in self._by_image.get(item.source, []):
            try:
                encoded = _encode(annotation, height, width, warnings)
            except ValueError as error:
                warnings.append(f"annotation {annotation['id']}: {error}")
                continue
            drawn.append((int(rle.area(encoded)), annotation, encoded))
        canvas = Canvas((height, width), unlabelled=self._unlabelled)
        for _, annotation, encoded in sorted(drawn, key=lambda entry: (-entry[0], entry[1]["id"])):
            if not annotation.get("iscrowd"):
                canvas.paint(rle.decode(encoded).astype(bool), annotation["category_id"])
        for _, annotation, encoded in drawn:
            if annotation.get("iscrowd"):
                free = rle.decode(encoded).astype(bool) & (canvas.ids == self._unlabelled)
                canvas.ids[free] = self._crowd
        return RawLabel(canvas.ids, len(drawn), int(canvas.contested.sum()), warnings=tuple(warnings))

    def _check_recorded_size(self, item: RawItem, height: int, width: int) -> None:
        record = self._images[item.source]
        if (record.get("height", height), record.get("width", width)) != (height, width):
            raise DataError(
                item.image_path,
                f"is {width}x{height}, the JSON says {record.get('width', '?')}x{record.get('height', '?')}",
                "use the images the annotations were made on",
            )  # fmt: skip

    @cached_property
    def _images(self) -> dict[str, dict[str, Any]]:
        return {f"{path.name}:{image['id']}": image for path, table in self._tables.items() for image in table["images"]}


def _relative(image: dict[str, Any], where: Path) -> str:
    name = str(image["file_name"])
    safe_key(name, where)  # refuses names that leave the folder
    return name


def _load(path: Path) -> Any:
    """Parse one JSON file and check its cross references. Raises DataError naming line and column."""

    def no_constant(text: str) -> NoReturn:
        raise DataError(path, f"holds the value {text}, which is not JSON", "repair the exporter")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(path, f"an object has the key {twice!r} twice", "repair the exporter")
        return entry

    try:
        text = path.read_bytes().decode("utf-8-sig")
        data = json.loads(text, parse_constant=no_constant, object_pairs_hook=no_repeats)
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}", f"is broken JSON: {error.msg}", "replace the file") from None
    except ValueError as error:
        raise DataError(path, f"is broken JSON: {error}", "replace the file") from None
    except RecursionError:
        raise DataError(path, "is nested too deeply", "is this a COCO file?") from None
    for key in _KEYS:
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DataError(path, f"lacks the list {key!r}", "is this an instances JSON?")
    for key in ("images", "categories"):
        if not data[key]:
            raise DataError(path, f"lists no {key}", "is this an instances JSON?")
    ids = {key: _unique_ids(path, key, data[key]) for key in _KEYS}
    for annotation in data["annotations"]:
        for field, key in (("image_id", "images"), ("category_id", "categories")):
            if type(annotation.get(field)) is not int or annotation[field] not in ids[key]:
                raise DataError(
                    path, f"annotation {annotation['id']} has unknown {field} {annotation.get(field)!r}", "repair it"
                )
    return data


def _unique_ids(path: Path, key: str, entries: list[Any]) -> set[int]:
    seen: set[int] = set()
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
            raise DataError(path, f"{key}[{position}] has no whole-number id", "repair the exporter")
        if entry["id"] in seen:
            raise DataError(path, f"{key} has the id {entry['id']} twice", "keep one")
        required = {"images": "file_name", "categories": "name"}.get(key)
        if required and not isinstance(entry.get(required), str):
            raise DataError(path, f"{key} entry {entry['id']} has no {required}", "repair the exporter")
        seen.add(entry["id"])
    return seen


def _encode(annotation: dict[str, Any], height: int, width: int, warnings: list[str]) -> Any:
    """One annotation as a compressed RLE. Raises ValueError, in words, for geometry that must not reach C code."""
    from pycocotools import mask as rle

    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        counts, size = segmentation.get("counts"), segmentation.get("size")
        if size != [height, width]:
            raise ValueError(f"RLE of size {size}, image of [{height}, {width}]; skipped")
        _check_counts(_uncompressed(counts) if isinstance(counts, str) else counts, height * width)
        return segmentation if isinstance(counts, str) else rle.frPyObjects(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no segmentation; skipped")
    limit = 10 * max(height, width)
    polygons = [polygon for polygon in segmentation if _usable(polygon, limit)]
    if not polygons:
        raise ValueError("no polygon of three finite points near the image; skipped")
    if len(polygons) < len(segmentation):
        dropped = len(segmentation) - len(polygons)
        warnings.append(f"annotation {annotation['id']}: {dropped} unusable polygon{'s' * (dropped > 1)} dropped")
    return rle.merge(rle.frPyObjects(polygons, height, width))


def _usable(polygon: Any, limit: int) -> bool:
    """Whether one polygon has three points or more within `limit` px (a 4-number one would be drawn as a box).

    A point far outside the image makes the rasteriser allocate without bound.
    """
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    return all(isinstance(value, int | float) and -limit <= value <= limit for value in polygon)


def _check_counts(counts: Any, total: int) -> None:
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError("RLE counts are not whole numbers >= 0; skipped")
    if sum(counts) != total:
        raise ValueError(f"RLE counts sum to {sum(counts)}, not {total}; skipped")


def _uncompressed(text: str) -> list[int]:
    """Run lengths of a compressed RLE string (the LEB128-like code of maskApi.c, rleFrString)."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[position]) - 48 if position < len(text) else -1
            if not 0 <= code < 64:
                raise ValueError("RLE string is broken; skipped")
            value |= (code & 0x1F) << 5 * shift
            more = bool(code & 0x20)
            position, shift = position + 1, shift + 1
            if not more and code & 0x10:
                value |= -1 << 5 * shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
