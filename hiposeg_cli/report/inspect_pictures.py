"""Small pictures for HTML pages: a photo, and label maps as transparent PNGs to lay over it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.hierarchy import ClassNode, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, count_ids, valid_pixels

LONG_SIDE_PX = 480
_MAX_COLOURS = 255
_CLEAR = 0  # palette index of ignore, and of classes beyond what a palette holds


@dataclass(frozen=True)
class Picture:
    """One sample as data URIs.

    Attributes:
        photo: JPEG.
        fine, coarse: PNGs that are transparent where nothing is labelled and on background.
        fine_classes, coarse_classes: classes of the whole image, largest first.
    """

    width: int
    height: int
    photo: str
    fine: str
    coarse: str
    fine_classes: tuple[ClassNode, ...]
    coarse_classes: tuple[ClassNode, ...]


def picture(image: NDArray[np.uint8], labels: TwoLevelMap, fine: Level, coarse: Level) -> Picture:
    """Shrink one sample to `LONG_SIDE_PX`; labels by nearest, so no class is invented.

    Args:
        image: (H, W, 3) uint8; `labels` of the same size.
    """
    size = small_size(labels.shape, LONG_SIDE_PX)
    return Picture(
        *size, photo_uri(image, size), tint(labels.fine, fine, size), tint(labels.coarse, coarse, size),
        _present(labels.fine, fine), _present(labels.coarse, coarse),
    )  # fmt: skip


def small_size(shape: tuple[int, int], long_side_px: int) -> tuple[int, int]:
    """(width, height) of an image of a (height, width), no side longer than that."""
    factor = min(1.0, long_side_px / max(shape))
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def photo_uri(image: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """A photo, (H, W, 3) uint8, as the data URI of a small JPEG of a (width, height)."""
    return data_uri(Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0), "JPEG", quality=82)


def nearest(labels: LabelArray, size: tuple[int, int]) -> LabelArray:
    """A label map at a (width, height), by nearest: no class is invented."""
    rows = (np.arange(size[1]) * labels.shape[0] // size[1]).astype(np.intp)
    columns = (np.arange(size[0]) * labels.shape[1] // size[0]).astype(np.intp)
    return labels[np.ix_(rows, columns)]


def tint(labels: LabelArray, level: Level, size: tuple[int, int]) -> str:
    """A label map in its classes' colours, as the data URI of a small PNG, clear on background and ignore."""
    small = nearest(labels, size)
    ids, pixels = np.unique(small[valid_pixels(small)], return_counts=True)
    shown = [int(k) for k in ids[np.argsort(-pixels, kind="stable")] if level.nodes[int(k)].kind != "background"]
    indices = np.full(small.shape, _CLEAR, np.uint8)
    palette = [0, 0, 0]
    for index, class_id in enumerate(shown[:_MAX_COLOURS], start=1):
        indices[small == class_id] = index
        palette += level.nodes[class_id].color
    image = Image.fromarray(indices)
    image.putpalette(palette)
    return data_uri(image, "PNG", transparency=_CLEAR, optimize=True)


def _present(labels: LabelArray, level: Level) -> tuple[ClassNode, ...]:
    counts = count_ids(labels, len(level))
    return tuple(level.nodes[int(k)] for k in np.argsort(-counts, kind="stable") if counts[k])


def data_uri(image: Image.Image, kind: str, **options: object) -> str:
    """A picture as a data URI; `options` are those of its format in Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
