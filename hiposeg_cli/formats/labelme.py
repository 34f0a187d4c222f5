"""labelme: one JSON beside each photo; its shapes are drawn by Pillow as labelme's `shape_to_mask` draws them.

labelme itself is never imported: importing it lifts Pillow's pixel limit for the whole process.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hiposeg_cli.errors import DataError, did_you_mean
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import Stems, index_images, require_inside, safe_key, walk
from hiposeg_cli.formats.label_names import Label, LabelNames
from hiposeg_cli.formats.shapes import Drawn, Shape, Window, paint_shapes, reaches_out
from hiposeg_cli.formats.splits import split_named
from hiposeg_cli.formats.upright import require_upright
from hiposeg_cli.image_file import image_header
from hiposeg_cli.lookup import Target
from hiposeg_cli.strict_json import load_json

_LINE_WIDTH, _POINT_RADIUS = 10, 5  # the defaults of shape_to_mask
_POINTS = {"circle": 2, "rectangle": 2, "line": 2, "point": 1, "oriented_rectangle": 4, "mask": 2}
_TYPES = ("polygon", "linestrip", *_POINTS)
Points = list[tuple[float, float]]


class Labelme(Reader):
    """SRC/**/*.json, each beside its photo; the folders SRC/train, SRC/val and SRC/test are splits.

    A label names a class, or `object:part`. Shapes of one `group_id` are one object, and a part in such a group is looked
    up as `object:part` first. The photo is the one with the JSON's own name, else the one that `imagePath` names beside it;
    an `imagePath` that leads elsewhere is followed only by its last part, and only below a folder given as --images.
    """

    name = "labelme"
    honours = frozenset({"images", "unlabelled", "instances"})
    named = True
    lists_objects = True
    not_sent = frozenset({"_photos", "_by_file_name"})
    overlap_rule = "shapes in list order, the later on top, drawn by Pillow as labelme does (edges depend on its version)"

    def targets(self) -> dict[int, Target]:
        self._names = LabelNames.of(self)
        return self._names.targets

    @cached_property
    def _photos(self) -> Stems:
        """Relative stem -> photo."""
        folder = self.options.images
        if folder is not None and not folder.is_dir():
            raise DataError(folder, "no such folder", "pass --images FOLDER with the photos")
        return index_images(folder or self.root, root=self.photo_root)

    @cached_property
    def _by_file_name(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in self._photos.files():
            found.setdefault(path.name, []).append(path)
        return found

    def items(self) -> list[RawItem]:
        items = []
        photos = self._photos  # what is wrong with the folder is no fault of one image
        for path in walk(self.root, (".json",), root=self.link_root):
            relative = path.relative_to(self.root)
            split = split_named(relative.parts[0]) if len(relative.parts) > 1 else None
            stem = (Path(*relative.parts[1:]) if split else relative).with_suffix("").as_posix()
            with self.each_image():
                photo = photos.get(relative.with_suffix("").as_posix()) or self._named(path, relative)
                items.append(RawItem(safe_key(stem, path), split or "train", photo, relative.as_posix()))
        if not items and not self.faults:
            raise DataError(self.root, "holds no *.json", "name the folder with the labelme files")
        return sorted(items, key=lambda item: (item.split, item.key))

    def _named(self, path: Path, relative: Path) -> Path:
        require_inside(path, self.link_root)
        data = _read(path)
        named = self._named_photo(path, data)
        if self.options.images is not None:
            found = self._by_file_name.get(named, [])
            if len(found) > 1:
                raise DataError(path, f"{named} is in several folders ({found[0]}, {found[1]})", "name a smaller --images")
        else:
            photo = self._photos.get((relative.parent / named).with_suffix("").as_posix())
            found = [photo] if photo is not None and photo.name == Path(named).name else []
        if not found:
            embedded = "; the copy inside the JSON (imageData) is not used" if data.get("imageData") else ""
            raise DataError(path, f"its photo {named} is missing{embedded}", "add it, or pass --images FOLDER")
        return found[0]

    def _named_photo(self, path: Path, data: dict[str, Any]) -> str:
        """The photo that `imagePath` names, relative to the JSON's folder; its last part alone below --images."""
        named = data.get("imagePath")
        if not isinstance(named, str) or not named:
            raise DataError(path, f"imagePath is {named!r}", "name the photo there")
        if self.options.images is not None:
            return _last_part(named)
        try:
            safe_key(named, path)
        except DataError as error:
            raise DataError(
                path, f"imagePath: {error.what}", "write the photo's name alone, or pass --images FOLDER"
            ) from None
        return named

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path = self.root / item.source
        data = _read(path)
        named = self._named_photo(path, data)
        if _last_part(named) != item.image_path.name:
            cure = "correct imagePath, or give the JSON the name of its photo"
            raise DataError(path, f"names the photo {named}, but lies beside {item.image_path.name}", cure)
        recorded = _recorded(path, data)
        for stated, actual, side in zip(recorded, size, ("imageHeight", "imageWidth"), strict=True):
            if stated not in (None, actual):
                cure = "use the photo that was annotated (labelme shows a photo turned upright, if its EXIF data ask for it)"
                raise DataError(path, f"{side} is {stated}, but {item.image_path.name} is {size[1]}x{size[0]}", cure)
        height, width = recorded
        require_upright(item.image_path, "labelme", None if height is None or width is None else (height, width))
        return self._painted(path, data["shapes"], size)

    def _painted(self, path: Path, entries: list[Any], size: tuple[int, int]) -> RawLabel:
        labels = [_label(path, number, entry) for number, entry in enumerate(entries, start=1)]
        raw_ids = self._names.raw_ids(labels, path)
        shapes, notes = list[Shape](), list[str]()
        for number, (entry, label, raw_id) in enumerate(zip(entries, labels, raw_ids, strict=True), start=1):
            name = f"shape {number} ({label.name!r})"
            try:
                shapes.append(Shape(raw_id, draw(entry, size), label.group, name))
            except ValueError as error:
                notes.append(f"{name}: {error}; skipped")
        return paint_shapes(shapes, size, self._names, notes, with_instances=self.options.instances)


def _read(path: Path) -> dict[str, Any]:
    data = load_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
        raise DataError(path, "lacks the list 'shapes'", "is this a labelme file? Move others out of the folder")
    return data


def _last_part(named: str) -> str:
    """The file name of a path of any system."""
    return re.split(r"[/\\]", named)[-1]


def _recorded(path: Path, data: dict[str, Any]) -> tuple[int | None, int | None]:
    """(height, width) as the file states them, None for what it does not say."""
    stated = data.get("imageHeight"), data.get("imageWidth")
    for value in stated:
        if value is not None and type(value) is not int:
            raise DataError(path, f"imageHeight and imageWidth are {stated[0]!r} and {stated[1]!r}", "write whole numbers")
    return stated


def _label(path: Path, number: int, entry: Any) -> Label:
    """The label of one shape. Raises DataError where the entry is no shape of labelme's."""
    if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
        raise DataError(path, f"shape {number} has no label", "repair it, or remove it")
    where, group, kind = f"shape {number} ({entry['label']!r})", entry.get("group_id"), entry.get("shape_type")
    if group is not None and type(group) is not int:
        raise DataError(path, f"{where} has group_id {group!r}", "write a whole number or null")
    if kind is not None and kind not in _TYPES:
        raise DataError(path, f"{where} has unknown shape_type {kind!r}", did_you_mean(str(kind), _TYPES))
    return Label(entry["label"], group)


# -- drawing -----------------------------------------------------------------------------------------------------------


def draw(entry: dict[str, Any], size: tuple[int, int]) -> Drawn:
    """The pixels of one shape.

    The canvas ends where the shape does, but starts where the image does: Pillow rounds the edges of a polygon that was
    moved, even by whole pixels, otherwise.

    Raises: ValueError, in words, for a shape that cannot be drawn.
    """
    kind = entry.get("shape_type") or "polygon"
    points = _points(entry.get("points"), kind, size)
    if kind == "mask":
        return _pasted(entry.get("mask"), points, size)
    points = _drawn_points(kind, points)
    xs, ys = [x for x, _ in points], [y for _, y in points]
    window = Window.around(xs, ys, size, margin=_LINE_WIDTH if kind in ("line", "linestrip") else 0)
    outside = reaches_out(xs, ys, size)
    if 0 in window.shape:
        return Drawn(window, np.zeros(window.shape, dtype=bool), outside)
    image = Image.new("L", (window.right, window.bottom))
    _stroke(ImageDraw.Draw(image), kind, points)
    drawn = image.crop((window.left, window.top, window.right, window.bottom))
    return Drawn(window, np.asarray(drawn).astype(bool), outside)


def _points(points: Any, kind: str, size: tuple[int, int]) -> Points:
    pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    if not pairs or not all(type(value) in (int, float) for point in points for value in point):
        raise ValueError("its points are not [x, y] pairs of numbers")
    needed = _POINTS.get(kind)
    if needed is not None and len(points) != needed:
        raise ValueError(f"a {kind} needs {needed} point{'s' * (needed > 1)}, it has {len(points)}")
    least = 3 if kind == "polygon" else 1
    if len(points) < least:
        raise ValueError(f"a {kind} needs {least} points or more, it has {len(points)}")
    limit = 10 * max(size)
    if not all(-limit <= value <= limit for point in points for value in point):
        raise ValueError("a point is not finite, or far outside the image")
    return [(x, y) for x, y in points]


def _drawn_points(kind: str, points: Points) -> Points:
    """The points Pillow is given: the corners of the box of a disc or rectangle, else the shape's own."""
    if kind in ("circle", "point"):
        x, y = points[0]
        radius = float(_POINT_RADIUS)
        if kind == "circle":
            radius = math.sqrt((x - points[1][0]) ** 2 + (y - points[1][1]) ** 2)
        return [(x - radius, y - radius), (x + radius, y + radius)]
    if kind == "rectangle":
        (x, y), (other_x, other_y) = points
        return [(min(x, other_x), min(y, other_y)), (max(x, other_x), max(y, other_y))]
    return points


def _stroke(pen: ImageDraw.ImageDraw, kind: str, points: Points) -> None:
    if kind in ("circle", "point"):
        pen.ellipse(points, outline=1, fill=1)
    elif kind == "rectangle":
        pen.rectangle(points, outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        pen.line(points, fill=1, width=_LINE_WIDTH)
    else:
        pen.polygon(points, outline=1, fill=1)


def _pasted(text: Any, points: Points, size: tuple[int, int]) -> Drawn:
    """A mask: a PNG in base64 and the corners of its box, both inclusive."""
    (left, top), (right, bottom) = ((int(x), int(y)) for x, y in points)
    height, width = bottom - top + 1, right - left + 1
    if not (0 <= left <= right < size[1] and 0 <= top <= bottom < size[0]):
        raise ValueError(f"its box ({left}, {top})..({right}, {bottom}) leaves the image")
    if not isinstance(text, str):
        raise ValueError("it has no mask")
    try:
        with image_header(base64.b64decode(text, validate=True), ("PNG",)) as image:
            if image.size != (width, height):
                raise ValueError(f"its mask is {image.width}x{image.height}, its box {width}x{height}")
            mask = np.asarray(image)
    except (OSError, SyntaxError, binascii.Error) as error:
        raise ValueError(f"its mask is no PNG in base64 ({error})") from None
    if mask.ndim != 2:
        raise ValueError("its mask is a colour picture")
    return Drawn(Window(top, left, bottom + 1, right + 1), mask.astype(bool))
