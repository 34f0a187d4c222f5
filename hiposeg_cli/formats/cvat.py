"""CVAT for images 1.1: annotations.xml with its images; polygons and boxes are drawn by pycocotools, as CVAT exports masks.

An ellipse takes the pixels whose centre lies inside it; CVAT's own mask export rounds its centre and axes to whole pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.cvat_xml import CvatXml, ImageEntry
from hiposeg_cli.formats.files import IMAGE_SUFFIXES, require_inside, safe_key, walk
from hiposeg_cli.formats.label_names import Label, LabelNames
from hiposeg_cli.formats.shapes import Drawn, Shape, Window, draw_polygon, paint_shapes, reaches_out
from hiposeg_cli.formats.splits import split_named
from hiposeg_cli.formats.upright import require_upright
from hiposeg_cli.lookup import Target

_DRAWN = ("polygon", "box", "ellipse", "mask")
_FILE = "annotations.xml"


class Cvat(Reader):
    """SRC/annotations.xml with SRC/images; or SRC/SPLIT/annotations.xml for several tasks.

    A `subset` of a project is a split. A label names a class, or `object:part`. Shapes of one `group_id` are one object,
    and a part in such a group is looked up as `object:part` first. Tags, points, polylines, cuboids and skeletons cover
    no pixels; they are counted.
    """

    needs = ("pycocotools",)
    name = "cvat"
    honours = frozenset({"images", "unlabelled", "instances"})
    named = True
    lists_objects = True
    not_sent = frozenset({"_listing"})
    overlap_rule = "shapes by z_order, then in file order, the later on top"

    def targets(self) -> dict[int, Target]:
        self._names = LabelNames.of(self)
        return self._names.targets

    @cached_property
    def _tables(self) -> dict[str, CvatXml]:
        """Relative path -> its index."""
        found = [self.root / _FILE] if (self.root / _FILE).is_file() else sorted(self.root.glob(f"*/{_FILE}"))
        found = found or sorted(self.root.glob("*.xml"))
        if not found:
            raise DataError(self.root, f"holds no {_FILE}", "name the folder of an extracted 'CVAT for images 1.1' export")
        for path in found:
            require_inside(path, self.link_root)
        return {path.relative_to(self.root).as_posix(): CvatXml(path) for path in found}

    def items(self) -> list[RawItem]:
        items = []
        listing = self._listing  # what is wrong with the folder is no fault of one image
        for name, table in self._tables.items():
            folder = PurePosixPath(name).parent
            for image in table.images:
                stem = image.name.removesuffix(_suffix(image.name))
                with self.each_image():
                    photo = self._photo(image, table.path, folder, listing)
                    key = safe_key(stem if split_named(folder.name) else (folder / stem).as_posix(), table.path)
                    split, source = self._split(image, table.path, folder.name), f"{name}:{image.number}"
                    items.append(RawItem(key, split, photo, source, image.span[None], recorded=image.size))
        return sorted(items, key=lambda item: (item.split, item.key))

    def _split(self, image: ImageEntry, path: Path, folder: str) -> str:
        if not image.subset or image.subset == "default":
            return split_named(folder) or "train"
        if "/" in image.subset:
            raise DataError(path, f"the subset {image.subset!r} cannot be a folder name", "rename it in CVAT")
        return split_named(image.subset) or safe_key(image.subset, path)

    @cached_property
    def _listing(self) -> dict[str, list[Path]]:
        """Relative path -> photo, below SRC or the folder given as --images; by stem too."""
        folder = self.options.images or self.root
        if not folder.is_dir():
            raise DataError(folder, "no such folder", "pass --images FOLDER with the photos")
        listing: dict[str, list[Path]] = {}
        for path in walk(folder, IMAGE_SUFFIXES, root=self.photo_root):
            name = path.relative_to(folder).as_posix()
            listing[name] = [path]
            listing.setdefault(name.removesuffix(_suffix(name)), []).append(path)
        return listing

    def _photo(self, image: ImageEntry, path: Path, folder: PurePosixPath, listing: Mapping[str, list[Path]]) -> Path:
        """The photo of an image; CVAT names the frames of a video without a suffix."""
        safe_key(image.name, path)  # refuses names that leave the folder
        subset = image.subset or "default"
        places = [f"{subset}/{image.name}", image.name]
        if self.options.images is None:
            places = [(folder / "images" / place).as_posix() for place in places] + [(folder / image.name).as_posix()]
        found = next((listing[place] for place in places if place in listing), [])
        if len(found) > 1:
            raise DataError(found[1], f"has the same stem as {found[0].name}", "keep one image per stem")
        if not found:
            cure = "export with images, or pass --images FOLDER"
            raise DataError(path, f"its image {image.name} is missing (looked for {', '.join(places)})", cure)
        return found[0]

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        assert item.spans is not None
        height, width = item.recorded
        require_upright(item.image_path, "CVAT", None if height is None or width is None else (height, width))
        name = item.source.rpartition(":")[0]
        path = self.root / name
        elements = list(self._tables[name].read(item.spans[0]))
        drawn = [element for element in elements if element.tag in _DRAWN and element.get("outside") != "1"]
        drawn.sort(key=lambda element: _z_order(element, path))
        labels = [_label(element, path, item) for element in drawn]
        raw_ids = self._names.raw_ids(labels, path)
        shapes, notes = list[Shape](), _left_out(elements)
        for element, label, raw_id in zip(drawn, labels, raw_ids, strict=True):
            name = f"{element.tag} {label.name!r}"
            try:
                shapes.append(Shape(raw_id, draw(element, size), label.group, name))
            except ValueError as error:
                notes.append(f"{name}: {str(error).removesuffix('; skipped')}; skipped")
        return paint_shapes(shapes, size, self._names, notes, with_instances=self.options.instances)


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in IMAGE_SUFFIXES else ""


def _left_out(elements: list[Any]) -> list[str]:
    """What is not drawn, counted."""
    counts = Counter(element.tag for element in elements if element.tag not in _DRAWN)
    return [f"{number} {tag}{'' if tag == 'points' else 's' * (number > 1)} not drawn" for tag, number in counts.items()]


def _z_order(element: Any, path: Path) -> int:
    try:
        return int(element.get("z_order", "0"))
    except ValueError:
        raise DataError(path, f"a {element.tag} has z_order {element.get('z_order')!r}", "write a whole number") from None


def _label(element: Any, path: Path, item: RawItem) -> Label:
    name = element.get("label")
    if not name:
        raise DataError(path, f"a {element.tag} of {item.image_path.name} has no label", "repair it")
    group = element.get("group_id", "0")
    return Label(name, None if group == "0" else group)


# -- drawing -----------------------------------------------------------------------------------------------------------


def draw(element: Any, size: tuple[int, int]) -> Drawn:
    """The pixels of one shape, in a window. Raises ValueError, in words, for a shape that cannot be drawn."""
    if element.tag == "mask":
        return _mask(element, size)
    if element.tag == "ellipse":
        return _ellipse(element, size)
    return draw_polygon(_polygon(element) if element.tag == "polygon" else _box(element), size)


def _number(element: Any, key: str, default: str | None = None) -> float:
    text = element.get(key, default)
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"its {key} is {text!r}")
    return value


def _polygon(element: Any) -> list[float]:
    text = element.get("points", "")
    pairs = [pair.split(",") for pair in text.split(";")]
    try:
        return [float(value) for x, y in pairs for value in (x, y)]
    except ValueError:
        raise ValueError(f"its points are {text[:40]!r}") from None


def _box(element: Any) -> list[float]:
    """The corners of a box, turned about its centre."""
    left, top, right, bottom = (_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    angle = math.radians(_number(element, "rotation", "0"))
    center_x, center_y = left + (right - left) / 2, top + (bottom - top) / 2
    corners = []
    for x, y in ((left, top), (right, top), (right, bottom), (left, bottom)):
        across, down = x - center_x, y - center_y
        corners.append(center_x + math.cos(angle) * across - math.sin(angle) * down)
        corners.append(center_y + math.sin(angle) * across + math.cos(angle) * down)
    return corners if angle else [left, top, right, top, right, bottom, left, bottom]


def _ellipse(element: Any, size: tuple[int, int]) -> Drawn:
    """The pixels whose centre lies in a turned ellipse."""
    x, y, radius_x, radius_y = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
    angle, limit = math.radians(_number(element, "rotation", "0")), 10 * max(size)
    if max(abs(x), abs(y), abs(radius_x), abs(radius_y)) > limit:
        raise ValueError("it is far outside the image")
    if radius_x <= 0 or radius_y <= 0:
        raise ValueError(f"its radii are {radius_x:g} and {radius_y:g}")
    cos, sin = math.cos(angle), math.sin(angle)
    reach_x, reach_y = math.hypot(radius_x * cos, radius_y * sin), math.hypot(radius_x * sin, radius_y * cos)
    xs, ys = (x - reach_x, x + reach_x), (y - reach_y, y + reach_y)
    window = Window.around(xs, ys, size)
    across = np.arange(window.left, window.right)[None, :] + 0.5 - x
    down = np.arange(window.top, window.bottom)[:, None] + 0.5 - y
    along, aside = (across * cos + down * sin) / radius_x, (down * cos - across * sin) / radius_y
    return Drawn(window, along**2 + aside**2 <= 1, reaches_out(xs, ys, size))


def _mask(element: Any, size: tuple[int, int]) -> Drawn:
    """Run lengths along the rows of the mask's own box, the first run being off."""
    try:
        left, top, width, height = (int(element.get(key)) for key in ("left", "top", "width", "height"))
        counts = [int(count) for count in element.get("rle").split(",")]
    except (TypeError, ValueError, AttributeError):
        raise ValueError("its rle, left, top, width and height are not whole numbers") from None
    if not (0 <= left < left + width <= size[1] and 0 <= top < top + height <= size[0]):
        raise ValueError(f"its box of {width}x{height} at ({left}, {top}) leaves the image")
    if min(counts) < 0 or sum(counts) != width * height:
        raise ValueError(f"its run lengths sum to {sum(counts)}, its box holds {width * height} pixels")
    bits = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return Drawn(Window(top, left, top + height, left + width), bits)
