"""MATLAB v5 files that hold a map of ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.labelmap import RawIds


def read_mat(path: Path, field: str) -> Any:
    """One variable of a MATLAB v5 file. Raises DataError for another kind of file, or one without it."""
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            head = file.read(128)
        if head.startswith(b"MATLAB 7.3") or head[:8] == b"\x89HDF\r\n\x1a\n":
            raise DataError(path, "is a MATLAB v7.3 file; the published ones are v5", "save it with -v7")
        value = loadmat(path, variable_names=[field]).get(field)
    except FileNotFoundError:
        raise DataError(path, "no such file", "check the dataset") from None
    except DataError:
        raise
    except Exception as error:  # scipy's parser raises whatever a corrupt byte leads it to
        raise DataError(path, f"is not a readable MATLAB v5 file ({error})", "replace the file") from None
    if value is None:
        raise DataError(path, f"has no variable {field!r}", "use the original file")
    return value


def read_id_mat(path: Path, field: str) -> RawIds:
    """(H, W) ids 0..65535 that a MATLAB v5 file holds in one variable. Raises DataError as `read_mat` does."""
    values = read_mat(path, field)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif" or values.ndim != 2 or not values.size:
        raise DataError(path, f"{field!r} is no 2-d array of numbers", "use the original file")
    if not ((values >= 0) & (values <= 65535)).all() or (values % 1).any():
        raise DataError(path, f"{field!r} holds values that are no ids (0..65535)", "use the original file")
    return values.astype(np.uint8) if values.max() <= 255 else values.astype(np.uint16)
