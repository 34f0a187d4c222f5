"""The truth to score against: a prepared dataset, or raw annotations as published, through their reader."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.convert import PrepareOptions, open_reader
from hiposeg_cli.errors import DataError, did_you_mean
from hiposeg_cli.evaluation.encoding import encode
from hiposeg_cli.formats.base import RawItem, Reader, ReaderOptions, require_unique_keys
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.image_file import image_header, pixel_limit, read_rgb
from hiposeg_cli.labelmap import TwoLevelMap
from hiposeg_cli.remarks import collected
from hiposeg_cli.store import Row, label_path, open_dataset

Source = TypeVar("Source")


@dataclass(frozen=True)
class TruthImage:
    """One image to score.

    Attributes:
        key: unique in the split.
        labels: level name -> its label file; raw annotations have one for all levels, or share one with other images.
        names: paths without suffix that a prediction's file may be called after; see `matching`.
        source: what the truth reads it by.
    """

    key: str
    photo: Path
    labels: Mapping[str, Path]
    names: tuple[str, ...]
    source: Row | RawItem


@dataclass(frozen=True)
class TrueLabels:
    """The labels of one image, its object numbers (H, W) where they are kept, 0 for none, and what is odd in its files."""

    labels: TwoLevelMap
    numbers: NDArray[np.uint16] | None = None
    remarks: tuple[str, ...] = ()


class Truth(ABC):
    """A split of a dataset.

    Attributes:
        name: what the user called it.
        images: sorted by key. Worker processes, which are sent theirs one by one, do without.
        faults: why images of the source could not be listed.
        has_instances: every image has object numbers.
    """

    name: Path
    split: str
    hierarchy: Hierarchy
    images: tuple[TruthImage, ...]
    faults: tuple[DataError, ...] = ()
    has_instances: bool = False

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "images": ()}

    @abstractmethod
    def read(self, image: TruthImage, *, instances: bool = False) -> TrueLabels:
        """The labels of one image, and its object numbers if asked for. Raises DataError when they cannot be read."""

    @abstractmethod
    def photo(self, image: TruthImage) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 photo of the size of the labels. Raises DataError when it is gone or broken."""

    @abstractmethod
    def allowed(self, image: TruthImage) -> AbstractContextManager[None]:
        """Lets files of this image's size be opened."""


class PreparedTruth(Truth):
    """A split of a prepared dataset. Raises DataError when there is none."""

    def __init__(self, root: Path, split: str) -> None:
        dataset = open_dataset(root)
        rows = dataset.split(split)
        self.name, self.split, self.hierarchy = root, split, dataset.hierarchy
        self.dataset = replace(dataset, rows={})
        self.has_instances = bool(rows) and all(row.inst_sha256 for row in rows)
        self.images = tuple(sorted((self._image(row) for row in rows), key=lambda image: image.key))

    def _image(self, row: Row) -> TruthImage:
        photo, hierarchy = self.dataset.images_root / row.image_path, self.hierarchy
        kinds = {"fine": hierarchy.fine.name} | (
            {} if self.dataset.coarse_is_function_of_fine else {"coarse": hierarchy.coarse.name}
        )
        labels = {name: label_path(self.dataset.root, kind, row.split, row.key) for kind, name in kinds.items()}
        names = (f"{row.split}/{row.key}", _without_suffix(photo), _without_suffix(Path(row.source)))
        return TruthImage(row.key, photo, labels, names, row)

    def read(self, image: TruthImage, *, instances: bool = False) -> TrueLabels:
        row = _of_type(image.source, Row)
        return TrueLabels(self.dataset.labels(row), self.dataset.instances(row) if instances else None)

    def photo(self, image: TruthImage) -> NDArray[np.uint8]:
        return self.dataset.image(_of_type(image.source, Row))

    def allowed(self, image: TruthImage) -> AbstractContextManager[None]:
        return _of_type(image.source, Row).allowed()


class RawTruth(Truth):
    """A split of raw annotations, mapped as `prepare` would; photos are asked for their size, and not decoded.

    Raises: ConfigError, HierarchyError or DataError when the source cannot be read or has no such split.
    """

    def __init__(
        self, format_name: str, source: Path, split: str, hierarchy: str | None, options: ReaderOptions
    ) -> None:  # fmt: skip
        with collected():
            reader = open_reader(format_name, source, PrepareOptions(hierarchy=hierarchy, reader=options))
            items = reader.items()
        require_unique_keys(items)
        splits = {item.split for item in items}
        if split not in splits and not (reader.faults and not items):
            raise DataError(source, f"has no images of the split {split!r}", did_you_mean(split, splits))
        self.name, self.split, self.reader, self.hierarchy = source, split, reader, reader.hierarchy
        self.faults, self.has_instances = tuple(reader.faults), options.instances
        images = (_raw_image(reader, item) for item in items if item.split == split)
        self.images = tuple(sorted(images, key=lambda image: image.key))

    def read(self, image: TruthImage, *, instances: bool = False) -> TrueLabels:
        item = _of_type(image.source, RawItem)
        self.reader.check_links(item)
        size = _photo_size(item.image_path)
        if any(stated not in (None, own) for stated, own in zip(item.recorded, size, strict=True)):
            raise DataError(item.image_path, f"is {_text(size)}, the annotations state another size", "use their own photos")
        source = self.reader.root / item.source
        with self.allowed(image), collected() as remarks:
            raw = self.reader.paint(item, size)
        if raw.ids.shape != size:
            what = f"labels are {_text(raw.ids.shape)} but {item.image_path.name} is {_text(size)}"
            raise DataError(source, what, "pair each image with its own labels; nothing is resized")
        labels = encode(self.reader.lookup, raw.ids, source if source.exists() else item.image_path)
        return TrueLabels(labels, raw.instances, tuple(remark.what for remark in remarks))

    def photo(self, image: TruthImage) -> NDArray[np.uint8]:
        with self.allowed(image):
            return read_rgb(image.photo)

    def allowed(self, image: TruthImage) -> AbstractContextManager[None]:
        return pixel_limit(self.reader.options.max_pixels)


def _raw_image(reader: Reader, item: RawItem) -> TruthImage:
    source = reader.root / item.source
    labels = {reader.hierarchy.fine.name: source} if source.is_file() else {}
    names = (f"{item.split}/{item.key}", _without_suffix(item.image_path), _without_suffix(Path(item.source)))
    return TruthImage(item.key, item.image_path, labels, names, item)


def _photo_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header of a photo. Raises DataError."""
    try:
        with image_header(path) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise DataError(path, "no such file", "put the photo back: it tells the size of the labels") from None
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(path, f"cannot be read as an image ({error})", "replace the file") from None


def _without_suffix(path: Path) -> str:
    return path.with_suffix("").as_posix() if path.name else ""


def _text(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"


def _of_type(source: object, kind: type[Source]) -> Source:
    assert isinstance(source, kind)
    return source
