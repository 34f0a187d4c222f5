"""Instance-level IoU of Cityscapes: every true instance weighs alike, whatever its size.

    iIoU = iTP / (iTP + FP + iFN)

An instance's TP and FN pixels are weighted by average size of its class / its size; FP are the plain ones. On a level above,
a pixel is right when it is predicted as any class below the true one's ancestor. Classes that are not evaluated are void: a
car predicted as a caravan is a vehicle to the official script, and a miss here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, ignore_value
from hiposeg_cli.metrics.confusion import Confusion, class_counts
from hiposeg_cli.metrics.values import Matrix, Values, mean_of_defined, none_if_nan, ratio

# Average instance sizes of the training set, from cityscapesScripts' evalPixelLevelSemanticLabeling.
CITYSCAPES_AVERAGE_PX = {
    "bicycle": 4672.3249222261, "motorcycle": 6298.7200839748, "rider": 3930.4788056518, "bus": 35732.1511111111,
    "train": 67583.7075812274, "car": 12794.0202738185, "person": 3462.4756337644, "truck": 27855.1264367816,
}  # fmt: skip


class InstanceIoU:
    """One record for each true instance of a class with an average size, by image.

    A record is (2 + L,) int64: fine class, pixels, and pixels predicted right on each level.
    """

    def __init__(self, hierarchy: Hierarchy, average_px: Mapping[str, float] = CITYSCAPES_AVERAGE_PX) -> None:
        self.hierarchy = hierarchy
        self.average_px: Values = np.array([average_px.get(name, np.nan) for name in hierarchy.fine.names])
        self._records: dict[str, Matrix] = {}

    def add(self, key: str, truth: TwoLevelMap, numbers: NDArray[Any], predicted_fine: LabelArray) -> None:
        """Count one image.

        Args:
            numbers: (H, W) integer, the instance of each pixel in its class, 0 for none.
        Raises: DataError when sizes differ.
        """
        assert key not in self._records, f"{key} twice"
        for name, shape in (("instance map", numbers.shape), ("prediction", predicted_fine.shape)):
            if shape != truth.shape:
                raise DataError(key, f"{name} is {shape}, truth is {truth.shape}", "use the original size")
        sized = np.zeros(ignore_value(truth.fine.dtype) + 1, dtype=np.bool_)
        sized[: self.hierarchy.n_fine] = ~np.isnan(self.average_px)
        chosen = (numbers > 0) & sized[truth.fine]
        true, said = truth.fine[chosen].astype(np.int64), predicted_fine[chosen]
        pairs = (true << 32) + numbers[chosen].astype(np.int64)
        instances, place = np.unique(pairs, return_inverse=True)
        columns = [instances >> 32, np.bincount(place, minlength=len(instances))]
        for depth in range(len(self.hierarchy.levels)):
            family = np.full(ignore_value(said.dtype) + 1, -1, dtype=np.int64)
            family[: self.hierarchy.n_fine] = self.hierarchy.ancestors(depth)
            right = family[said] == self.hierarchy.ancestors(depth)[true]
            columns.append(np.bincount(place[right], minlength=len(instances)))
        self._records[key] = np.stack(columns, axis=1).astype(np.int64)

    def merge(self, other: InstanceIoU) -> None:
        """Add another process's images."""
        assert not self._records.keys() & other._records.keys(), "an image twice"
        self._records |= other._records

    def scores(self, confusion: Confusion, depth: int) -> Values:
        """(K,) iIoU of a level; nan for classes with a leaf without an average size, and for absent ones.

        Args:
            confusion: of the same images, for the false positives.
        """
        family, n = self.hierarchy.ancestors(depth), len(self.hierarchy.levels[depth])
        empty = np.zeros((0, 2 + len(self.hierarchy.levels)), dtype=np.int64)
        records = np.concatenate([empty, *(self._records[key] for key in sorted(self._records))])
        fine, pixels, right = records[:, 0], records[:, 1], records[:, 2 + depth]
        weight = self.average_px[fine] / pixels
        hits = np.bincount(family[fine], weights=right * weight, minlength=n)  # adds one by one, as the official script
        misses = np.bincount(family[fine], weights=(pixels - right) * weight, minlength=n)
        scores = ratio(hits, hits + class_counts(confusion.matrix(depth))[1] + misses)
        scores[family[np.isnan(self.average_px)]] = np.nan
        return scores

    def summary(self, confusion: Confusion) -> dict[str, Any]:
        """Plain values for JSON, by level: only classes that have an iIoU."""
        result = {}
        for depth, level in enumerate(self.hierarchy.levels):
            scores = self.scores(confusion, depth)
            classes = {name: float(value) for name, value in zip(level.names, scores, strict=True) if not np.isnan(value)}
            result[level.name] = {"iiou": none_if_nan(mean_of_defined(scores)), "classes": classes}
        return result
