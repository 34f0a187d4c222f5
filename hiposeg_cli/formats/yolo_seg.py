"""YOLO segmentation as Ultralytics reads it: a data.yaml, images, and a text file of normalised polygons for each.

Polygons are drawn by pycocotools on the full picture, small ones on top. Ultralytics cuts the points off to whole pixels
of a picture it has resized, so its edges differ by up to a pixel.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import safe_key
from hiposeg_cli.formats.label_names import Label, LabelNames
from hiposeg_cli.formats.shapes import Shape, draw_polygon, paint_shapes
from hiposeg_cli.formats.upright import require_upright
from hiposeg_cli.formats.yolo_data import YoloData, require_one_split
from hiposeg_cli.lookup import Target

_SLACK = 0.01  # of the picture's side, as Ultralytics tolerates


class YoloSeg(Reader):
    """SRC/data.yaml with the images it names; labels lie in `labels` where images lie in `images`.

    An image without a label file, or with an empty one, is background. Class names may be `object:part`.
    """

    needs = ("pycocotools",)
    name = "yolo-seg"
    honours = frozenset({"unlabelled", "instances"})
    named = True
    lists_objects = True
    not_sent = frozenset({"_data"})
    overlap_rule = "polygons by descending area, the smaller on top, then in file order"

    def targets(self) -> dict[int, Target]:
        self._names = LabelNames.of(self)
        self._class_names = [name for _, name in sorted(self._data.names.items())]
        self._raw_ids = self._names.raw_ids([Label(name) for name in self._class_names], self._data.path)
        return self._names.targets

    @cached_property
    def _data(self) -> YoloData:
        return YoloData(self.root, follow=self.options.follow_symlinks)

    def items(self) -> list[RawItem]:
        splits = self._data.splits()
        require_one_split(splits, self._data.path)
        items = []
        for split, images in splits.items():
            for image in images:
                source = Path(os.path.relpath(image.label, self.root)).as_posix()
                with self.each_image():
                    items.append(RawItem(safe_key(image.key, self._data.path), split, image.photo, source))
        return sorted(items, key=lambda item: (item.split, item.key))

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        require_upright(item.image_path, "Ultralytics")
        path = self.root / item.source
        text = self._text(path)
        shapes, notes = list[Shape](), [f"no {item.source}: no objects"] if text is None else []
        rows = [(number, line.split()) for number, line in enumerate((text or "").splitlines(), start=1) if line.strip()]
        for number, words in rows:
            class_id, values = self._row(f"{path}:{number}", words)
            name = f"line {number} ({self._class_names[class_id]!r})"
            try:
                drawn = draw_polygon(_points(values, size), size)
            except ValueError as error:
                notes.append(f"{name}: {str(error).removesuffix('; skipped')}; skipped")
                continue
            shapes.append(Shape(self._raw_ids[class_id], drawn, name=name))
        if boxes := sum(len(words) == 5 for _, words in rows):
            notes.append(f"{boxes} row{'s are boxes' if boxes > 1 else ' is a box'}, drawn as rectangles")
        shapes.sort(key=lambda shape: -int(shape.drawn.mask.sum()))
        return paint_shapes(shapes, size, self._names, notes, with_instances=self.options.instances)

    def _text(self, path: Path) -> str | None:
        """The rows of one image; None where there is no such file."""
        if self.link_root is not None and not path.resolve().is_relative_to(self.link_root.resolve()):
            raise DataError(path, "links out of the dataset", "pass --follow-symlinks if that is meant")
        try:
            return path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(path, f"cannot be read ({error.strerror})", "check the file") from None
        except UnicodeDecodeError as error:
            raise DataError(path, f"is not UTF-8 text (byte {error.start})", "replace the file") from None

    def _row(self, where: str, words: list[str]) -> tuple[int, list[float]]:
        """(class id, coordinates) of one row. Raises DataError for what is no row of a segmentation file."""
        try:
            values = [float(word) for word in words]
        except ValueError:
            wrong = next(word for word in words if not _is_number(word))
            raise DataError(where, f"{wrong[:40]!r} is not a number", "write: class x1 y1 x2 y2 ...") from None
        class_id, coordinates = values[0], values[1:]
        if not class_id.is_integer() or not 0 <= class_id < len(self._class_names):
            cure = "correct it, or add its name to data.yaml"
            raise DataError(where, f"class {words[0]} is not 0..{len(self._class_names) - 1}", cure)
        for word, value in zip(words[1:], coordinates, strict=True):
            if not -_SLACK <= value <= 1 + _SLACK:
                cure = "divide x by the picture's width and y by its height"
                raise DataError(where, f"the coordinate {word} is not between 0 and 1", cure)
        return int(class_id), [min(max(value, 0.0), 1.0) for value in coordinates]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _points(values: list[float], size: tuple[int, int]) -> list[float]:
    """The polygon of one row in pixels; 4 numbers are a box: centre, width and height.

    Raises: ValueError, in words, for numbers that are neither.
    """
    if len(values) == 4:
        x, y, width, height = values
        left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
        values = [min(max(value, 0.0), 1.0) for value in (left, top, right, top, right, bottom, left, bottom)]
    if len(values) < 6 or len(values) % 2:
        raise ValueError(f"{len(values)} coordinates are no polygon")
    height_px, width_px = size
    return [value * (height_px if place % 2 else width_px) for place, value in enumerate(values)]
