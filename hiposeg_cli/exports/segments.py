"""Segments of an image: their boxes, areas and run lengths, all found in one pass over the map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pycocotools.mask as coco_mask
from numpy.typing import NDArray

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Segment:
    """One region of an image.

    Attributes:
        value: what its pixels hold in the map.
        box: x, y, width, height in pixels.
        rle: COCO's compressed run lengths, column by column.
    """

    value: int
    area: int
    box: Box
    rle: str


def segments_of(segments: NDArray[np.int64]) -> Iterator[Segment]:
    """Every value of a map but the negative ones, in ascending order.

    Args:
        segments: (H, W) int64.
    """
    height, width = segments.shape
    size = height * width
    columns = segments.ravel(order="F")
    starts = np.concatenate(([0], np.flatnonzero(columns[1:] != columns[:-1]) + 1)).astype(np.int64)
    ends = np.concatenate((starts[1:], [size]))
    values = columns[starts]
    order = np.argsort(values, kind="stable")
    firsts = np.flatnonzero(np.concatenate(([True], np.diff(values[order]) != 0)))
    for runs in np.split(order, firsts[1:]):
        value = int(values[runs[0]])
        if value >= 0:
            yield _segment(value, starts[runs], ends[runs], height, width)


def _segment(value: int, starts: NDArray[np.int64], ends: NDArray[np.int64], height: int, width: int) -> Segment:
    bounds = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(np.concatenate(([0], bounds, [height * width] if bounds[-1] < height * width else [])))
    coded = coco_mask.frPyObjects({"counts": counts.astype(np.int64).tolist(), "size": [height, width]}, height, width)
    last = ends - 1
    within = starts // height == last // height  # a run over several columns touches both borders of the image
    top = int((starts % height).min()) if within.all() else 0
    bottom = int((last % height).max()) if within.all() else height - 1
    left, right = int(starts[0]) // height, int(last[-1]) // height
    box = (left, top, right - left + 1, bottom - top + 1)
    return Segment(value, int((ends - starts).sum()), box, coded["counts"].decode("ascii"))
