"""What every reader of raw annotations provides, and the helpers they share.

A reader checks geometry and paints published ids; it maps nothing. `LookUp` turns its ids into the two levels.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.hierarchy import Hierarchy, SourceTable
from hiposeg_cli.labelmap import LookUp, RawIds, check_photo

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
Target = tuple[int | None, int | None]


@dataclass(frozen=True)
class RawItem:
    """One image to convert: where it is and what its labels are found by. Nothing has been read yet."""

    key: str
    split: str
    image_path: Path
    source: str


@dataclass(frozen=True)
class RawLabel:
    """The painted labels of one image.

    Attributes:
        ids: (H, W) int32, ids as published.
        n_objects: annotated objects, 0 where the format has none.
        overlap_px: pixels that objects of different classes claimed, resolved by the reader's rule.
        part_overlap_px: pixels that different parts of one object claimed, resolved likewise.
        uncovered_px: object pixels outside all parts.
        warnings: oddities that were handled, in words.
    """

    ids: RawIds
    n_objects: int = 0
    overlap_px: int = 0
    part_overlap_px: int = 0
    uncovered_px: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReaderOptions:
    """Choices a user may make about raw data; each reader names those it honours."""

    images: Path | None = None
    part_order: str | None = None
    uncovered: str | None = None
    unlabelled: str | None = None
    label_suffix: str | None = None

    def given(self) -> dict[str, str]:
        return {key: str(value) for key, value in vars(self).items() if value is not None}


class Reader(ABC):
    """A raw dataset on disk.

    Args:
        root: the folder in the published layout.
        hierarchy: its `sources` table for this format decides what is mapped.
        options: see `ReaderOptions`; options the format does not honour are refused.
    """

    name: ClassVar[str]
    default_hierarchy: ClassVar[str | None] = None
    honours: ClassVar[frozenset[str]] = frozenset()
    overlap_rule: str = "none: the labels are already one id per pixel"

    def __init__(self, root: Path, hierarchy: Hierarchy, options: ReaderOptions) -> None:
        if not root.exists():
            raise DataError(root, "no such folder", "check the path of the raw dataset")
        if not root.is_dir():
            raise DataError(root, "is a file", "extract the archive and name the folder")
        for option in options.given():
            if option not in self.honours:
                flags = ", ".join("--" + name.replace("_", "-") for name in sorted(self.honours)) or "none"
                flag = "--" + option.replace("_", "-")
                raise ConfigError(flag, f"does not apply to the format {self.name!r}", f"its options: {flags}")
        self.root, self.hierarchy, self.options = root, hierarchy, options
        self.table = hierarchy.source(self.name)
        self.lookup = LookUp(self.targets(), hierarchy, self.labels_from())

    @abstractmethod
    def targets(self) -> dict[int, Target]:
        """Published id -> (fine id, coarse id), None for ignore."""

    def labels_from(self) -> object:
        """What names the raw ids, for messages."""
        return f"hierarchy {self.hierarchy.name!r}, source {self.name}"

    @abstractmethod
    def items(self) -> list[RawItem]:
        """All labelled images, sorted by split and key. Raises DataError when the layout is not recognised."""

    @abstractmethod
    def read(self, item: RawItem) -> RawLabel:
        """Paint the labels of one image. Raises DataError naming the file."""

    def require_size(self, item: RawItem, shape: tuple[int, ...], what: object) -> None:
        """Decode the photo to its end, and refuse labels whose size is not its own."""
        height, width = check_photo(item.image_path)
        if (height, width) != tuple(shape):
            raise DataError(
                what, f"labels are {shape[1]}x{shape[0]} but {item.image_path.name} is {width}x{height}",
                "pair each image with its own labels; nothing is resized",
            )  # fmt: skip

    def background_target(self, choice: str) -> Target:
        """The target of pixels that become `background` or `ignore`."""
        if choice == "ignore":
            return None, None
        fine_id = self.hierarchy.background
        if fine_id is None:
            raise ConfigError(
                f"hierarchy {self.hierarchy.name!r}", "has no class of kind background", "choose ignore, or add the class"
            )
        return fine_id, int(self.hierarchy.parent[fine_id])


def resolve_target(target: object, hierarchy: Hierarchy, *, ignored: Target = (None, None)) -> Target:
    """Turn a target of a source table (validated when the hierarchy was read) into ids."""
    if isinstance(target, dict):
        return None, hierarchy.coarse.find(str(target["coarse"]))
    if target == "ignore":
        return ignored
    fine_id = hierarchy.fine.find(str(target))
    assert fine_id is not None, target
    return fine_id, int(hierarchy.parent[fine_id])


def id_png_targets(table: SourceTable, hierarchy: Hierarchy, where: object) -> dict[int, Target]:
    """Targets of an id-PNG format: the map's whole-number keys, and the ignored ids."""
    targets: dict[int, Target] = {}
    for raw_id, target in table.map.items():
        if not isinstance(raw_id, int):
            raise ConfigError(where, f"the map's key {raw_id!r} is not a label id", "use whole numbers as keys")
        targets[raw_id] = resolve_target(target, hierarchy)
    for raw_id in table.ignore:
        if raw_id in targets:
            raise ConfigError(where, f"id {raw_id} is both mapped and ignored", "remove one of them")
        targets[raw_id] = (None, None)
    return targets


def safe_key(path: str, where: object = "") -> str:
    """A key usable as a file name everywhere: percent-encode all but [A-Za-z0-9._-/].

    Args:
        where: the file that names the path, for the message.
    Raises: DataError for an absolute path or one that leaves its folder.
    """
    if path.startswith("/") or "\\" in path or re.match(r"^[A-Za-z]:", path) or ".." in path.split("/"):
        raise DataError(where or path, f"the file name '{path}' leaves its folder", "use relative names without '..'")
    key = quote(path, safe="/._-")
    if len(key.encode()) > 200:
        raise DataError(where or path, f"the file name {path[:40]!r}... is longer than 200 bytes", "shorten it")
    return key


def index_images(folder: Path) -> dict[str, Path]:
    """Relative stem -> image below a folder. Raises DataError when two images share a stem."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            raise DataError(path, f"has the same stem as {found[stem].name}", "keep one image per stem")
        found[stem] = path
    return found


def first_folder(root: Path, candidates: Sequence[str], what: str) -> Path:
    """The first of several folders that exists. Raises DataError listing where it looked."""
    for candidate in candidates:
        if (root / candidate).is_dir():
            return root / candidate
    raise DataError(root, f"no {what} found (looked for {', '.join(candidates)})", "check the layout, or pass --images")


def require_unique_keys(items: Iterable[RawItem]) -> None:
    """Refuse keys that collide on a file system that ignores case."""
    seen: dict[tuple[str, str], RawItem] = {}
    for item in items:
        slot = (item.split, item.key.casefold())
        if slot in seen:
            raise DataError(item.image_path, f"clashes with {seen[slot].image_path} (same name up to case)", "rename one")
        seen[slot] = item


@dataclass
class Canvas:
    """Paints published ids in order and counts the pixels where two claims met."""

    shape: tuple[int, int]
    unlabelled: int
    ids: RawIds = field(init=False)
    contested: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = np.full(self.shape, self.unlabelled, dtype=np.int32)
        self.contested = np.zeros(self.shape, dtype=bool)

    def paint(self, mask: NDArray[np.bool_], raw_id: int) -> None:
        """Give the pixels of a mask an id; a later claim wins."""
        self.contested |= mask & (self.ids != self.unlabelled) & (self.ids != raw_id)
        self.ids[mask] = raw_id


def unknown_name(where: object, kind: str, name: str, known: Iterable[str]) -> DataError:
    """The error for a class or part name the tables do not know."""
    return DataError(where, f"unknown {kind} {name!r}", did_you_mean(name, known))
