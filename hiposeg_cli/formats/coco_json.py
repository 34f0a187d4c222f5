"""One COCO-style JSON of any size: read once, checked, and indexed by image, so that no process holds its annotations.

The index keeps byte ranges; a worker reads the few annotations of its image from the file itself.
"""

from __future__ import annotations

import codecs
import json
import mmap
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.raw_file import disguise
from hiposeg_cli.strict_json import remark_on_mark

_SPACE = re.compile(r"[ \t\n\r]*")
_ENCODINGS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"),
              (codecs.BOM_UTF16_BE, "UTF-16"))  # fmt: skip


@dataclass(frozen=True)
class Category:
    """A category as published; `supercategory` is empty where the file names none."""

    id: int
    name: str
    supercategory: str
    isthing: bool


@dataclass(frozen=True)
class ImageRecord:
    """An image as published; `size` is (height, width), None for what the file does not say."""

    id: int
    file_name: str
    size: tuple[int | None, int | None]


class CocoJson:
    """An indexed file.

    Args:
        path: the JSON.
        what: what a user calls such a file, for messages ("an instances JSON").
        per_image: annotations are one record an image without ids of their own (panoptic), not one an object.
    Raises: DataError naming line and column, the record, and what is wrong with it.
    """

    def __init__(self, path: Path, what: str = "an instances JSON", *, per_image: bool = False) -> None:
        self.path, self._what, self._per_image = path, what, per_image
        scan = Scan(path)
        self._stat = path.stat().st_size, path.stat().st_mtime_ns
        self.images: dict[int, ImageRecord] = {}
        self.categories: dict[int, Category] = {}
        self._ids, self._image_ids, self._starts, self._ends = array("q"), array("q"), array("q"), array("q")
        self._category_ids = array("q")
        take = {"images": self._take_image, "categories": self._take_category, "annotations": self._take_annotation}
        found = scan.lists(take)
        del scan.decoder  # it refers back to the scan, which would keep the whole text
        for key in take:
            if key not in found:
                raise DataError(path, f"lacks the list {key!r}", f"is this {what}?")
        for key, entries in (("images", self.images), ("categories", self.categories)):
            if not entries:
                raise DataError(path, f"lists no {key}", f"is this {what}?")
        self._check_references()
        order = np.argsort(np.frombuffer(self._image_ids, dtype=np.int64), kind="stable")
        self._sorted_images = np.frombuffer(self._image_ids, dtype=np.int64)[order]
        both = (np.frombuffer(self._starts, dtype=np.int64), np.frombuffer(self._ends, dtype=np.int64))
        self._spans = np.stack(both, axis=1)[order]
        del self._ids, self._image_ids, self._category_ids, self._starts, self._ends

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to read spans: not the index itself."""
        return {key: value for key, value in vars(self).items() if key not in ("images", "_spans", "_sorted_images")}

    def spans(self, image_id: int) -> NDArray[np.int64]:
        """(n, 2) int64 byte ranges of an image's annotations, in file order."""
        first, last = np.searchsorted(self._sorted_images, (image_id, image_id + 1))
        found: NDArray[np.int64] = self._spans[first:last]
        return found

    def read(self, spans: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The annotations in some byte ranges. Raises DataError when the file changed since it was indexed."""
        if not len(spans):
            return []
        try:
            with self.path.open("rb") as file:
                stat = self.path.stat()
                if (stat.st_size, stat.st_mtime_ns) != self._stat:
                    raise ValueError
                return [self._read(file, int(start), int(end)) for start, end in spans]
        except (OSError, ValueError):
            raise DataError(self.path, "changed while it was being read", "run again") from None

    def _read(self, file: Any, start: int, end: int) -> dict[str, Any]:
        file.seek(start)
        entry: dict[str, Any] = json.loads(file.read(end - start))
        return entry

    def _take_image(self, entry: dict[str, Any], start: int, end: int) -> None:
        image_id = self._new_id("images", entry, len(self.images), self.images)
        name = entry.get("file_name")
        if name is None and isinstance(entry.get("coco_url"), str):  # LVIS
            name = entry["coco_url"].rsplit("/", 1)[-1]
        if not isinstance(name, str):
            raise DataError(self.path, f"images entry {image_id} has no file_name", "repair the exporter")
        height, width = (value if isinstance(value, int) else None for value in (entry.get("height"), entry.get("width")))
        self.images[image_id] = ImageRecord(image_id, name, (height, width))

    def _take_category(self, entry: dict[str, Any], start: int, end: int) -> None:
        category_id = self._new_id("categories", entry, len(self.categories), self.categories)
        name = entry.get("name")
        if not isinstance(name, str):
            raise DataError(self.path, f"categories entry {category_id} has no name", "repair the exporter")
        group = entry.get("supercategory")
        isthing = bool(entry.get("isthing", True))
        self.categories[category_id] = Category(category_id, name, group if isinstance(group, str) else "", isthing)

    def _take_annotation(self, entry: dict[str, Any], start: int, end: int) -> None:
        if not self._per_image:
            self._ids.append(self._new_id("annotations", entry, len(self._ids), ()))
            self._category_ids.append(self._whole(entry, "category_id"))
        self._image_ids.append(self._whole(entry, "image_id"))
        self._starts.append(start)
        self._ends.append(end)

    def _new_id(self, key: str, entry: Any, position: int, seen: Any) -> int:
        if key == "annotations" and isinstance(entry, dict) and "segments_info" in entry:
            raise DataError(self.path, f"is a panoptic JSON, not {self._what}", "use the format coco-panoptic")
        if not isinstance(entry, dict) or type(entry.get("id")) is not int or abs(entry["id"]) >= 1 << 62:
            value = str(entry.get("id"))[:40] if isinstance(entry, dict) else str(entry)[:40]
            raise DataError(self.path, f"{key}[{position}] has no usable whole-number id ({value})", "repair the exporter")
        entry_id: int = entry["id"]
        if entry_id in seen:
            raise DataError(self.path, f"{key} has the id {entry_id} twice", "keep one")
        return entry_id

    def _whole(self, entry: Any, field: str) -> int:
        value = entry.get(field) if isinstance(entry, dict) else None
        if type(value) is not int or abs(value) >= 1 << 62:
            name = f"annotation {entry['id']}" if isinstance(entry, dict) and "id" in entry else "an annotation"
            raise DataError(self.path, f"{name} has unknown {field} {str(value)[:40]!r}", "repair it")
        return value

    def _check_references(self) -> None:
        """Refuse annotations that share an id, or name an image or category there is not."""
        image_ids = np.frombuffer(self._image_ids, dtype=np.int64)
        wrong = np.flatnonzero(~np.isin(image_ids, np.array(list(self.images))))
        if wrong.size:
            raise self._dangling(int(wrong[0]), "image_id", int(image_ids[wrong[0]]))
        if self._per_image:
            return
        ids = np.frombuffer(self._ids, dtype=np.int64)
        unique, counts = np.unique(ids, return_counts=True)
        if unique.size < ids.size:
            raise DataError(self.path, f"annotations has the id {unique[counts > 1][0]} twice", "keep one")
        category_ids = np.frombuffer(self._category_ids, dtype=np.int64)
        wrong = np.flatnonzero(~np.isin(category_ids, np.array(list(self.categories))))
        if wrong.size:
            raise self._dangling(int(wrong[0]), "category_id", int(category_ids[wrong[0]]))

    def _dangling(self, position: int, field: str, value: int) -> DataError:
        name = f"annotations[{position}]" if self._per_image else f"annotation {self._ids[position]}"
        return DataError(self.path, f"{name} has unknown {field} {value!r}", "repair it")


class Scan:
    """Walks the top level of a JSON file and hands over the elements of some lists one by one.

    The file is held as one text in which a character is a byte, so positions are file offsets.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = self._load()
        self.decoder = json.JSONDecoder(object_pairs_hook=self._unrepeated, parse_constant=self._no_constant)

    def _load(self) -> str:
        try:
            with self.path.open("rb") as file:
                head = file.read(4)
                for mark, name in _ENCODINGS:
                    if head.startswith(mark):
                        raise DataError(self.path, f"is {name} text", "save it as UTF-8")
                if what := disguise(head + file.read(200)):
                    raise DataError(self.path, what, "replace the file")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                    text = str(view, "latin-1")
        except OSError as error:
            raise DataError(self.path, f"cannot be read ({error.strerror})", "check the path") from None
        remark_on_mark(self.path, head)
        if b"\0" in head:
            raise DataError(self.path, "is UTF-16 or UTF-32 text", "save it as UTF-8")
        if not text.isascii():
            self._check_utf8()
        return text

    def _check_utf8(self) -> None:
        decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
        with self.path.open("rb") as file:
            while True:
                piece = file.read(1 << 24)
                try:
                    decoder.decode(piece, final=not piece)
                except UnicodeDecodeError as error:
                    raise DataError(self.path, f"is not UTF-8 (byte {done + error.start})", "save it as UTF-8") from None
                if not piece:
                    return
                done += len(piece)

    def lists(self, take: Mapping[str, Callable[[Any, int, int], None]]) -> set[str]:
        """Hand each element of the named top-level lists to its function, with its byte range; returns the names found."""
        found: set[str] = set()
        for key, start in self._members():
            if key in take and self.text[start : start + 1] == "[":
                found.add(key)
                self._position = self._elements(start, take[key])
            else:
                _, self._position = self._value(start)
        return found

    def _members(self) -> Iterator[tuple[str, int]]:
        """Yield (key, start of its value) of the top-level object; the caller moves `_position` behind the value."""
        position = self._skip(3 if self.text.startswith("\xef\xbb\xbf") else 0)
        if self.text[position : position + 1] != "{":
            self._value(position)  # names the place where it is no JSON at all
            raise DataError(self.path, "has no object with the list 'images' at the top level", "is this a COCO file?")
        position = self._skip(position + 1)
        seen: set[str] = set()
        while self.text[position : position + 1] != "}" or seen:
            key, position = self._value(position)
            position = self._expect(":", position) if isinstance(key, str) else self._fail("a key in quotes", position)
            if key in seen:
                raise DataError(self.path, f"an object has the key {key!r} twice", "repair the exporter")
            seen.add(key)
            yield key, position
            position = self._skip(self._position)
            if self.text[position : position + 1] == "}":
                break
            position = self._expect(",", position)
        if self._skip(position + 1) != len(self.text):
            self._fail("the end of the file", self._skip(position + 1))

    def _elements(self, start: int, take: Callable[[Any, int, int], None]) -> int:
        position = self._skip(start + 1)
        if self.text[position : position + 1] == "]":
            return position + 1
        while True:
            entry, end = self._value(position)
            if not self.text.isascii():
                entry = json.loads(self.text[position:end].encode("latin-1"))
            take(entry, position, end)
            position = self._skip(end)
            if self.text[position : position + 1] == "]":
                return position + 1
            position = self._expect(",", position)

    def _value(self, position: int) -> tuple[Any, int]:
        self._at = position
        try:
            return self.decoder.raw_decode(self.text, position)
        except json.JSONDecodeError as error:
            raise DataError(self._place(error.pos), f"is broken JSON: {error.msg}", "replace the file") from None
        except RecursionError:
            raise DataError(self.path, "is nested too deeply", "is this a COCO file?") from None
        except ValueError as error:
            raise DataError(self.path, f"is broken JSON: {error}", "replace the file") from None

    def _skip(self, position: int) -> int:
        match = _SPACE.match(self.text, position)
        assert match is not None
        return match.end()

    def _expect(self, sign: str, position: int) -> int:
        position = self._skip(position)
        if self.text[position : position + 1] != sign:
            self._fail(f"{sign!r}", position)
        return self._skip(position + 1)

    def _fail(self, wanted: str, position: int) -> NoReturn:
        raise DataError(self._place(position), f"is broken JSON: expected {wanted}", "replace the file")

    def _place(self, position: int) -> str:
        """File, line and column, from 1, of a position; columns count characters, not bytes."""
        start = self.text.rfind("\n", 0, position) + 1
        before = self.text[start:position].encode("latin-1").decode("utf-8-sig", "replace")
        return f"{self.path}:{self.text.count(chr(10), 0, position) + 1}:{len(before) + 1}"

    def _no_constant(self, text: str) -> NoReturn:
        place = self._place(self.text.find(text, self._at))
        raise DataError(place, f"holds the value {text}, which is not JSON", "repair the exporter")

    def _unrepeated(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1).encode("latin-1", "replace").decode("utf-8", "replace")
            raise DataError(self.path, f"an object has the key {twice!r} twice", "repair the exporter")
        return entry
