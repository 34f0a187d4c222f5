"""A photo of any size through windows of one size, blended with Gaussian weights, in bounded memory.

Windows overlap. Each gives class probabilities, weighted by a Gaussian around its centre (Isensee et al. 2021, nnU-Net:
standard deviation an eighth of the side), and a pixel's probabilities are the weighted mean over its windows. Windows are
taken from top to bottom; as soon as no later one reaches a row, its pixels are decoded and their probabilities dropped. A
picture too wide for that is done in panels, at the price of computing the windows on their seams twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiposeg_cli.errors import ConfigError, HiposegError
from hiposeg_cli.infer.said import Said, read
from hiposeg_cli.infer.views import Looker, Photo
from hiposeg_cli.labelmap import LabelArray
from hiposeg_cli.learn.upsample import Scores

_SIGMA = 1 / 8  # of a window's side
_PANEL_BYTES = 256 << 20  # probabilities held at once
_WINDOW_BYTES = 2 << 30
_SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Tiling:
    """Side and overlap of square windows, in px as the network sees them."""

    side: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.side:
            cure = f"choose less than {self.side}"
            raise ConfigError(f"--overlap {self.overlap}", "is no overlap of such windows", cure)

    @property
    def name(self) -> str:
        return f"-tile{self.side}+{self.overlap}"


@dataclass(frozen=True)
class Part:
    """What is said about some rows and columns of a photo."""

    rows: slice
    columns: slice
    said: Said


class Grid:
    """The windows of one photo, in px of the photo.

    Args:
        size: (H, W) of the photo.
        shrink: how many times smaller the network sees it.
    """

    def __init__(self, size: tuple[int, int], tiling: Tiling, shrink: float, n_classes: int) -> None:
        side, step = (max(1, round(length * shrink)) for length in (tiling.side, tiling.side - tiling.overlap))
        (self.H, self.W), self.n_classes = size, n_classes
        self.height, self.width = min(side, self.H), min(side, self.W)
        self.tops, self.lefts = starts(self.H, self.height, step), starts(self.W, self.width, step)

    @property
    def is_one(self) -> bool:
        """Whether one window holds the whole photo."""
        return len(self.tops) == len(self.lefts) == 1

    def check_memory(self) -> None:
        """Refuse windows that no memory would hold at the photo's size. Raises HiposegError."""
        needed = 4 * self.n_classes * self.height * self.width
        if needed > _WINDOW_BYTES:
            where = f"a window of {self.width}x{self.height} px"
            what = f"its scores take {needed / 2**30:.1f} GiB at the photo's size"
            raise HiposegError(where, what, "pass a smaller --tile, or a larger --size")

    def panels(self) -> Iterator[tuple[int, int]]:
        """Ranges of columns whose probabilities are held at once."""
        wide = max(self.width, _PANEL_BYTES // (4 * self.n_classes * self.height))
        n_panels = -(-self.W // wide)
        yield from pairwise(round(number * self.W / n_panels) for number in range(n_panels + 1))


def starts(length: int, window: int, step: int) -> list[int]:
    """Where windows begin along an axis: every `step`, the last one at the end."""
    return [*range(0, length - window, step), length - window]


def gaussian(length: int) -> NDArray[np.float32]:
    """(length,) float32 weights, 1 at the centre."""
    offset = (np.arange(length) - (length - 1) / 2) / (length * _SIGMA)
    return np.asarray(np.exp(-(offset**2) / 2), dtype=np.float32)


def segment_by_windows(
    looker: Looker, photo: Photo, grid: Grid, size: int | None, needs: frozenset[str], batch: int
) -> Said:
    """What the network says about a photo, window by window.

    Args:
        size: long side the network would see the whole photo in; None for the photo's own.
        batch: windows in a pass.
    """
    grid.check_memory()
    hierarchy, (H, W) = looker.model.hierarchy, photo.shape[:2]
    maps: list[LabelArray] = []
    confidence = np.empty((H, W), np.float32) if "confidence" in needs else None
    probabilities = np.empty((hierarchy.n_fine, H, W), np.float16) if "probabilities" in needs else None
    for part in _parts(looker, photo, grid, size, needs, batch):
        if not maps:
            maps = [np.empty((H, W), piece.dtype) for piece in part.said.maps]
        for whole, piece in zip(maps, part.said.maps, strict=True):
            whole[part.rows, part.columns] = piece
        if confidence is not None and part.said.confidence is not None:
            confidence[part.rows, part.columns] = part.said.confidence
        if probabilities is not None and part.said.probabilities is not None:
            probabilities[:, part.rows, part.columns] = part.said.probabilities
    return Said(tuple(maps), confidence, probabilities)


def _parts(looker: Looker, photo: Photo, grid: Grid, size: int | None, needs: frozenset[str], batch: int) -> Iterator[Part]:
    """The parts of a photo, each decoded once its last window has spoken."""
    zoom = 1.0 if size is None else size / max(photo.shape[:2])
    seen_side = None if size is None else max(1, round(max(grid.height, grid.width) * zoom))
    for first, last in grid.panels():
        blend = _Blend(grid, first, last, looker.model.device)
        lefts = [left for left in grid.lefts if left < last and left + grid.width > first]
        for top, following in zip(grid.tops, [*grid.tops[1:], grid.H], strict=True):
            for some in (lefts[start : start + batch] for start in range(0, len(lefts), batch)):
                views = [looker.seen(photo[top : top + grid.height, left : left + grid.width], seen_side) for left in some]
                for left, scores in zip(some, looker.look(views, [(grid.height, grid.width)] * len(views)), strict=True):
                    blend.add(left, scores)
            mean = blend.take(following - top)
            yield Part(slice(top, following), slice(first, last), _read(mean, looker, needs))


def _read(mean: Tensor, looker: Looker, needs: frozenset[str]) -> Said:
    decode = looker.model.decode
    if decode.rule != "leaf" or needs & {"confidence", "probabilities"}:  # the best class is the same without logarithm
        mean = mean.clamp_min(_SMALLEST).log()
    return read(Scores.at_size(mean), decode, looker.model.hierarchy, needs)


class _Blend:
    """Weighted sums of probabilities over the rows of one row of windows, in the columns of one panel."""

    def __init__(self, grid: Grid, first: int, last: int, device: torch.device) -> None:
        self.first, self.last, self.width = first, last, grid.width
        self.sums = torch.zeros((grid.n_classes, grid.height, last - first), device=device)
        self.weights = torch.zeros((grid.height, last - first), device=device)
        rows, columns = (torch.from_numpy(gaussian(length)).to(device) for length in (grid.height, grid.width))
        self.weight = rows[:, None] * columns

    def add(self, left: int, scores: Scores) -> None:
        """Add a window of the current row that begins at a column of the photo."""
        begin, end = max(left, self.first), min(left + self.width, self.last)
        inside, target = slice(begin - left, end - left), slice(begin - self.first, end - self.first)
        weight = self.weight[:, inside]
        self.sums[:, :, target].addcmul_(scores.full().softmax(dim=0)[:, :, inside], weight)
        self.weights[:, target] += weight

    def take(self, n_rows: int) -> Tensor:
        """(F, n_rows, columns) mean probabilities of the upper rows, which no later window reaches; the rest moves up."""
        mean = self.sums[:, :n_rows] / self.weights[:n_rows]
        kept = self.weights.shape[0] - n_rows
        for values in (self.sums, self.weights):
            values[..., :kept, :] = values[..., n_rows:, :].clone()
            values[..., kept:, :] = 0
        return mean
