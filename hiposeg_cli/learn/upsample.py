"""Class scores from the network's grid to a photo's pixels, and the best class of each.

`best_ids` gives the ids that interpolating all classes and then taking `argmax` gives, ties and all, in a fraction of
the time and without the interpolated scores of all classes in memory. Interpolation never mixes classes: some of them get
the same bits as all.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hiposeg_cli.labelmap import LabelArray, label_dtype
from hiposeg_cli.learn.batch import Output

# Torch has kernels of their own, which round otherwise, for small maps and for so many planes at once.
_SMALL_PX = 256  # height and width together
_SPECIAL_PLANES = 3
_PLANES_BYTES = 16 << 20  # interpolated at once: so much is kept by the allocator for the next classes
_SLAB_PX = 1 << 16  # compared at once: fits into a core's cache


@dataclass(frozen=True)
class Scores:
    """What a network says about one photo, brought to the photo's size when asked for.

    Attributes:
        logits: (F, h, w) leaf scores on the grid of the padded picture that the network saw.
        padded_size, seen_size: (height, width) of that picture with its padding and without.
        size: (H, W) of the photo.
    """

    logits: Tensor
    padded_size: tuple[int, int]
    seen_size: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, output: Output, index: int, size: tuple[int, int]) -> Scores:
        """The scores of one image of a batch."""
        return cls(output.logits[index], output.padded_size, output.size, size)

    @classmethod
    def at_size(cls, logits: Tensor) -> Scores:
        """Scores (F, H, W) that are at the photo's size already."""
        size = int(logits.shape[1]), int(logits.shape[2])
        return cls(logits, size, size, size)

    def full(self) -> Tensor:
        """(F, H, W) float32: bilinear without aligned corners, first to the picture the network saw, then to the photo."""
        return self._upsampled(self.logits.contiguous())

    def best_ids(self) -> LabelArray:
        """(H, W) ids of the best class, the first of equals: what `full().argmax(0)` gives, bit for bit."""
        n_classes, (H, W) = self.logits.shape[0], self.size
        dtype = label_dtype(n_classes)
        if self._is_simple():
            best = self.full().argmax(dim=0)  # narrowed before it travels
            return best.to(torch.uint8).cpu().numpy() if dtype == np.uint8 else best.int().cpu().numpy().astype(np.uint16)
        logits = self.logits.contiguous()
        race, n_threads = _Race(H, W, dtype), torch.get_num_threads()
        parts = np.array_split(np.arange(H), min(n_threads, H))
        running: list[Future[None]] = []
        with ThreadPoolExecutor(n_threads) as pool:
            for first, last in _groups(n_classes, H * W):  # some classes are compared while the next are interpolated
                planes = self._upsampled(logits[first:last]).numpy()
                wait(running)
                running = [pool.submit(race.enter, planes, first, slice(rows[0], rows[-1] + 1)) for rows in parts]
        for future in running:
            future.result()
        return race.ids

    def _upsampled(self, logits: Tensor) -> Tensor:
        H, W = self.seen_size
        full = _resized(logits[None].float(), self.padded_size)[..., :H, :W]
        return _resized(full, self.size)[0]

    def _is_simple(self) -> bool:
        """Whether `argmax` over all classes is the way: on a GPU, for small maps, and where it alone knows what a NaN is."""
        small = min(sum(self.size), sum(self.seen_size), sum(self.padded_size)) < _SMALL_PX
        special = small or self.logits.shape[0] == _SPECIAL_PLANES
        return self.logits.device.type != "cpu" or special or not bool(self.logits.isfinite().all())


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _groups(n_classes: int, n_pixels: int) -> Iterator[tuple[int, int]]:
    """Ranges of classes that are interpolated together, none of `_SPECIAL_PLANES`."""
    at_once = max(1, _PLANES_BYTES // (4 * n_pixels))
    bounds = [*range(0, n_classes, at_once + (at_once == _SPECIAL_PLANES)), n_classes]
    if bounds[-1] - bounds[-2] == _SPECIAL_PLANES:
        bounds.insert(-1, n_classes - 1)
    return pairwise(bounds)


class _Race:
    """The best class so far at each pixel, and its score; classes enter in the order of their ids."""

    def __init__(self, height: int, width: int, dtype: np.dtype[Any]) -> None:
        self.best = np.full((height, width), -np.inf, dtype=np.float32)
        self.ids: LabelArray = np.zeros((height, width), dtype=dtype)

    def enter(self, planes: NDArray[np.float32], first_id: int, rows: slice) -> None:
        """Compare the (K, H, W) scores of the classes from `first_id` on in some rows; of equals the first wins."""
        step = max(1, _SLAB_PX // self.best.shape[1])
        for top in range(rows.start, rows.stop, step):
            slab = slice(top, min(top + step, rows.stop))
            best, ids = self.best[slab], self.ids[slab]
            better, winner = np.empty(best.shape, dtype=bool), np.empty_like(ids)
            for class_id, plane in enumerate(planes[:, slab], start=first_id):
                np.greater(plane, best, out=better)
                np.maximum(plane, best, out=best)
                # Ids rise, so the winner's is the larger one: a maximum in place of a slow masked write.
                np.multiply(better.view(np.uint8), ids.dtype.type(class_id), out=winner, casting="unsafe")
                np.maximum(ids, winner, out=ids)
