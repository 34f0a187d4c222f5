"""Image files: opened with a pixel limit, decoded to their end, and refused in words where anything is wrong.

Nothing here knows what pixels mean; label PNGs are `labelmap`'s business.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from hiposeg_cli.errors import DataError
from hiposeg_cli.raw_file import disguise, file_bytes

MAX_PIXELS = 100_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")  # others may start programs, or crash on damage
_ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class Photo:
    """What a photo that decoded to its end is: size in pixels, hash of the file, remarks in words."""

    height: int
    width: int
    sha256: str
    warnings: tuple[str, ...] = ()


def check_photo(path: Path) -> Photo:
    """Decode a photo to its end, reading its file once. Raises DataError as `read_rgb` does."""
    data = file_bytes(path)
    with opened(path, data) as image:
        _explain_png(path, data)
        decode(image, path, "image")
        if image.format in ("JPEG", "MPO") and not _jpeg_has_end(data):
            what = f"JPEG has no end marker after {len(data)} bytes; decoders make up what is missing"
            raise DataError(path, what, "replace the file")
        return Photo(image.height, image.width, hashlib.sha256(data).hexdigest(), _exif_remarks(image, path))


def _exif_remarks(image: ImageFile.ImageFile, path: Path) -> tuple[str, ...]:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError):  # broken EXIF is no broken picture
        return (f"{path.name}: EXIF data cannot be read; pixels are taken as stored",)
    if orientation in (0, 1):
        return ()
    return (f"{path.name}: EXIF orientation {orientation} is not applied; labels follow the stored pixels",)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a photo, as stored (EXIF rotation is not applied: labels follow the stored pixels).

    Raises: DataError for a missing, truncated, oversized or non-image file.
    """
    with opened(path, file_bytes(path)) as image:
        decode(image, path, "image")
        if image.mode in ("I;16", "I"):
            return np.repeat((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_rgb_png(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of an 8-bit RGB PNG whose colours are numbers: read exactly, or refused with a DataError."""
    data = file_bytes(path)
    with opened(path, data) as image:
        if image.format != "PNG":
            raise DataError(path, f"labels are {image.format}, which may alter ids", "use the original PNG")
        check_png_complete(path, data)
        decode(image, path, "label PNG")
        if image.mode != "RGB" or data[24] != 8:
            kind = f"{image.mode} picture of {data[24]} bits"
            raise DataError(path, f"is a {kind}, but these masks are RGB of 8 bits", "use the original file")
        return np.asarray(image)


@contextlib.contextmanager
def opened(path: Path, data: bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image lazily with a pixel limit and our own errors; nothing is decoded yet."""
    try:
        with warnings.catch_warnings():  # our own limit is checked below, from the header
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise DataError(path, f"has more than {MAX_PIXELS} pixels", "split it into tiles") from None
    except UnidentifiedImageError:
        _explain_png(path, data)
        raise DataError(path, disguise(data[:200]) or "is not an image", "replace the file") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        _explain_png(path, data)
        raise DataError(path, f"cannot be read as an image ({error})", "replace the file") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(path, f"has {image.width}x{image.height} pixels, over {MAX_PIXELS}", "split it into tiles")
        yield image


def decode(image: ImageFile.ImageFile, path: Path, what: str) -> None:
    """Decode an opened image to its end. Raises DataError, calling it `what`."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise DataError(path, f"{what} is broken ({error})", "replace the file") from None


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


def _explain_png(path: Path, data: bytes) -> None:
    """Say where a PNG is broken, which Pillow does not."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        check_png_complete(path, data)


def check_png_complete(path: Path, data: bytes) -> None:
    """Refuse what Pillow decodes silently: a PNG whose end is cut off or whose checksum is wrong."""
    last = b""
    for kind, intact in _png_chunks(data):
        if not intact:
            raise DataError(path, f"PNG chunk {kind.decode('latin-1')} has a wrong checksum", "replace the file")
        last = kind
    if last != b"IEND":
        raise DataError(path, f"PNG is truncated after {len(data)} bytes (no end marker)", "replace the file")


def _jpeg_has_end(data: bytes) -> bool:
    """Whether a JPEG has an end marker after its picture data; a thumbnail's own does not count."""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 2 <= len(data):
        kind = data[position + 1]
        if kind == 0xDA:  # the picture begins: from here on a marker's 0xff cannot be data
            return data.find(b"\xff\xd9", position) >= 0
        if kind == 0xFF:  # padding
            position += 1
        elif kind == 0x01 or 0xD0 <= kind <= 0xD7:  # a marker without data
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False
