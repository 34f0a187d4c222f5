"""What a prediction is, and what writes one in some format: the seam between the predictor and its savers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import LabelArray

NEEDS = frozenset({"image", "confidence", "probabilities"})  # what is made only where a saver asks for it


@dataclass(frozen=True)
class Source:
    """One photo and the name its results get: a relative path without suffix, such as `street/0001`."""

    path: Path
    name: str


@dataclass(frozen=True)
class Prediction:
    """What a network says about one photo, at the photo's own size.

    Attributes:
        image: (H, W, 3) uint8 RGB, as stored.
        maps: one (H, W) label map for every level of the hierarchy, finest first.
        confidence: (H, W) float32, the probability of what is said on the finest level; None unless asked for.
        probabilities: (F, H, W) float16 over the finest classes; None unless asked for.
    """

    source: Source
    image: NDArray[np.uint8]
    hierarchy: Hierarchy
    maps: tuple[LabelArray, ...]
    confidence: NDArray[np.float32] | NDArray[np.float16] | None = None
    probabilities: NDArray[np.float16] | None = None


class Saver(ABC):
    """Writes predictions in one format: one file a photo, below OUT/`name`.

    Class attributes:
        name: as --save has it.
        needs: which of `NEEDS` it reads.
        suffix: of its files, such as `.jpg`.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    suffix: ClassVar[str]

    @abstractmethod
    def save(self, prediction: Prediction, path: Path) -> None:
        """Write one photo's file, atomically and with the same bytes for the same prediction."""

    def finish(self, out: Path) -> None:
        """Join the photos' files into one over all, where the format has one.

        Called when a run of predict ends, also a second time over the same files; of several shards the last one joins all.

        Args:
            out: the OUT of predict; the files that were saved lie in OUT/`name`.
        """
        return
