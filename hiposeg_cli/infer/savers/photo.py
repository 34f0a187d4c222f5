"""How a photo is called in the files of other tools."""

from __future__ import annotations

import os
import struct
from pathlib import Path, PurePosixPath

from PIL import ExifTags

from hiposeg_cli.image_file import image_header
from hiposeg_cli.infer.prediction import Source
from hiposeg_cli.labelmap import LabelArray


def photo_name(source: Source) -> str:
    """The name of the results with the photo's suffix, such as `street/0001.jpg`; a video's frames have none."""
    is_file = PurePosixPath(source.name).name == source.path.stem
    return as_text(source.name + source.path.suffix if is_file else source.name)


def photo_path(source: Source, folder: Path) -> str:
    """The photo's path seen from a folder, with `/`. Folders that are links are followed; a photo that is one is not."""
    photo = source.path.parent.resolve() / source.path.name
    return as_text(Path(os.path.relpath(photo, folder.resolve())).as_posix())


def as_text(name: str) -> str:
    """A file's name that UTF-8 can hold: bytes that are no text become U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def exif_orientation(path: Path) -> int:
    """1 to 8 as EXIF has it; 1, upright, where a file says nothing that could be read."""
    try:
        with image_header(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError):
        return 1
    return orientation if orientation in range(1, 9) else 1


def turned(labels: LabelArray, orientation: int) -> LabelArray:
    """A map of the stored pixels as tools show the photo that apply its EXIF orientation."""
    if orientation in (3, 4, 6, 7):
        labels = labels[::-1]
    if orientation in (2, 3, 7, 8):
        labels = labels[:, ::-1]
    return labels if orientation < 5 else labels.T
