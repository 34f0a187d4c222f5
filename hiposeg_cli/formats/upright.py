"""Photos that are stored turned: annotation tools that show them upright write labels that do not fit the stored pixels."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import ExifTags

from hiposeg_cli.errors import DataError
from hiposeg_cli.image_file import image_header

_QUARTER_TURNS = range(5, 9)  # EXIF orientations that swap width and height


def require_upright(path: Path, tool: str, recorded: tuple[int, int] | None = None) -> None:
    """Refuse a photo whose EXIF orientation the tool has applied while it was annotated.

    Args:
        path: a photo known to decode.
        tool: what the user annotated with, for the message.
        recorded: (height, width) the annotations state; where they show that nothing was turned, the photo passes.
    """
    try:
        with image_header(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            stored = (image.height, image.width)
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError):  # broken EXIF: no tool can apply it
        return
    if orientation not in range(2, 9):
        return
    if orientation in _QUARTER_TURNS and recorded == stored and stored[0] != stored[1]:
        return
    raise DataError(
        path, f"has EXIF orientation {orientation}, which {tool} applies: its labels do not fit the stored pixels",
        "store the photo upright (`exiftran -ai FILE`, or open and save it), and prepare again",
    )  # fmt: skip
