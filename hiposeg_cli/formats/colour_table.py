"""Label PNGs coded by colour, where the hierarchy's source lists every colour: `map: {"#ff0000": wheel}`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.image_file import decode, opened_png

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


def is_colour(key: object) -> bool:
    """Whether a key of a map is a colour such as `#ff8000`."""
    return isinstance(key, str) and _COLOUR.fullmatch(key) is not None


class ColourTable:
    """Colours -> raw ids: the place of each in the map, from 0.

    Raises: ConfigError for a key that is no colour, or a colour written twice.
    """

    def __init__(self, keys: Iterable[object], where: object) -> None:
        self.codes: list[int] = []
        for key in keys:
            if not is_colour(key):
                cure = 'use colours ("#ff0000") for all keys, or ids for all'
                raise ConfigError(where, f"the map's key {key!r} is no colour, but others are", cure)
            code = int(str(key)[1:], 16)
            if code in self.codes:
                raise ConfigError(where, f"the map has the colour {str(key).lower()} twice", "keep one")
            self.codes.append(code)
        order = np.argsort(self.codes)
        self._sorted, self._ids = np.array(self.codes)[order], order.astype(np.int32)

    def decode(self, path: Path, *, ignore_unknown: bool) -> NDArray[np.int32]:
        """(H, W) raw ids of a picture; unknown colours become the first id without a target where they are ignored.

        Raises: DataError listing the colours the map does not know, with their pixels.
        """
        pixels = read_colours(path).astype(np.int32)
        codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
        slots = np.searchsorted(self._sorted, codes).clip(max=len(self._sorted) - 1)
        unknown = self._sorted[slots] != codes
        if unknown.any() and not ignore_unknown:
            found, counts = np.unique(codes[unknown], return_counts=True)
            order = np.argsort(-counts, kind="stable")[:5]
            listed = ", ".join(f"#{found[place]:06x} ({counts[place]} px)" for place in order)
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            cure = "map them, or pass --unknown ignore; many rare ones mean that the picture was smoothed or resized"
            raise DataError(path, f"colours unknown to the hierarchy: {listed}{more}", cure)
        ids: NDArray[np.int32] = self._ids[slots]
        ids[unknown] = len(self.codes)
        return ids


def read_colours(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a PNG, palette colours looked up.

    Raises: DataError for any other picture, for transparency, and for a broken or truncated file.
    """
    with opened_png(path) as (image, depth):
        if image.mode not in ("RGB", "RGBA", "P"):
            cure = "use the coloured files, or map ids"
            raise DataError(path, f"is a {image.mode} picture, but the map lists colours", cure)
        if image.mode != "P" and depth != 8:
            raise DataError(path, f"has {depth} bits a colour, which are cut to 8", "save it with 8 bits")
        decode(image, path, "label PNG")
        if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
            raise DataError(path, "is transparent in places, so its colours are not certain", "save it without transparency")
        return np.asarray(image.convert("RGB"))
