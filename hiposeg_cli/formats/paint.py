"""Drawing masks into one id map: a canvas that counts contested pixels, and polygons and RLE checked before C sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.labelmap import RawIds

_MAX_CODE_LENGTH = 12  # characters of 5 bits; a 64-bit number has no more


@dataclass
class Canvas:
    """Paints published ids in order and counts the pixels where two claims met."""

    shape: tuple[int, int]
    unlabelled: int
    ids: NDArray[np.int32] = field(init=False)
    contested: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = np.full(self.shape, self.unlabelled, dtype=np.int32, order="F")  # as MATLAB's and COCO's masks are
        self.contested = np.zeros(self.shape, dtype=bool, order="F")

    def paint(self, mask: NDArray[np.bool_], raw_id: int) -> None:
        """Give the pixels of a mask an id; a later claim wins."""
        self.contested |= mask & (self.ids != self.unlabelled) & (self.ids != raw_id)
        self.ids[mask] = raw_id


@dataclass(frozen=True)
class Region:
    """One annotated region: what it is, its mask, and what decides who wins where regions overlap.

    Attributes:
        raw_id: published id of its class, 0 or more.
        runs: its mask, see `Runs`.
        order: regions are painted by rising order, ties in the order given; the last one wins.
        under: it only takes pixels that no other region claims (a crowd).
        instance: object number from 1; 0 gets none.
    """

    raw_id: int
    runs: Runs
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
    """Paint regions over one another, each between its first and last pixel only.

    Runs go down the columns, so the canvas does too; it is turned round once at the end.
    """
    height, width = shape
    if with_instances and len(regions) > np.iinfo(np.uint16).max:
        raise DataError(f"{len(regions)} objects", "in one image do not fit 16 bits", "convert without --instances")
    dtype = np.min_scalar_type(max([unlabelled, *(region.raw_id for region in regions)]))
    ids = np.full(height * width, unlabelled, dtype=dtype)
    contested = np.zeros(height * width, dtype=bool)
    instances = np.zeros(height * width, dtype=np.uint16) if with_instances else None
    for region in sorted(regions, key=lambda region: (region.under, region.order)):
        mask, place = region.runs.mask()
        below = ids[place]
        if region.under:
            mask &= below == unlabelled
        else:
            contested[place] |= (below != unlabelled) & (below != region.raw_id) & mask
        np.copyto(below, dtype.type(region.raw_id), where=mask)
        if instances is not None:
            np.copyto(instances[place], np.uint16(region.instance), where=mask)

    def turned(flat: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(flat.reshape(width, height).T)

    return Painted(turned(ids), int(np.count_nonzero(contested)), None if instances is None else turned(instances))


@dataclass(frozen=True)
class Runs:
    """A mask as the lengths of its runs down the columns, from the first pixel: off, on, off, ...: COCO's RLE.

    Attributes:
        lengths: (n,) int64, summing to the pixels of the image.
    """

    lengths: NDArray[np.int64]

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.lengths[1::2].sum())

    def mask(self) -> tuple[NDArray[np.bool_], slice]:
        """The mask between its first and last pixel, (n,) bool, and where that lies in the column-major image."""
        n_runs = len(self.lengths) - len(self.lengths) % 2  # up to the last run that is on
        if not n_runs:
            return np.zeros(0, dtype=bool), slice(0, 0)
        is_on = np.arange(1, n_runs) % 2 == 1
        first = int(self.lengths[0])
        mask: NDArray[np.bool_] = np.repeat(is_on, self.lengths[1:n_runs])
        return mask, slice(first, first + mask.size)

    def image(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """(H, W) bool: the whole mask."""
        height, width = shape
        columns = np.zeros(height * width, dtype=bool)
        mask, place = self.mask()
        columns[place] = mask
        return np.ascontiguousarray(columns.reshape(width, height).T)

    @classmethod
    def parse(cls, text: bytes) -> Runs:
        """Read a compressed RLE string (the LEB128-like code of maskApi.c, rleFrString). Raises ValueError, in words."""
        codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
        if not codes.size:
            return cls(codes)
        if codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20:
            raise ValueError("RLE string is broken; skipped")
        lasts = np.flatnonzero((codes & 0x20) == 0)
        starts = np.zeros_like(lasts)
        starts[1:] = lasts[:-1] + 1
        sizes = lasts - starts + 1
        if int(sizes.max()) > _MAX_CODE_LENGTH:
            raise ValueError("RLE string is broken; skipped")
        place = np.arange(codes.size) - np.repeat(starts, sizes)
        values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
        negative = (codes[lasts] & 0x10) > 0
        values[negative] -= np.int64(1) << (5 * sizes[negative])
        values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])  # from the fourth, differences
        return cls(values)


def encode_polygons(polygons: Any, height: int, width: int, notes: list[str], where: str) -> Runs:
    """Polygons `[x1, y1, x2, y2, ...]` of one region as one mask, drawn by pycocotools.

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
    runs = Runs.parse((encoded[0] if len(encoded) == 1 else rle.merge(encoded))["counts"])
    if runs.area and any(_reaches_out(polygon, height, width) for polygon in usable):
        notes.append(f"{where}: reaches outside the image; clipped")
    return runs


def encode_segmentation(segmentation: Any, height: int, width: int, notes: list[str], where: str) -> Runs:
    """A COCO `segmentation` (polygons, uncompressed or compressed RLE) as a mask; see `encode_polygons`.

    Raises: ValueError, in words, for geometry that cannot be drawn.
    """
    if not isinstance(segmentation, dict):
        return encode_polygons(segmentation, height, width, notes, where)
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width]:
        raise ValueError(f"RLE of size {size}, image of [{height}, {width}]; skipped")
    if isinstance(counts, str):
        if not counts.isascii():
            raise ValueError("RLE string is broken; skipped")
        lengths = Runs.parse(counts.encode()).lengths
    elif isinstance(counts, list) and all(type(count) is int and 0 <= count <= height * width for count in counts):
        lengths = np.array(counts, dtype=np.int64)
    else:
        raise ValueError("RLE counts are not whole numbers >= 0; skipped")
    if lengths.size and not 0 <= int(lengths.min()) <= int(lengths.max()) <= height * width:
        raise ValueError(f"RLE counts are not 0..{height * width}; skipped")
    if int(lengths.sum()) != height * width:
        raise ValueError(f"RLE counts sum to {int(lengths.sum())}, not {height * width}; skipped")
    return Runs(lengths)


def _reaches_out(polygon: list[float], height: int, width: int) -> bool:
    """Whether a polygon goes more than a pixel beyond the image."""
    xs, ys = polygon[0::2], polygon[1::2]
    return min(xs) < -1 or min(ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1


def _usable(polygon: Any, limit: int) -> bool:
    """Whether one polygon has three points or more within `limit` px (a 4-number one would be drawn as a box).

    A point far outside the image makes the rasteriser allocate without bound.
    """
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    try:
        values = np.array(polygon)
    except (ValueError, OverflowError):  # lists in lists
        return False
    return values.ndim == 1 and values.dtype.kind in "iuf" and bool((np.abs(values) <= limit).all())  # false for NaN
