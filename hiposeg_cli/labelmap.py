"""Label maps: the two-level map of one image, its invariant and its PNG files.

The only module that knows the ignore value: 255 in 8-bit maps, 65535 in 16-bit maps, `IGNORE` in tensors.
Geometry (resizing, flipping) belongs to `learn.augment`; which raw id means what belongs to `hierarchy`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.errors import DataError, OutputError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.image_file import decode, decoded_ids, opened_png
from hiposeg_cli.remarks import remark

IGNORE = -1  # in int64 tensors, where no class id can be negative
PNG_LEVEL = 3
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CLASSES_8BIT = 254  # 254 stays free: `reduce_zero_label` arithmetic elsewhere turns ignore into it

LabelArray = NDArray[np.uint8] | NDArray[np.uint16]  # (H, W)
RawIds = NDArray[np.int32] | NDArray[np.uint16] | NDArray[np.uint8]  # (H, W), ids as published


def label_dtype(n_classes: int) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """The smallest unsigned type that holds `n_classes` ids and the ignore value."""
    return np.dtype(np.uint8) if n_classes <= _MAX_CLASSES_8BIT else np.dtype(np.uint16)


def ignore_value(dtype: np.typing.DTypeLike) -> int:
    """The ignore id of a label map on disk: the largest value of its type."""
    return int(np.iinfo(dtype).max)


def valid_pixels(labels: LabelArray) -> NDArray[np.bool_]:
    """(H, W) bool: pixels that carry a class."""
    valid: NDArray[np.bool_] = labels != ignore_value(labels.dtype)
    return valid


def histogram(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256,) int64 pixels of each 8-bit value."""
    height, width = ids.shape
    image = Image.frombuffer("L", (width, height), np.ascontiguousarray(ids), "raw", "L", 0, 1)
    return np.array(image.histogram(), dtype=np.int64)


def largest_id(labels: LabelArray) -> int:
    """The largest class id of a map, -1 where all is ignore."""
    if labels.dtype == np.uint8:
        return int(np.flatnonzero(histogram(labels.astype(np.uint8, copy=False))[:-1]).max(initial=-1))
    return int(np.where(valid_pixels(labels), labels.astype(np.int32), -1).max(initial=-1))


def count_ids(labels: LabelArray, n_classes: int) -> NDArray[np.int64]:
    """(K,) int64 pixels per class, ignore left out."""
    counts = np.bincount(labels.ravel(), minlength=n_classes)[:n_classes]
    return counts.astype(np.int64)


def ranked(numbers: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values of a map in ascending order, and the map with each value replaced by its place among them."""
    flat = numbers.ravel()
    starts = np.append(np.zeros(min(1, flat.size), dtype=np.intp), np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    values, places = np.unique(flat[starts], return_inverse=True)  # one of each run: much less to sort
    ranks = places.astype(np.int64).repeat(np.diff(starts, append=flat.size))
    return values.astype(np.int64), ranks.reshape(numbers.shape)


@dataclass(frozen=True)
class TwoLevelMap:
    """One image's labels: `fine` and `coarse`, both (H, W), uint8 or uint16.

    Invariant: where `fine` carries a class, `coarse` is its parent. Both are kept because `coarse` is not a function of
    `fine`: an object pixel without a part has a coarse class and fine = ignore.
    """

    fine: LabelArray
    coarse: LabelArray

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.fine.shape
        return int(height), int(width)

    def check(self, hierarchy: Hierarchy, where: object) -> None:
        """Raise DataError when a shape, an id or the invariant is wrong."""
        self.check_ids(hierarchy, where)
        known = valid_pixels(self.fine)
        wrong = known.copy()
        wrong[known] = hierarchy.parent[self.fine[known]] != self.coarse[known]
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            raise DataError(
                where,
                f"{int(wrong.sum())} pixels where coarse is not the parent of fine, the first at ({x}, {y}): "
                f"fine {hierarchy.fine.nodes[int(self.fine[y, x])].name!r}, coarse {int(self.coarse[y, x])}",
                "prepare the data again",
            )

    def check_ids(self, hierarchy: Hierarchy, where: object) -> None:
        """Raise DataError when the shapes differ or an id is not of the hierarchy."""
        if self.fine.shape != self.coarse.shape:
            raise DataError(where, f"fine is {self.fine.shape} but coarse is {self.coarse.shape}", "make them equal")
        for level, labels in ((hierarchy.fine, self.fine), (hierarchy.coarse, self.coarse)):
            bad = labels[valid_pixels(labels) & (labels >= len(level))]
            if bad.size:
                raise DataError(
                    where, f"{level.name} id {int(bad[0])} on {bad.size} pixels, but the level has {len(level)} classes",
                    "use the hierarchy the labels were made with",
                )  # fmt: skip

    def coarse_only(self) -> NDArray[np.bool_]:
        """(H, W) bool: pixels with a coarse class and no fine one."""
        only: NDArray[np.bool_] = valid_pixels(self.coarse) & ~valid_pixels(self.fine)
        return only


def lift(labels: LabelArray, hierarchy: Hierarchy, depth: int = 1) -> LabelArray:
    """Map of `levels[depth]`, the coarse one unless said otherwise, by look-up in that of the level below.

    Ignore, and any id that is none of the level's, becomes ignore.
    """
    dtype, parents = label_dtype(len(hierarchy.levels[depth])), hierarchy.parents(depth - 1)
    table = np.full(ignore_value(labels.dtype) + 1, ignore_value(dtype), dtype=dtype)
    table[: len(parents)] = parents
    return table.take(labels)


def on_every_level(maps: Sequence[LabelArray | None], hierarchy: Hierarchy) -> tuple[LabelArray, ...]:
    """One map a level, finest first: one that is None, or not there, follows from the one below."""
    result: list[LabelArray] = []
    for depth in range(len(hierarchy.levels)):
        labels = maps[depth] if depth < len(maps) else None
        result.append(lift(result[-1], hierarchy, depth) if labels is None else labels)
    return tuple(result)


# -- PNG files ---------------------------------------------------------------------------------------------------------


def read_label_png(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(H, W) ids of a label PNG: 8-bit grey, palette (the indices are the ids) or 16-bit grey.

    Grey behind an alpha channel is taken, too, with a remark, where that channel says nothing.
    Raises: DataError for a colour-coded, truncated or otherwise unusable file.
    """
    with opened_png(path) as (image, depth):
        if image.mode == "L" and depth < 8:
            raise DataError(
                path, f"is a {depth}-bit grey PNG, whose ids readers stretch to 0..255", "save it with 8 bits, or as palette"
            )
        if image.mode in ("L", "P", "I;16"):
            return decoded_ids(image, path)
        decode(image, path, "label PNG")
        if image.mode == "I":  # 16 bits, as some releases of Pillow read them
            return np.asarray(image).astype(np.uint16)
        if image.mode in ("LA", "RGBA") and depth == 8 and (ids := _opaque_grey(image)) is not None:
            remark(path, f"is {image.mode} with a constant alpha of 255; its grey values are taken as ids")
            return ids
        raise DataError(
            path, f"is a {image.mode} picture, not class ids: a coloured visualisation?",
            "use the id files (8-bit grey, palette or 16-bit grey), such as *_labelIds.png",
        )  # fmt: skip


def _opaque_grey(image: Image.Image) -> NDArray[np.uint8] | None:
    """The grey values of a picture with alpha; None where it is coloured, or transparent in places."""
    *bands, alpha = (np.asarray(band) for band in image.split())
    is_grey = all(np.array_equal(band, bands[0]) for band in bands[1:])
    return bands[0] if is_grey and bool((alpha == 255).all()) else None


def png_bytes(labels: LabelArray) -> bytes:
    """The PNG file of a label map: 8-bit or 16-bit grey without palette; equal arrays give equal bytes.

    Rows are not filtered: label maps compress as well without, and are written and read about three times as fast as with
    the filters that Pillow chooses.
    """
    height, width = labels.shape
    size = labels.dtype.itemsize
    rows = np.zeros((height, 1 + size * width), dtype=np.uint8)  # each row starts with its filter, 0
    rows[:, 1:] = np.ascontiguousarray(labels, labels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8 * size, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, PNG_LEVEL)), (b"IEND", b""))
    return _PNG_SIGNATURE + b"".join(_png_chunk(kind, body) for kind, body in chunks)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all; makes its folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            path, f"cannot be written ({error.strerror})", "free disk space or choose another folder"
        ) from None


def write_label_png(path: Path, labels: LabelArray) -> str:
    """Write a label map atomically; returns the sha256 of the file."""
    data = png_bytes(labels)
    write_bytes_atomic(path, data)
    return hashlib.sha256(data).hexdigest()
