"""What every reader of raw annotations provides.

A reader checks geometry and paints published ids; it maps nothing. `LookUp` turns its ids into the two levels.
Finding files is `files`', mapping names is `targets`', drawing masks is `paint`'s business.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.formats.files import require_inside
from hiposeg_cli.hierarchy import Hierarchy, fold
from hiposeg_cli.image_file import MAX_PIXELS, Photo, check_photo, pixel_limit
from hiposeg_cli.labelmap import RawIds
from hiposeg_cli.lookup import LookUp, Target
from hiposeg_cli.raw_file import disguise, file_bytes
from hiposeg_cli.raw_names import by_name
from hiposeg_cli.remarks import collected


@dataclass(frozen=True)
class RawItem:
    """One image to convert: where it is and what its labels are found by. Nothing of it has been read yet.

    Attributes:
        source: label file relative to the root, or `file.json:image_id`.
        spans: (n, 2) int64 byte ranges of its annotations in that JSON; None for one file an image.
        recorded: (height, width) as the annotations state them, None for what they do not say.
    """

    key: str
    split: str
    image_path: Path
    source: str
    spans: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)
    recorded: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True)
class RawLabel:
    """The painted labels of one image.

    Attributes:
        ids: (H, W) integers, ids as published.
        n_objects: annotated objects, 0 where the format has none.
        overlap_px: pixels that objects of different classes claimed, resolved by the reader's rule.
        part_overlap_px: pixels that different parts of one object claimed, resolved likewise.
        uncovered_px: object pixels outside all parts.
        warnings: oddities that were handled, in words.
        instances: (H, W) uint16 object numbers from 1, 0 for none; only where asked for.
        photo: the photo the labels belong to; filled in by `Reader.read`.
    """

    ids: RawIds
    n_objects: int = 0
    overlap_px: int = 0
    part_overlap_px: int = 0
    uncovered_px: int = 0
    warnings: tuple[str, ...] = ()
    instances: NDArray[np.uint16] | None = None
    photo: Photo | None = None


@dataclass(frozen=True)
class ReaderOptions:
    """Choices a user may make about raw data; each reader names those it honours.

    Attributes:
        variant: which of the format's releases or encodings to read.
        unknown: `ignore` turns raw labels the hierarchy does not know into ignore instead of an error.
        follow_symlinks: links may lead out of the dataset's folder.
        instances: keep object numbers as a third map.
        max_pixels: photos and label files of more pixels are refused; it changes no label.
    """

    images: Path | None = None
    part_order: str | None = None
    uncovered: str | None = None
    unlabelled: str | None = None
    label_suffix: str | None = None
    variant: str | None = None
    unknown: str | None = None
    follow_symlinks: bool = False
    instances: bool = False
    max_pixels: int = MAX_PIXELS

    def given(self) -> dict[str, str]:
        """The choices that were made and may change labels."""
        chosen = {key: value for key, value in vars(self).items() if key != "max_pixels"}
        return {key: str(value) for key, value in chosen.items() if value not in (None, False)}


_FOR_ALL = frozenset({"unknown", "follow_symlinks"})


class Reader(ABC):
    """A raw dataset on disk.

    Args:
        root: the folder in the published layout.
        hierarchy: its `sources` table for this format decides what is mapped.
        options: see `ReaderOptions`; options the format does not honour are refused.

    Attributes of a class:
        default_hierarchy: the preset used when the user names none; by variant where they differ.
        honours: names of the `ReaderOptions` it understands.
        variants: releases or encodings it can read, the default first.
        named: raw labels are names; a hierarchy without a table for the format is then matched by its class names.
        lists_objects: an image may list no object at all, which is no fault.
        not_sent: cached attributes that only `items` needs, so worker processes do without them.
        overlap_rule: how overlapping annotations are decided, for the report.
    """

    name: ClassVar[str]
    default_hierarchy: ClassVar[str | Mapping[str, str] | None] = None
    honours: ClassVar[frozenset[str]] = frozenset()
    variants: ClassVar[tuple[str, ...]] = ()
    named: ClassVar[bool] = False
    lists_objects: ClassVar[bool] = False
    not_sent: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[tuple[str, ...]] = ()
    overlap_rule: str = "none: the labels are already one id per pixel"

    def __init__(self, root: Path, hierarchy: Hierarchy, options: ReaderOptions) -> None:
        if not root.exists():
            raise DataError(root, "no such folder", "check the path of the raw dataset")
        if not root.is_dir():
            what = disguise(file_bytes(root, 200)) or "is a file"
            raise DataError(root, what, "download and extract the archive, and name the folder")
        for package in self.needs:
            if importlib.util.find_spec(package) is None:
                raise ConfigError(f"format {self.name!r}", f"needs the package {package}", f"pip install {package}")
        self._check_options(options)
        self.root, self.hierarchy, self.options = root, hierarchy, options
        self.variant = options.variant or (self.variants[0] if self.variants else "")
        self.link_root = None if options.follow_symlinks else root
        self.ignore_unknown = options.unknown == "ignore"
        self.faults: list[DataError] = []  # images that `items` had to leave out
        known = self.name in hierarchy.sources or not self.named
        self.table = hierarchy.source(self.name) if known else by_name(hierarchy)
        self.lookup = LookUp(self.targets(), hierarchy, self.labels_from(), ignore_unknown=self.ignore_unknown)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in vars(self).items() if key not in self.not_sent}

    @property
    def photo_root(self) -> Path | None:
        """The folder that links among the photos may not leave: that of --images, or the dataset; None allows all."""
        return None if self.options.follow_symlinks else self.options.images or self.root

    @classmethod
    def default_for(cls, options: ReaderOptions) -> str | None:
        """The preset for the chosen variant when the user names none."""
        if not isinstance(cls.default_hierarchy, Mapping):
            return cls.default_hierarchy
        first = cls.default_hierarchy[cls.variants[0]]
        return cls.default_hierarchy.get(options.variant or "", first)  # an unknown variant is refused by the reader itself

    def _check_options(self, options: ReaderOptions) -> None:
        honoured = self.honours | ({"variant"} if self.variants else set())
        for option in options.given():
            if option not in honoured | _FOR_ALL:
                flags = ", ".join("--" + name.replace("_", "-") for name in sorted(honoured)) or "none"
                flag = "--" + option.replace("_", "-")
                raise ConfigError(flag, f"does not apply to the format {self.name!r}", f"its options: {flags}")
        if options.variant is not None and options.variant not in self.variants:
            raise ConfigError(
                f"--variant {options.variant}", f"is unknown to the format {self.name!r}",
                did_you_mean(options.variant, self.variants),
            )  # fmt: skip

    @abstractmethod
    def targets(self) -> dict[int, Target]:
        """Published id -> (fine id, coarse id), None for ignore."""

    def labels_from(self) -> object:
        """What names the raw ids, for messages."""
        return f"hierarchy {self.hierarchy.name!r}, source {self.name}"

    @abstractmethod
    def items(self) -> list[RawItem]:
        """All labelled images, sorted by split and key; those that cannot be used are in `faults`.

        Raises: DataError when the layout is not recognised.
        """

    @contextmanager
    def each_image(self) -> Iterator[None]:
        """Keep what is wrong with one image in `faults`, so that listing goes on with the next one.

        Remarks are dropped: reading the image leaves them again.
        """
        try:
            with collected():
                yield
        except DataError as error:
            self.faults.append(error)

    def check_links(self, item: RawItem) -> None:
        """Raise DataError when a file an image is made from is a link that leads out; their folders `walk` has checked."""
        for path in self.raw_files(item):
            if path.is_symlink():
                require_inside(path, self.photo_root if path == item.image_path else self.link_root)

    @abstractmethod
    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        """Paint the labels of one image.

        Args:
            size: (height, width) of its photo.
        Raises: DataError naming the file.
        """

    def read(self, item: RawItem) -> RawLabel:
        """Check the photo to its end and paint its labels, which must have its size; nothing is resized."""
        self.check_links(item)
        with pixel_limit(self.options.max_pixels):
            photo = check_photo(item.image_path)
            size = (photo.height, photo.width)
            self._check_recorded(item, size)
            label = self.paint(item, size)
        if label.ids.shape != size:
            height, width = label.ids.shape
            raise DataError(
                self.root / item.source, f"labels are {width}x{height} but {item.image_path.name} is {size[1]}x{size[0]}",
                "pair each image with its own labels; nothing is resized",
            )  # fmt: skip
        return replace(label, photo=photo)

    def _check_recorded(self, item: RawItem, size: tuple[int, int]) -> None:
        """Raise DataError when the annotations state another size than the photo has."""
        height, width = (own if stated is None else stated for own, stated in zip(size, item.recorded, strict=True))
        if (height, width) != size:
            raise DataError(
                item.image_path, f"is {size[1]}x{size[0]}, the annotations say {width}x{height}",
                "use the images the annotations were made on",
            )  # fmt: skip

    def raw_files(self, item: RawItem) -> list[Path]:
        """The files an image is made from: its photo and its label file."""
        return [item.image_path, self.root / item.source]

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


def require_unique_keys(items: Iterable[RawItem]) -> None:
    """Refuse keys that collide on a file system that ignores case or normalises unicode."""
    seen: dict[tuple[str, str], RawItem] = {}
    for item in items:
        slot = (item.split, fold(unquote(item.key)))
        if slot in seen:
            raise DataError(item.image_path, f"clashes with {seen[slot].image_path} (same name up to case)", "rename one")
        seen[slot] = item
