"""Photos of an export: copied, linked or re-encoded, always with the pixels the labels belong to.

Labels follow the stored pixels of a photo. Most tools turn a photo by its EXIF orientation when they read it, and its
labels then no longer fit; so an orientation other than upright is taken out of what is written.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from pathlib import Path

from PIL import ExifTags, Image

from hiposeg_cli.errors import DataError, OutputError
from hiposeg_cli.image_file import image_header
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.store import Dataset, Row, sha256_file

_PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_PNG_META = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


def photo_suffix(row: Row) -> str:
    """The photo's file ending in lower case, `.jpeg` written `.jpg`."""
    suffix = Path(row.image_path).suffix.lower()
    return ".jpg" if suffix == ".jpeg" else suffix


def photo_path(dataset: Dataset, row: Row) -> Path:
    """The photo of a row. Raises DataError when it is missing."""
    path = dataset.images_root / row.image_path
    if not path.is_file():
        raise DataError(
            path, "photo of the prepared dataset is missing",
            f"put the raw data back, or set `images_root` in {dataset.root / 'dataset.json'}",
        )  # fmt: skip
    return path


def photo_bytes(dataset: Dataset, row: Row) -> bytes:
    """The photo's file, unturned. Raises DataError when it is missing or not the one that was prepared."""
    path = photo_path(dataset, row)
    data = path.read_bytes()
    _require_prepared(path, hashlib.sha256(data).hexdigest(), row)
    return without_orientation(data, path) if _is_turned(data, path) else data


def place_photo(dataset: Dataset, row: Row, target: Path, mode: str) -> None:
    """Put a row's photo at `target`.

    Args:
        mode: copy, hardlink or link. A photo with an orientation is always written anew, without it.
    """
    path = photo_path(dataset, row)
    if mode == "copy":
        write_bytes_atomic(target, photo_bytes(dataset, row))
        return
    _require_prepared(path, sha256_file(path), row)
    if _is_turned(path, path):
        write_bytes_atomic(target, photo_bytes(dataset, row))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if mode == "hardlink":
            os.link(path.resolve(), target)
        else:
            target.symlink_to(path.resolve())
    except OSError as error:
        raise OutputError(target, f"cannot be a {mode} to {path} ({error.strerror})", "pass --images copy") from None


def place_png(dataset: Dataset, row: Row, target: Path) -> None:
    """Write the photo's pixels as an 8-bit RGB PNG, without loss."""
    path = photo_path(dataset, row)
    _require_prepared(path, sha256_file(path), row)
    buffer = io.BytesIO()
    Image.fromarray(dataset.image(row)).save(buffer, "PNG", compress_level=3)
    write_bytes_atomic(target, buffer.getvalue())


def _require_prepared(path: Path, sha256: str, row: Row) -> None:
    if sha256 != row.image_sha256:
        raise DataError(path, "differs from the photo that was prepared", "put it back, or prepare the data again")


def _is_turned(source: Path | bytes, where: Path) -> bool:
    """Whether a photo asks to be rotated or mirrored when it is shown."""
    try:
        image = image_header(source)
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(where, f"cannot be read as an image ({error})", "replace the file") from None
    with image:
        try:
            return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        except (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError):
            return False  # EXIF data that nobody can read turns nothing


def without_orientation(data: bytes, where: Path) -> bytes:
    """The same JPEG or PNG without the metadata an orientation is read from; the coded pixels stay as they are.

    Raises: DataError for any other kind of file.
    """
    if data[:2] == b"\xff\xd8":
        plain = _jpeg_without_app1(data)
    elif data.startswith(_PNG_HEAD):
        plain = _png_without_metadata(data)
    else:
        raise DataError(
            where, "has an EXIF orientation, by which other tools would turn it away from its labels",
            "save it upright, or without the tag, as JPEG or PNG, and prepare again",
        )  # fmt: skip
    assert not _is_turned(plain, where)
    return plain


def _jpeg_without_app1(data: bytes) -> bytes:
    """Drop the APP1 segments (EXIF and XMP) before the first scan."""
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # fill byte before a marker
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] != 0xE1:
            kept.append(data[position:end])
        position = end
    return b"".join((*kept, data[position:]))


def _png_without_metadata(data: bytes) -> bytes:
    kept, position = [_PNG_HEAD], len(_PNG_HEAD)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] not in _PNG_META:
            kept.append(data[position:end])
        position = end
    return b"".join(kept)
