"""What every writer of another tool's layout provides, and the choices a user has about it.

An exporter turns rows into files; claiming the output folder is `folder`'s, running it is `export`'s business.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.labelmap import LabelArray, TwoLevelMap, valid_pixels
from hiposeg_cli.store import Dataset, Row, label_path

Summary = TypeVar("Summary")
Results = Callable[[str], Iterator[tuple[Row, Summary]]]
"""Split -> its rows in order, each with what `Exporter.convert` returned for it."""


@dataclass(frozen=True)
class ExportOptions:
    """Choices about an export; a format refuses those that do not apply to it.

    Attributes:
        level: `fine` or `coarse`; None takes the format's default.
        splits: which splits to write; empty takes all.
        images: how photos get into the export: copy, hardlink, link or reference; None takes the format's default.
        workers: processes; 1 converts in this one.
    """

    level: str | None = None
    splits: tuple[str, ...] = ()
    images: str | None = None
    workers: int = 1


class Exporter(ABC, Generic[Summary]):
    """One layout, for one dataset.

    Attributes:
        name: what follows `--as`.
        levels: what `--level` may be; empty where the layout always holds both.
        default_level: taken without `--level`; None stands for both levels.
        image_modes: what `--images` may be, the default first.
        warnings: what the layout cannot hold, in words; filled while writing.
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[str, ...]] = ("fine", "coarse")
    default_level: ClassVar[str | None] = "fine"
    image_modes: ClassVar[tuple[str, ...]] = ("copy", "hardlink", "link")

    def __init__(self, dataset: Dataset, options: ExportOptions) -> None:
        self.dataset, self.warnings = dataset, list[str]()
        self.level = self._choice("--level", options.level, self.levels, self.default_level)
        self.images = self._choice("--images", options.images, self.image_modes, self.image_modes[0])
        self.splits = tuple(dict.fromkeys(options.splits)) or tuple(dataset.rows)
        for split in self.splits:
            dataset.split(split)
        self.check()

    def _choice(self, flag: str, value: str | None, allowed: tuple[str, ...], default: str | None) -> str | None:
        if value is None:
            return default
        if not allowed:
            raise ConfigError(
                f"{flag} {value}", f"does not apply to {self.name}, which holds both levels", "drop the option"
            )
        if value not in allowed:
            raise ConfigError(f"{flag} {value}", f"is no choice for {self.name}", did_you_mean(value, allowed))
        return value

    @property
    def hierarchy(self) -> Hierarchy:
        return self.dataset.hierarchy

    @property
    def classes(self) -> Level:
        """The level whose classes are written; of a layout with both levels, the fine one."""
        return self.hierarchy.coarse if self.level == "coarse" else self.hierarchy.fine

    def rows(self) -> list[Row]:
        """Every row to export, split by split."""
        return [row for split in self.splits for row in self.dataset.split(split)]

    def class_map(self, labels: TwoLevelMap) -> LabelArray:
        """The label map of the chosen level."""
        return labels.coarse if self.level == "coarse" else labels.fine

    def labels(self, row: Row) -> TwoLevelMap:
        """Both label maps of a row, from files that are still what was prepared."""
        for kind in row.label_hashes():
            label_bytes(self.dataset, row, kind)
        return self.dataset.labels(row)

    def ignored_px(self) -> int:
        """Pixels of all rows without a class on the chosen level."""
        return sum(row.ignore_px + (row.coarse_only_px if self.level != "coarse" else 0) for row in self.rows())

    def check(self) -> None:
        """Refuse, before anything is written, what the layout cannot hold."""
        return

    def check_folder(self, out: Path) -> None:
        """Refuse an output folder whose name the receiving tool would not accept."""
        return

    @abstractmethod
    def convert(self, row: Row, folder: Path) -> Summary:
        """Write the files of one image below `folder`, in whichever process; return what the indexes need."""

    @abstractmethod
    def write(self, folder: Path, results: Results[Summary]) -> None:
        """Write the whole export into an empty folder, taking every split's results once."""


def label_bytes(dataset: Dataset, row: Row, kind: str) -> bytes:
    """The label PNG of one kind as it was prepared. Raises DataError when it is gone or was altered."""
    path = label_path(dataset.root, kind, row.split, row.key)
    if not path.is_file():
        raise DataError(path, "label file is missing", "prepare the data again")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != row.label_hashes()[kind]:
        raise DataError(path, "differs from the manifest", "prepare the data again")
    return data


def segment_map(classes: LabelArray, instances: NDArray[np.uint16] | None) -> NDArray[np.int64]:
    """Segments of an image: one per class, and where there are instances one per class and object.

    Returns: (H, W) int64, class id * 65536 + object number; -1 where the class is ignore.
    """
    segments = classes.astype(np.int64) << 16
    if instances is not None:
        segments |= instances
    segments[~valid_pixels(classes)] = -1
    return segments


def class_of(segment: int) -> int:
    """The class id of a segment."""
    return segment >> 16


def flat_names(rows: Iterable[Row]) -> dict[tuple[str, str], str]:
    """(split, key) -> a name without folders, unique among the rows even where case does not count."""
    names: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for row in rows:
        flat = row.key.replace("/", "__")
        candidates = (flat, f"{flat}__{row.split}", *(f"{flat}__{number}" for number in range(2, len(taken) + 3)))
        name = next(name for name in candidates if name.casefold() not in taken)
        taken.add(name.casefold())
        names[row.split, row.key] = name
    return names
