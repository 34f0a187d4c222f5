"""Numbers that may be undefined: nan inside, None in JSON."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Matrix = NDArray[np.int64]
Values = NDArray[np.float64]


def none_if_nan(value: float) -> float | None:
    """JSON has no nan."""
    return None if np.isnan(value) else float(value)


def mean_of_defined(values: Values) -> float:
    """Mean of the values that are not nan; nan when all are."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def ratio(part: ArrayLike, whole: ArrayLike) -> Values:
    """part / whole in float64, nan where whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    result: Values = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=result, where=whole != 0)
    return result
