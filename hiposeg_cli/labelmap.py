"""Label maps: the two-level map of one image, its invariant, its encoding from raw ids and its PNG files.

The only module that knows the ignore value: 255 in 8-bit maps, 65535 in 16-bit maps, `IGNORE` in tensors.
Geometry (resizing, flipping) belongs to `learn.augment`; which raw id means what belongs to `hierarchy`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from hiposeg_cli.errors import DataError, OutputError
from hiposeg_cli.hierarchy import Hierarchy

IGNORE = -1  # in int64 tensors, where no class id can be negative
MAX_PIXELS = 100_000_000
PNG_LEVEL = 3
MAX_RAW_ID = 1_000_000  # a look-up table holds every id up to the largest
_MAX_CLASSES_8BIT = 254  # 254 stays free: `reduce_zero_label` arithmetic elsewhere turns ignore into it

LabelArray = NDArray[np.uint8] | NDArray[np.uint16]  # (H, W)
RawIds = NDArray[np.int32]


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


def count_ids(labels: LabelArray, n_classes: int) -> NDArray[np.int64]:
    """(K,) int64 pixels per class, ignore left out."""
    counts = np.bincount(labels.ravel(), minlength=n_classes)[:n_classes]
    return counts.astype(np.int64)


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


def lift(fine: LabelArray, hierarchy: Hierarchy) -> LabelArray:
    """Coarse map of a fine one by look-up; ignore stays ignore."""
    dtype = label_dtype(hierarchy.n_coarse)
    table = np.full(ignore_value(fine.dtype) + 1, ignore_value(dtype), dtype=dtype)
    table[: hierarchy.n_fine] = hierarchy.parent
    return table[fine]


class LookUp:
    """Raw ids -> two-level map, by one table per level.

    Args:
        targets: raw id -> (fine id or None, coarse id or None); None is ignore on that level.
        hierarchy: fixes the label types.
        where: what names the raw ids, for messages.
    """

    def __init__(
        self, targets: Mapping[int, tuple[int | None, int | None]], hierarchy: Hierarchy, where: object = "label ids"
    ) -> None:
        for raw_id in targets:
            if abs(raw_id) > MAX_RAW_ID:
                raise DataError(where, f"the label id {raw_id} is beyond {MAX_RAW_ID}", "number the raw classes from 0 or 1")
        self.offset = min((0, *targets))
        size = max((0, *targets)) - self.offset + 1
        fine_type, coarse_type = label_dtype(hierarchy.n_fine), label_dtype(hierarchy.n_coarse)
        self.fine: LabelArray = np.full(size, ignore_value(fine_type), dtype=fine_type)
        self.coarse: LabelArray = np.full(size, ignore_value(coarse_type), dtype=coarse_type)
        self.known = np.zeros(size, dtype=bool)
        for raw_id, (fine_id, coarse_id) in targets.items():
            slot = raw_id - self.offset
            self.known[slot] = True
            if fine_id is not None:
                self.fine[slot] = fine_id
            if coarse_id is not None:
                self.coarse[slot] = coarse_id

    def encode(self, raw: NDArray[np.integer], where: object) -> TwoLevelMap:
        """Look every raw id up.

        Args:
            raw: (H, W) any integer type, ids as published.
        Raises: DataError naming the unknown ids and their pixel counts.
        """
        slots = raw.astype(np.int64) - self.offset
        inside = (slots >= 0) & (slots < len(self.known))
        unknown = ~inside
        unknown[inside] = ~self.known[slots[inside]]
        if unknown.any():
            ids, counts = np.unique(raw[unknown], return_counts=True)
            listed = ", ".join(f"{i} ({n} px)" for i, n in zip(ids[:5], counts[:5], strict=True))
            more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
            raise DataError(where, f"label ids unknown to the hierarchy: {listed}{more}", _unknown_cure(ids))
        return TwoLevelMap(self.fine[slots], self.coarse[slots])


def _unknown_cure(ids: NDArray[np.integer]) -> str:
    if list(ids) == [255]:
        return "if 255 is ignore here, add `ignore: [255]` to the source of the hierarchy"
    return "map them or list them under `ignore` in the source of the hierarchy"


# -- image files -------------------------------------------------------------------------------------------------------


def check_photo(path: Path) -> tuple[int, int]:
    """(height, width) of a photo that decodes to its end. Raises DataError as `read_rgb` does."""
    height, width = read_rgb(path).shape[:2]
    with path.open("rb") as file:
        if file.read(8) == b"\x89PNG\r\n\x1a\n":
            _check_png_complete(path)
    return height, width


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a photo, as stored (EXIF rotation is not applied: labels follow the stored pixels).

    Raises: DataError for a missing, truncated, oversized or non-image file.
    """
    with _opened(path) as image:
        try:
            if image.mode in ("I;16", "I"):
                return np.repeat((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
            raise DataError(path, f"image is broken ({error})", "replace the file") from None


def read_label_png(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(H, W) ids of a label PNG: 8-bit grey, palette (the indices are the ids) or 16-bit grey.

    Raises: DataError for a colour-coded, truncated or otherwise unusable file.
    """
    with _opened(path) as image:
        if image.format != "PNG":
            raise DataError(path, f"labels are {image.format}, which may alter ids", "save labels as PNG")
        _check_png_complete(path)
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
            raise DataError(path, f"label PNG is broken ({error})", "replace the file") from None
        depth = _png_bit_depth(path)
        if image.mode == "L" and depth < 8:
            raise DataError(
                path, f"is a {depth}-bit grey PNG, whose ids readers stretch to 0..255", "save it with 8 bits, or as palette"
            )
        if image.mode in ("L", "P"):
            return np.asarray(image, dtype=np.uint8)
        if image.mode in ("I;16", "I"):
            return np.asarray(image).astype(np.uint16)
        raise DataError(
            path, f"is a {image.mode} picture, not class ids: a coloured visualisation?",
            "use the id files (8-bit grey, palette or 16-bit grey), such as *_labelIds.png",
        )  # fmt: skip


def png_bytes(labels: LabelArray) -> bytes:
    """The PNG file of a label map: 8-bit or 16-bit grey without palette; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(labels)).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


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


class _opened:
    """Open an image lazily with a pixel limit and our own errors; nothing is decoded yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> ImageFile.ImageFile:
        try:
            with warnings.catch_warnings():  # our own limit is checked below, from the header
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(self.path)
        except FileNotFoundError:
            raise DataError(self.path, "no such file", "check the path") from None
        except IsADirectoryError:
            raise DataError(self.path, "is a folder, not an image", "check the path") from None
        except Image.DecompressionBombError:
            raise DataError(self.path, f"has more than {MAX_PIXELS} pixels", "split it into tiles") from None
        except UnidentifiedImageError:
            raise DataError(self.path, _what_it_is(self.path), "replace the file") from None
        except (OSError, SyntaxError, ValueError, struct.error) as error:
            raise DataError(self.path, f"cannot be read as an image ({error})", "replace the file") from None
        if image.width * image.height > MAX_PIXELS:
            image.close()
            raise DataError(self.path, f"has {image.width}x{image.height} pixels, over {MAX_PIXELS}", "split it into tiles")
        self.image = image
        return image

    def __exit__(self, *exc: object) -> None:
        self.image.close()


def _what_it_is(path: Path) -> str:
    """Say what a file that is no image really is."""
    head = path.read_bytes()[:200] if path.stat().st_size else b""
    if not head:
        return "is an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the image itself"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "is an HTML page, not an image (a failed download?)"
    return "is not an image"


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield (type, checksum is right) of each complete chunk."""
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        end = position + 12 + length
        if end > len(data):
            return
        body = data[position + 4 : position + 8 + length]
        yield body[:4], zlib.crc32(body) == struct.unpack(">I", data[end - 4 : end])[0]
        if body[:4] == b"IEND":
            return
        position = end


def _png_bit_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]


def _check_png_complete(path: Path) -> None:
    """Refuse what Pillow decodes silently: a PNG whose end is cut off or whose checksum is wrong."""
    last = b""
    data = path.read_bytes()
    for kind, intact in _png_chunks(data):
        if not intact:
            raise DataError(path, f"PNG chunk {kind.decode('latin-1')} has a wrong checksum", "replace the file")
        last = kind
    if last != b"IEND":
        raise DataError(path, f"PNG is truncated after {len(data)} bytes (no end marker)", "replace the file")
