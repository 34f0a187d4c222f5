"""Painting the shapes of annotation tools over one another, part over object being no conflict.

Where shapes of one object overlap, the later one is on top like any other. What a label means is `label_names`' business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawLabel
from hiposeg_cli.formats.label_names import LabelNames
from hiposeg_cli.formats.paint import Runs, encode_polygons

UNLABELLED = 0  # raw id of pixels without a shape, as in LabelNames
_MAX_OBJECTS = 65_535
_NONE = -1


@dataclass(frozen=True)
class Window:
    """A rectangle of an image: rows top..bottom-1, columns left..right-1, inside the image; it may be empty."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, xs: Sequence[float], ys: Sequence[float], size: tuple[int, int], *, margin: float = 0) -> Window:
        """The pixels near some points, given an image of `size` (height, width)."""
        height, width = size
        left, right = math.floor(min(xs) - margin) - 1, math.ceil(max(xs) + margin) + 2
        top, bottom = math.floor(min(ys) - margin) - 1, math.ceil(max(ys) + margin) + 2
        left, top = min(max(left, 0), width), min(max(top, 0), height)
        return cls(top, left, max(top, min(bottom, height)), max(left, min(right, width)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    @property
    def box(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Drawn:
    """The pixels of a shape: (h, w) bool in a window, and whether the shape reaches out of the image."""

    window: Window
    mask: NDArray[np.bool_]
    reaches_out: bool = False


@dataclass(frozen=True)
class Shape:
    """One drawn shape.

    Attributes:
        group: what joins the pieces and parts of one object; None for a shape of its own.
        name: names the shape in remarks.
    """

    raw_id: int
    drawn: Drawn
    group: object = None
    name: str = "a shape"


def reaches_out(xs: Sequence[float], ys: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether points lie more than a pixel outside an image of `size` (height, width)."""
    return min(xs) < -1 or min(ys) < -1 or max(xs) > size[1] + 1 or max(ys) > size[0] + 1


def draw_polygon(points: Sequence[float], size: tuple[int, int]) -> Drawn:
    """One polygon `[x1, y1, x2, y2, ...]`, drawn by pycocotools. Raises ValueError, in words, for an unusable one."""
    window, mask = _from_runs(encode_polygons([list(points)], *size, [], ""), size)
    return Drawn(window, mask, reaches_out(points[::2], points[1::2], size))


def _from_runs(runs: Runs, size: tuple[int, int]) -> tuple[Window, NDArray[np.bool_]]:
    """The bounding box of a mask in an image of `size` (height, width), and its pixels in there."""
    height = size[0]
    pixels, place = runs.mask()
    first, last = place.start // height, -(-place.stop // height)
    columns = np.zeros((last - first) * height, dtype=bool)
    columns[place.start - first * height : place.stop - first * height] = pixels
    mask = columns.reshape(last - first, height).T
    rows = np.flatnonzero(mask.any(axis=1))
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)
    return Window(top, first, bottom, last), mask[top:bottom]


def paint_shapes(
    shapes: Sequence[Shape], size: tuple[int, int], names: LabelNames, notes: Sequence[str], *, with_instances: bool
) -> RawLabel:
    """Paint shapes in order, the later on top.

    Args:
        notes: remarks on shapes that could not be drawn; those on the painting are added.
    Raises: DataError for more objects than 16 bits can number.
    """
    canvas = _Canvas(size, names)
    numbers: dict[object, int] = {}
    remarks = list(notes)
    for position, shape in enumerate(shapes):
        coarse_id = canvas.coarse[shape.raw_id]
        number = 0
        if coarse_id != _NONE and not canvas.is_background[shape.raw_id]:
            key = ("shape", position) if shape.group is None else ("group", shape.group, int(coarse_id))
            number = numbers.setdefault(key, len(numbers) + 1)
        if not canvas.paint(shape, number):
            remarks.append(f"{shape.name} covers no pixel")
    if len(numbers) > _MAX_OBJECTS:
        raise DataError("annotations", f"of one image hold {len(numbers)} objects", f"keep to {_MAX_OBJECTS}")
    if clipped := sum(shape.drawn.reaches_out for shape in shapes):
        remarks.append(f"{clipped} shape{'s reach' if clipped > 1 else ' reaches'} outside the image; clipped")
    if hidden := int(np.count_nonzero(canvas.hidden)):
        remarks.append(f"{hidden} px of parts lie under a later shape of their object; draw objects first, parts after")
    return RawLabel(
        canvas.ids, len(numbers), overlap_px=int(np.count_nonzero(canvas.contested)),
        part_overlap_px=int(np.count_nonzero(canvas.parts_contested)), warnings=tuple(remarks),
        instances=canvas.instances.astype(np.uint16) if with_instances else None,
    )  # fmt: skip


class _Canvas:
    """Ids and object numbers of one image, and the pixels where shapes met."""

    def __init__(self, size: tuple[int, int], names: LabelNames) -> None:
        fine = [_NONE if fine_id is None else fine_id for fine_id, _ in names.targets.values()]
        coarse = [_NONE if coarse_id is None else coarse_id for _, coarse_id in names.targets.values()]
        self.fine, self.coarse = np.array([*fine, _NONE]), np.array([*coarse, _NONE])  # the last one is for unknown names
        self.is_background = self.fine == (_NONE - 1 if names.hierarchy.background is None else names.hierarchy.background)
        self.ids = np.full(size, UNLABELLED, dtype=np.int32)
        self.instances = np.zeros(size, dtype=np.int32)
        self.contested, self.parts_contested = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        self.hidden = np.zeros(size, dtype=bool)

    def paint(self, shape: Shape, number: int) -> bool:
        """Paint one shape; says whether it covers anything."""
        mask, box = shape.drawn.mask, shape.drawn.window.box
        if not mask.any():
            return False
        before = self.ids[box]
        met = mask & (before != UNLABELLED) & (before != shape.raw_id)
        hidden = np.zeros_like(met)
        if met.any():
            same_object = self.coarse[before] == self.coarse[shape.raw_id]
            self.contested[box] |= met & ~same_object
            on_part = met & same_object & (self.fine[before] != _NONE)
            self.parts_contested[box] |= on_part
            if self.fine[shape.raw_id] == _NONE:
                hidden = on_part
        np.copyto(self.hidden[box], hidden, where=mask)
        np.copyto(before, shape.raw_id, where=mask)
        np.copyto(self.instances[box], number, where=mask)
        return True
