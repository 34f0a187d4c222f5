"""Image files: opened with a pixel limit, decoded to their end, and refused in words where anything is wrong.

Nothing here knows what pixels mean; label PNGs are `labelmap`'s business.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from hiposeg_cli.errors import DataError
from hiposeg_cli.raw_file import disguise, file_bytes
from hiposeg_cli.remarks import remark

MAX_PIXELS = 100_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")  # others may start programs, or crash on damage
_BAND_PX = 16_000_000
_ORIENTATION = 0x0112  # the EXIF tag
_limit: ContextVar[int | None] = ContextVar("pixel limit", default=None)
_pillows_limit = threading.Lock()
_BROKEN = (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError)  # what Pillow raises for odd headers
_IN_PLACE = {"L": np.uint8, "P": np.uint8, "I;16": np.uint16}  # modes whose pixels Pillow stores one after the other


@dataclass(frozen=True)
class Photo:
    """What a photo that decoded to its end is: size in pixels, hash of the file."""

    height: int
    width: int
    sha256: str


def check_photo(path: Path) -> Photo:
    """Decode a photo to its end, reading its file once; raises DataError as `read_rgb` does.

    Remarks on EXIF data and on further pictures in the file.
    """
    data = file_bytes(path)
    with opened(path, data) as image:
        _explain_png(path, data)
        decode(image, path, "image")
        if image.format in ("JPEG", "MPO") and not _jpeg_has_end(data):
            what = f"JPEG has no end marker after {len(data)} bytes; decoders make up what is missing"
            raise DataError(path, what, "replace the file")
        _remark_on(image, path)
        return Photo(image.height, image.width, hashlib.sha256(data).hexdigest())


def _remark_on(image: ImageFile.ImageFile, path: Path) -> None:
    """Remark on what a user may not expect of the pixels that are taken."""
    with contextlib.suppress(*_BROKEN):
        if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO photo carries its own previews
            remark(path, "holds several pictures; the first is taken")
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:  # broken EXIF is no broken picture
        remark(path, "EXIF data cannot be read; pixels are taken as stored")
        return
    if orientation not in (0, 1):
        remark(path, f"EXIF orientation {orientation} is not applied; labels follow the stored pixels")


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a photo, as stored (EXIF rotation is not applied: labels follow the stored pixels).

    Raises: DataError for a missing, truncated, oversized or non-image file.
    """
    with opened(path, file_bytes(path)) as image:
        return _decoded_rgb(image, path)


def read_hashed_rgb(path: Path) -> tuple[NDArray[np.uint8], str]:
    """The pixels of `read_rgb` and the sha256 of the file, which is read once; remarks are those of `check_photo`."""
    data = file_bytes(path)
    with opened(path, data) as image:
        _remark_on(image, path)
        return _decoded_rgb(image, path), hashlib.sha256(data).hexdigest()


def _decoded_rgb(image: ImageFile.ImageFile, path: Path) -> NDArray[np.uint8]:
    decode(image, path, "image")
    if image.mode in ("I;16", "I", "F"):
        return _from_deep_grey(np.asarray(image), path)
    if image.width * image.height <= _BAND_PX:
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    pixels, rows = np.empty((image.height, image.width, 3), np.uint8), max(1, _BAND_PX // image.width)
    for top in range(0, image.height, rows):  # at once, Pillow would hold a large picture three times over
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(band if band.mode == "RGB" else band.convert("RGB"))
    return pixels


def _from_deep_grey(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of (H, W) grey of 16 bits, which may come in a wider type. Raises DataError for any other range."""
    if values.dtype.kind == "f":
        raise DataError(path, "holds floating-point numbers, whose black and white it does not say", "save it with 8 bits")
    if values.size and (values.min() < 0 or values.max() > np.iinfo(np.uint16).max):
        raise DataError(path, "holds grey values beyond 16 bits", "save it with 8 or 16 bits")
    return np.repeat((values.astype(np.int64) >> 8).astype(np.uint8)[..., None], 3, axis=2)


def read_rgb_png(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of an 8-bit RGB PNG whose colours are numbers: read exactly, or refused with a DataError."""
    with opened_png(path) as (image, depth):
        if image.mode != "RGB" or depth != 8:
            kind = f"{image.mode} picture of {depth} bits"
            raise DataError(path, f"is a {kind}, but these masks are RGB of 8 bits", "use the original file")
        decode(image, path, "label PNG")
        return np.asarray(image)


@contextlib.contextmanager
def opened_png(path: Path) -> Iterator[tuple[ImageFile.ImageFile, int]]:
    """Open a label PNG whose chunks are intact to the end mark; gives it, not decoded yet, and its bits a channel."""
    data = file_bytes(path)
    with opened(path, data) as image:
        if image.format != "PNG":
            raise DataError(path, f"labels are {image.format}, which may alter ids and colours", "save labels as PNG")
        check_png_complete(path, data)
        yield image, data[24]


@contextlib.contextmanager
def pixel_limit(most: int | None) -> Iterator[None]:
    """Let images opened in this block have at most so many pixels, as asked with --max-pixels; None is `MAX_PIXELS`."""
    token = _limit.set(most)
    try:
        yield
    finally:
        _limit.reset(token)


@contextlib.contextmanager
def opened(path: Path, data: bytes) -> Iterator[ImageFile.ImageFile]:
    """Open an image lazily with a pixel limit and our own errors; nothing is decoded yet."""
    try:
        image = image_header(data)
    except UnidentifiedImageError:
        _explain_png(path, data)
        raise DataError(path, disguise(data[:200]) or "is not an image", "replace the file") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        _explain_png(path, data)
        raise DataError(path, f"cannot be read as an image ({error})", "replace the file") from None
    with image:
        given, n_pixels = _limit.get(), image.width * image.height
        most = MAX_PIXELS if given is None else given
        if n_pixels > most:
            cure = "split it into tiles" + ("" if given is None else ", or raise --max-pixels")
            raise DataError(path, f"has {image.width}x{image.height} = {n_pixels} pixels, over {most}", cure)
        yield image


def image_header(source: Path | bytes, formats: Sequence[str] = _FORMATS) -> ImageFile.ImageFile:
    """Read the header of an image of any size, for what has been checked before or is not decoded; errors are Pillow's."""
    with _pillows_limit:  # Pillow's own limit is one for the whole process
        kept, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=tuple(formats))
        finally:
            Image.MAX_IMAGE_PIXELS = kept


def decode(image: ImageFile.ImageFile, path: Path, what: str) -> None:
    """Decode an opened image to its end. Raises DataError, calling it `what`."""
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise DataError(path, f"{what} is broken ({error})", "replace the file") from None


def decoded_ids(image: ImageFile.ImageFile, path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode an opened label PNG of mode L, P or I;16 into (H, W) integers.

    Pillow is made to decode into our array: a copy of its own takes half as long again as the decoding.
    """
    ids = np.zeros((image.height, image.width), _IN_PLACE[image.mode])
    plane = Image.frombuffer(image.mode, image.size, ids, "raw", image.mode, 0, 1).im
    image.im = plane
    decode(image, path, "label PNG")
    return ids if image.im is plane else np.asarray(image)


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
