"""Official ids -> those of the hierarchy, where nothing is asked about them but that all are known.

`LookUp.encode` counts classes on its way, which `prepare` needs and scoring does not: 8-bit maps go through a table of all
256 ids here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, histogram, ignore_value
from hiposeg_cli.lookup import LookUp


def encode(lookup: LookUp, ids: NDArray[np.integer], where: object) -> TwoLevelMap:
    """What `LookUp.encode` gives. Raises DataError naming the unknown ids."""
    if (slots := _known_slots(lookup, ids)) is None:
        return lookup.encode(ids, where)
    return TwoLevelMap(_applied(lookup.fine, slots, ids), _applied(lookup.coarse, slots, ids))


def encode_fine(lookup: LookUp, ids: NDArray[np.integer], where: object) -> LabelArray:
    """Its map of the finest level alone."""
    slots = _known_slots(lookup, ids)
    return lookup.encode(ids, where).fine if slots is None else _applied(lookup.fine, slots, ids)


def _known_slots(lookup: LookUp, ids: NDArray[np.integer]) -> NDArray[np.int64] | None:
    """(256,) place of each 8-bit id in the tables, -1 for those that do not occur; None where this is not the way."""
    if not ids.dtype == lookup.fine.dtype == lookup.coarse.dtype == np.uint8:
        return None
    found = np.flatnonzero(histogram(ids.astype(np.uint8, copy=False)))
    slots = np.full(256, -1, dtype=np.int64)
    slots[found] = found - lookup.offset
    known = (slots[found] < len(lookup.known)) & lookup.known[slots[found].clip(max=len(lookup.known) - 1)]
    return slots if bool(known.all()) else None


def _applied(labels: LabelArray, slots: NDArray[np.int64], ids: NDArray[np.integer]) -> LabelArray:
    """(H, W) uint8 classes of 8-bit ids. Pillow needs no index of 8 bytes for every pixel, as numpy does."""
    table = np.where(slots >= 0, labels[slots], ignore_value(np.uint8))
    height, width = ids.shape
    image = Image.frombuffer("L", (width, height), np.ascontiguousarray(ids), "raw", "L", 0, 1)
    result: NDArray[np.uint8] = np.asarray(image.point(table.tolist()))
    return result
