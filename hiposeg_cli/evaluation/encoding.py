"""Official ids -> those of the hierarchy, where nothing is asked about them but that all are known.

`LookUp.encode` counts classes on its way, which `prepare` needs and scoring does not: 8-bit maps go through a table of all
256 ids here, in which unknown ones get a value that no class has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hiposeg_cli.labelmap import LabelArray, TwoLevelMap
from hiposeg_cli.lookup import LookUp

_UNKNOWN = 254  # no id of an 8-bit label map, see `labelmap.label_dtype`


def encode(lookup: LookUp, ids: NDArray[np.integer], where: object) -> TwoLevelMap:
    """What `LookUp.encode` gives. Raises DataError naming the unknown ids."""
    fine = _applied(lookup, lookup.fine, ids)
    if fine is None:
        return lookup.encode(ids, where)
    coarse = _applied(lookup, lookup.coarse, ids)
    assert coarse is not None, "the same ids are known on both levels"
    return TwoLevelMap(fine, coarse)


def encode_fine(lookup: LookUp, ids: NDArray[np.integer], where: object) -> LabelArray:
    """Its map of the finest level alone."""
    fine = _applied(lookup, lookup.fine, ids)
    return lookup.encode(ids, where).fine if fine is None else fine


def _applied(lookup: LookUp, labels: LabelArray, ids: NDArray[np.integer]) -> LabelArray | None:
    """(H, W) uint8 classes of 8-bit ids; None where this is not the way, or an id is unknown.

    Pillow needs no index of 8 bytes for every pixel, as numpy does.
    """
    if not ids.dtype == lookup.fine.dtype == lookup.coarse.dtype == np.uint8:
        return None
    slots = np.arange(256) - lookup.offset
    inside = (slots >= 0) & (slots < len(lookup.known))
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[inside] = np.where(lookup.known, labels, _UNKNOWN)[slots[inside]]
    height, width = ids.shape
    image = Image.frombuffer("L", (width, height), np.ascontiguousarray(ids), "raw", "L", 0, 1)
    result: NDArray[np.uint8] = np.asarray(image.point(table.tolist()))
    return None if result.tobytes().find(bytes([_UNKNOWN])) >= 0 else result
