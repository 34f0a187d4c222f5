"""What is in a prepared dataset: numbers by class, level and split, from the manifests alone; nothing is decoded.

Rows are streamed. What grows with the dataset is four bytes for each class of each image (for exact medians) and the hash
and key of each photo (to find it in another split).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.inspection.leaks import Duplicates, Leak
from hiposeg_cli.store import Row

PIXEL_KINDS = {
    "ignore_px": "pixels ignored on both levels", "coarse_only_px": "pixels with a coarse class and no fine one",
    "uncovered_px": "object pixels outside all parts", "overlap_px": "pixels several objects claimed",
    "part_overlap_px": "pixels several parts of one object claimed",
}  # fmt: skip
"""Counts a row carries, with what they mean."""

_MAX_LEAKS = 1000


@dataclass(frozen=True)
class ClassStatistics:
    """One class.

    Attributes:
        parent: id of its class on the next coarser level; None on the coarsest.
        pixels, images: by split.
        region: (smallest, median, largest) number of pixels it has in an image that shows it; None where it never occurs.
    """

    id: int
    name: str
    parent: int | None
    color: tuple[int, int, int]
    kind: str | None
    pixels: Mapping[str, int]
    images: Mapping[str, int]
    region: tuple[int, float, int] | None

    @property
    def total_px(self) -> int:
        return sum(self.pixels.values())

    @property
    def total_images(self) -> int:
        return sum(self.images.values())


@dataclass(frozen=True)
class Imbalance:
    """How unequal the classes of one level are, in the pixels of `split`.

    Attributes:
        ratio: pixels of the commonest class by those of the rarest that occurs.
        rarest: names of the rarest third (rounded up) of the classes that occur, rarest first.
        rarest_share: their share of the labelled pixels.
        absent: names of the classes that do not occur.
    """

    split: str
    ratio: float | None
    rarest: tuple[str, ...]
    rarest_share: float
    absent: tuple[str, ...]


@dataclass(frozen=True)
class SizeStatistics:
    """Image sizes in pixels.

    Attributes:
        width, height: (smallest, median, largest).
        commonest: ((width, height), images), most frequent first.
        distinct: number of different sizes.
    """

    width: tuple[int, float, int]
    height: tuple[int, float, int]
    commonest: tuple[tuple[tuple[int, int], int], ...]
    distinct: int


@dataclass(frozen=True)
class Statistics:
    """All numbers of one dataset.

    Attributes:
        images: by split.
        pixels: split -> total and each of `PIXEL_KINDS`.
        levels: level name -> its classes in id order, finest level first.
        cooccurrence: (C, C) int64, images that show both coarse classes; the diagonal counts single classes.
        leaks: the first photos found in two splits; `leaked` counts all, as (split, other split) -> photos.
        repeated: split -> photos that occur in it more than once.
    """

    images: Mapping[str, int]
    objects: int
    pixels: Mapping[str, Mapping[str, int]]
    levels: Mapping[str, tuple[ClassStatistics, ...]]
    imbalance: Mapping[str, Imbalance]
    cooccurrence: NDArray[np.int64]
    sizes: SizeStatistics | None
    warnings: int
    leaks: tuple[Leak, ...]
    leaked: Mapping[tuple[str, str], int]
    repeated: Mapping[str, int]


class _LevelTally:
    """Pixels, images and region sizes of the classes of one level."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.pixels: dict[str, NDArray[np.int64]] = {}
        self.images: dict[str, NDArray[np.int64]] = {}
        self.regions = [array("I") for _ in level.nodes]

    def add(self, split: str, counts: Mapping[int, int]) -> None:
        n_classes = len(self.level)
        pixels = self.pixels.setdefault(split, np.zeros(n_classes, np.int64))
        images = self.images.setdefault(split, np.zeros(n_classes, np.int64))
        for class_id, count in counts.items():
            pixels[class_id] += count
            images[class_id] += 1
            self.regions[class_id].append(count)

    def classes(self, above: Level | None) -> tuple[ClassStatistics, ...]:
        return tuple(
            ClassStatistics(
                node.id, node.name, None if above is None else above.find(node.parent or ""), node.color, node.kind,
                {split: int(values[node.id]) for split, values in self.pixels.items()},
                {split: int(values[node.id]) for split, values in self.images.items()},
                _spread(np.frombuffer(regions, dtype=regions.typecode)) if (regions := self.regions[node.id]) else None,
            )
            for node in self.level.nodes
        )  # fmt: skip


@dataclass
class Tally:
    """Adds up rows, split by split (`train` first, so that leaks are named after it)."""

    hierarchy: Hierarchy
    images: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    warnings: int = 0
    pixels: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    duplicates: Duplicates = field(default_factory=Duplicates)
    leaks: list[Leak] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._levels = [_LevelTally(level) for level in self.hierarchy.levels]
        self._lift = [_lift(self.hierarchy, depth) for depth in range(2, len(self.hierarchy.levels))]
        self._together = np.zeros((self.hierarchy.n_coarse, self.hierarchy.n_coarse), np.int64)

    def add(self, row: Row) -> None:
        """Count one image."""
        self.images[row.split] += 1
        self.objects += row.n_objects
        self.warnings += len(row.warnings)
        totals = {name: getattr(row, name) for name in PIXEL_KINDS}
        self.pixels.setdefault(row.split, Counter()).update({"total": row.width * row.height, **totals})
        self.sizes[row.width, row.height] += 1
        coarse = {int(class_id): pixels for class_id, pixels in row.coarse_counts.items() if pixels}
        fine = {int(class_id): pixels for class_id, pixels in row.fine_counts.items() if pixels}
        lifted = [_lifted(coarse, table) for table in self._lift]
        for tally, counts in zip(self._levels, (fine, coarse, *lifted), strict=True):
            tally.add(row.split, counts)
        present = list(coarse)
        self._together[np.ix_(present, present)] += 1
        leak = self.duplicates.add(row.split, row.key, row.image_sha256)
        if leak is not None and len(self.leaks) < _MAX_LEAKS:
            self.leaks.append(leak)

    def finish(self) -> Statistics:
        above = [*self.hierarchy.levels[1:], None]
        levels = {t.level.name: t.classes(up) for t, up in zip(self._levels, above, strict=True)}
        return Statistics(
            images=dict(self.images), objects=self.objects,
            pixels={split: dict(counts) for split, counts in self.pixels.items()}, levels=levels,
            imbalance={name: _imbalance(classes, list(self.images)) for name, classes in levels.items()},
            cooccurrence=self._together, sizes=_sizes(self.sizes), warnings=self.warnings, leaks=tuple(self.leaks),
            leaked=dict(self.duplicates.leaked), repeated=dict(self.duplicates.repeated),
        )  # fmt: skip


def _lift(hierarchy: Hierarchy, depth: int) -> list[int]:
    """Class id on `levels[depth]` of every coarse class."""
    table = np.arange(hierarchy.n_coarse)
    for below in range(1, depth):
        table = hierarchy.parents(below)[table]
    return [int(class_id) for class_id in table]


def _lifted(counts: Mapping[int, int], table: list[int]) -> Counter[int]:
    lifted: Counter[int] = Counter()
    for class_id, pixels in counts.items():
        lifted[table[class_id]] += pixels
    return lifted


def _spread(values: NDArray[np.integer]) -> tuple[int, float, int]:
    return int(values.min()), float(np.median(values)), int(values.max())


def _imbalance(classes: Sequence[ClassStatistics], splits: list[str]) -> Imbalance:
    """Counted in `train` where there is one, else in everything."""
    split = "train" if "train" in splits else "all"
    pixels = [entry.total_px if split == "all" else entry.pixels.get("train", 0) for entry in classes]
    present = sorted((class_id for class_id, count in enumerate(pixels) if count), key=lambda class_id: pixels[class_id])
    rarest = present[: -(-len(present) // 3)]
    return Imbalance(
        split=split, ratio=pixels[present[-1]] / pixels[present[0]] if present else None,
        rarest=tuple(classes[class_id].name for class_id in rarest),
        rarest_share=sum(pixels[class_id] for class_id in rarest) / max(1, sum(pixels)),
        absent=tuple(entry.name for entry, count in zip(classes, pixels, strict=True) if not count),
    )  # fmt: skip


def _sizes(sizes: Counter[tuple[int, int]]) -> SizeStatistics | None:
    if not sizes:
        return None
    counts = np.fromiter(sizes.values(), dtype=np.int64)
    widths, heights = (np.repeat(np.array([size[axis] for size in sizes]), counts) for axis in (0, 1))
    return SizeStatistics(_spread(widths), _spread(heights), tuple(sizes.most_common(12)), len(sizes))
