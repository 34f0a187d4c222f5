"""PNGs whose colours are numbers: read exactly, refused where anything may have altered them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.labelmap import _bytes_of, _check_png_complete, _decode, _opened


def read_rgb_png(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of an 8-bit RGB PNG. Raises DataError for any other picture, and for a broken or truncated one."""
    data = _bytes_of(path)
    with _opened(path, data) as image:
        if image.format != "PNG":
            raise DataError(path, f"labels are {image.format}, which may alter ids", "use the original PNG")
        _check_png_complete(path, data)
        _decode(image, path, "label PNG")
        if image.mode != "RGB" or data[24] != 8:
            kind = f"{image.mode} picture of {data[24]} bits"
            raise DataError(path, f"is a {kind}, but these masks are RGB of 8 bits", "use the original file")
        return np.asarray(image)
