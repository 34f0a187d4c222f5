"""Rare-class sampling: which training images are drawn, so that classes of few pixels are seen more often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.learn.label_check import class_pixels
from hiposeg_cli.store import Row

MIN_SHARE = 3000 / (2048 * 1024)  # DAFormer's 3000 pixels, as a share of its source images


@dataclass(frozen=True)
class RareClasses:
    """A class is drawn first, then one of the images that show it (DAFormer, Hoyer et al., CVPR 2022, eq. 8 and 9).

    P(c) is proportional to exp((1 - f_c) / T), where f_c is the share of class c among the labelled pixels of the split.
    An image shows a class from `MIN_SHARE` of its pixels on; a class that no image shows so well counts wherever it
    occurs. The paper also repeats a crop until it holds enough of the class; crops here stay random. Images that have
    coarse labels only are no class's, and are drawn at their share of the labelled images.

    Attributes:
        probabilities: (K,) float64 for the classes that occur; one more for images with coarse labels only, if there are.
        images: for each of them, the positions of the rows that show it.
    """

    probabilities: NDArray[np.float64]
    images: tuple[NDArray[np.int64], ...]

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        """Positions of `count` rows, with replacement."""
        classes = rng.choice(len(self.images), size=count, p=self.probabilities)
        return [int(rng.choice(self.images[chosen])) for chosen in classes]


def rare_classes(rows: tuple[Row, ...], needs: frozenset[str], temperature: float) -> RareClasses:
    """Sampling over the classes that occur in some rows; at least one must.

    Args:
        needs: levels that a method learns from; classes are those of the finest.
        temperature: T; 0.01 in the paper. The lower, the more of the rarest; the higher, the more even over the classes.
    """
    kind = "fine" if "fine" in needs else "coarse"
    pixels = {class_id: n_pixels for class_id, n_pixels in class_pixels(rows, kind).items() if n_pixels > 0}
    assert pixels, "labels are checked first"
    counts = np.array(list(pixels.values()), dtype=np.float64)
    exponents = (1 - counts / counts.sum()) / temperature
    weights = np.exp(exponents - exponents.max())
    probabilities = weights / weights.sum()
    shown: dict[str, list[int]] = {class_id: [] for class_id in pixels}
    barely: dict[str, list[int]] = {class_id: [] for class_id in pixels}
    for position, row in enumerate(rows):
        for class_id, n_pixels in (row.fine_counts if kind == "fine" else row.coarse_counts).items():
            if n_pixels > 0:
                enough = n_pixels >= MIN_SHARE * row.width * row.height
                (shown if enough else barely)[class_id].append(position)
    images = [np.array(shown[class_id] or barely[class_id]) for class_id in pixels]
    if needs == {"fine", "coarse"} and (above := _coarse_only(rows)):
        share = len(above) / sum(any(row.coarse_counts.values()) for row in rows)
        probabilities = np.append((1 - share) * probabilities, share)
        images.append(np.array(above))
    return RareClasses(probabilities, tuple(images))


def _coarse_only(rows: tuple[Row, ...]) -> list[int]:
    """Positions of the rows that have coarse labels and no fine one."""
    return [
        position for position, row in enumerate(rows)
        if any(row.coarse_counts.values()) and not any(row.fine_counts.values())
    ]  # fmt: skip
