"""Drawing masks into one id map: a canvas that counts contested pixels, and polygons and RLE checked before C sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.labelmap import RawIds

Rle = dict[str, Any]  # compressed, as pycocotools holds it: {"size": [height, width], "counts": bytes}


@dataclass
class Canvas:
    """Paints published ids in order and counts the pixels where two claims met."""

    shape: tuple[int, int]
    unlabelled: int
    ids: NDArray[np.int32] = field(init=False)
    contested: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = np.full(self.shape, self.unlabelled, dtype=np.int32)
        self.contested = np.zeros(self.shape, dtype=bool)

    def paint(self, mask: NDArray[np.bool_], raw_id: int) -> None:
        """Give the pixels of a mask an id; a later claim wins."""
        self.contested |= mask & (self.ids != self.unlabelled) & (self.ids != raw_id)
        self.ids[mask] = raw_id


@dataclass(frozen=True)
class Region:
    """One annotated region: what it is, its mask, and what decides who wins where regions overlap.

    Attributes:
        raw_id: published id of its class.
        rle: its mask.
        order: regions are painted by rising order, ties in the order given; the last one wins.
        under: it only takes pixels that no other region claims (a crowd).
        instance: object number from 1; 0 gets none.
    """

    raw_id: int
    rle: Rle
    order: tuple[float, ...] = ()
    under: bool = False
    instance: int = 0


@dataclass(frozen=True)
class Painted:
    """Regions painted over one another: (H, W) ids and instances, and the pixels two classes claimed."""

    ids: RawIds
    overlap_px: int
    instances: NDArray[np.uint16] | None


def paint_regions(
    regions: Sequence[Region], shape: tuple[int, int], *, unlabelled: int, with_instances: bool = False
) -> Painted:
    """Paint regions over one another, each inside its bounding box only.

    Masks are column-major in RLE, so the canvas is too; it is turned round once at the end.
    """
    from pycocotools import mask as rle

    ids = np.full(shape, unlabelled, dtype=np.int32, order="F")
    contested = np.zeros(shape, dtype=bool, order="F")
    instances = np.zeros(shape, dtype=np.uint16, order="F") if with_instances else None
    for region in sorted(regions, key=lambda region: (region.under, region.order)):
        left, top, box_width, box_height = (int(value) for value in rle.toBbox(region.rle))
        box = np.s_[top : top + box_height, left : left + box_width]
        mask = rle.decode(region.rle)[box].view(bool)
        claimed = ids[box] != unlabelled
        if region.under:
            mask &= ~claimed
        else:
            contested[box] |= claimed & (ids[box] != region.raw_id) & mask
        np.copyto(ids[box], region.raw_id, where=mask)
        if instances is not None:
            np.copyto(instances[box], region.instance, where=mask)
    turned = None if instances is None else np.ascontiguousarray(instances)
    return Painted(np.ascontiguousarray(ids), int(np.count_nonzero(contested)), turned)


def area(region: Rle) -> int:
    """Pixels of a mask."""
    from pycocotools import mask as rle

    return int(rle.area(region))


def encode_polygons(polygons: Any, height: int, width: int, notes: list[str], where: str) -> Rle:
    """Polygons `[x1, y1, x2, y2, ...]` of one region as one RLE, drawn by pycocotools.

    Args:
        notes: gets a line when some of the polygons cannot be used.
        where: names the region in that line.
    Raises: ValueError, in words, when none of them can be used.
    """
    from pycocotools import mask as rle

    if not isinstance(polygons, list) or not polygons:
        raise ValueError("no segmentation; skipped")
    limit = 10 * max(height, width)
    usable = [polygon for polygon in polygons if _usable(polygon, limit)]
    if not usable:
        raise ValueError("no polygon of three finite points near the image; skipped")
    if len(usable) < len(polygons):
        dropped = len(polygons) - len(usable)
        notes.append(f"{where}: {dropped} unusable polygon{'s' * (dropped > 1)} dropped")
    encoded = rle.frPyObjects(usable, height, width)
    merged: Rle = encoded[0] if len(encoded) == 1 else rle.merge(encoded)
    return merged


def encode_segmentation(segmentation: Any, height: int, width: int, notes: list[str], where: str) -> Rle:
    """A COCO `segmentation` (polygons, uncompressed or compressed RLE) as a compressed RLE; see `encode_polygons`.

    Raises: ValueError, in words, for geometry that must not reach C code.
    """
    from pycocotools import mask as rle

    if not isinstance(segmentation, dict):
        return encode_polygons(segmentation, height, width, notes, where)
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width]:
        raise ValueError(f"RLE of size {size}, image of [{height}, {width}]; skipped")
    _check_counts(_uncompressed(counts) if isinstance(counts, str) else counts, height * width)
    encoded: Rle = segmentation if isinstance(counts, str) else rle.frPyObjects(segmentation, height, width)
    return encoded


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
