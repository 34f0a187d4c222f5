"""`--save color`: label maps in the colours of the hierarchy, a PNG for every level."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from hiposeg_cli.exports.joint import voc_color
from hiposeg_cli.hierarchy import Level
from hiposeg_cli.infer.prediction import Prediction, Saver
from hiposeg_cli.infer.savers.levels import level_paths, remove_torn
from hiposeg_cli.labelmap import PNG_LEVEL, LabelArray, ignore_value, write_bytes_atomic

_VOID_INDEX = 255
_VOID_COLOR = voc_color(_VOID_INDEX)  # what PASCAL VOC paints pixels without a label with


class Color(Saver):
    """OUT/color/PHOTO.png of the finest level, OUT/color_LEVEL/PHOTO.png of those above.

    A level of up to 255 classes makes a palette PNG: it looks coloured, and its indices are the class ids, 255 for void.
    A larger one makes an RGB PNG, whose ids can be told only where no two classes share a colour.
    """

    name = "color"
    suffix = ".png"

    def save(self, prediction: Prediction, path: Path) -> None:
        maps = reversed(prediction.maps)
        for (level, target), labels in zip(level_paths(prediction, path), maps, strict=True):
            buffer = io.BytesIO()
            _picture(level, labels).save(buffer, "PNG", compress_level=PNG_LEVEL)
            write_bytes_atomic(target, buffer.getvalue())

    def finish(self, out: Path) -> None:
        remove_torn(out, self.name)


def _picture(level: Level, labels: LabelArray) -> Image.Image:
    if len(level) > _VOID_INDEX:
        table = np.full((ignore_value(labels.dtype) + 1, 3), _VOID_COLOR, dtype=np.uint8)
        table[: len(level)] = level.colors()
        return Image.fromarray(table[labels])
    picture = Image.fromarray(labels.astype(np.uint8, copy=False))  # of 16 bits, 65535 becomes 255
    unused = [_VOID_COLOR] * (_VOID_INDEX + 1 - len(level))  # all 256 entries, or Pillow would save fewer bits than 8
    picture.putpalette(bytes(value for color in (*(node.color for node in level.nodes), *unused) for value in color))
    return picture
