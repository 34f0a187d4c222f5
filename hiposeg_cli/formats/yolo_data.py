"""An Ultralytics data.yaml, read as Ultralytics reads it, except that nothing is downloaded or run, and nothing outside SRC.

Owns which images belong to which split, where their labels lie, and what class ids are called.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.formats.files import IMAGE_SUFFIXES, walk
from hiposeg_cli.strict_yaml import Mapping as YamlMapping
from hiposeg_cli.strict_yaml import Retyped, Sequence, load_yaml, plain

_SPLITS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class YoloImage:
    """A photo, its key within the split, and the text file its rows are in (which need not exist)."""

    key: str
    photo: Path
    label: Path


class YoloData:
    """The data.yaml of a folder.

    Args:
        root: the folder; everything the file names must lie in it.
        follow: it may lie elsewhere.
    Raises: DataError or ConfigError naming file and line.
    """

    def __init__(self, root: Path, *, follow: bool) -> None:
        self.root, self.link_root = root, None if follow else root
        self.path, self._data = _find(root)
        self.names = self._names()
        self._base = self._base_folder()

    def _fail(self, key: str, what: str, cure: str) -> DataError:
        line = self._data.lines.get(key)
        return DataError(f"{self.path}:{line}" if line else self.path, what, cure)

    def _names(self) -> dict[int, str]:
        stated = self._data.get("names")
        if isinstance(stated, Sequence):
            entries: dict[Any, Any] = dict(enumerate(stated))
            lines: dict[Any, int] = dict(enumerate(stated.lines))
        elif isinstance(stated, YamlMapping):
            entries, lines = stated, stated.lines
        else:
            raise self._fail("names", "`names` is no list and no mapping of class names", "write names: {0: person, ...}")
        names: dict[int, str] = {}
        for key, value in entries.items():
            if isinstance(value, Retyped) or not isinstance(value, str | int | float):
                text = value.text if isinstance(value, Retyped) else str(value)
                raise DataError(
                    f"{self.path}:{lines[key]}", f"YAML does not read the name {text} as text", f'write "{text}"'
                )
            names[int(key) if str(key).isdecimal() else -1] = str(value)
        if sorted(names) != list(range(len(stated))):
            raise self._fail("names", f"the class ids are not 0..{len(stated) - 1}", "number the names without gaps")
        count = plain(self._data.get("nc"))
        if count is not None and count != len(names):
            raise self._fail("nc", f"`nc` is {count}, but there are {len(names)} names", "make them agree")
        return names

    def _base_folder(self) -> Path:
        """What splits are relative to: `path` where that is a folder of SRC, else SRC, where the user says the data are."""
        stated = plain(self._data.get("path"))
        if isinstance(stated, str) and (self.root / stated).is_dir() and self._inside(self.root / stated):
            return self.root / stated
        return self.root

    def _inside(self, path: Path) -> bool:
        return self.link_root is None or path.resolve().is_relative_to(self.link_root.resolve())

    # -- the images of each split ------------------------------------------------------------------------------------

    def splits(self) -> dict[str, list[YoloImage]]:
        """The labelled splits. A `test` that is absent or has no labels (it often has none) is left out."""
        entries = {_SPLITS[key]: key for key in self._data if key in _SPLITS and plain(self._data[key])}
        if "train" not in entries:
            raise self._fail("train", "names no training images", "write train: images/train")
        found: dict[str, list[YoloImage]] = {}
        for split, key in entries.items():
            places = self._places(key, optional=split == "test")
            if split != "train" and places == self._places(entries["train"], optional=False):
                logger.warning("%s: %s names the training images again; it is left out", self.path, key)
                continue
            images = [image for place in places for image in self._of_place(place, alone=len(places) == 1)]
            if self._labelled(images, key, optional=split == "test"):
                found[split] = images
        return found

    def _places(self, key: str, *, optional: bool) -> list[Path]:
        """The folders and lists that a split names."""
        stated = plain(self._data[key])
        places = []
        for entry in stated if isinstance(stated, list) else [stated]:
            if not isinstance(entry, str):
                raise self._fail(key, f"`{key}` is {entry!r}", "name a folder, a list of folders, or a .txt list")
            place = self._base / entry
            if not place.exists() and entry.startswith("../"):
                place = self._base / entry[3:]  # as Ultralytics does, for Roboflow's `../train/images`
            if place.exists() and not self._inside(place):
                raise self._fail(key, f"{entry} leads out of {self.root}", "pass --follow-symlinks if that is meant")
            if place.exists():
                places.append(place)
            elif not optional:
                cure = f"name the folder that holds the images as SRC, with {self.path.name} in it"
                raise self._fail(key, f"{entry} is not in {self._base}", cure)
        return places

    def _of_place(self, place: Path, *, alone: bool) -> list[YoloImage]:
        if place.is_dir():
            base = place if alone else self.root
            photos = list(walk(place, IMAGE_SUFFIXES, root=self.link_root))
        else:
            base, photos = self.root, self._listed(place)
        return [YoloImage(_key(photo, base), photo, label_path(photo, self.root)) for photo in photos]

    def _listed(self, path: Path) -> list[Path]:
        """The images that a text file lists; those starting with `./` are relative to it, others to the dataset."""
        photos = []
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(path, f"is not UTF-8 text (byte {error.start})", "replace the list") from None
        in_folder: dict[Path, set[str]] = {}
        for number, line in enumerate(lines, start=1):
            entry = line.strip()
            if not entry:
                continue
            photo = Path(os.path.normpath((path.parent if entry.startswith("./") else self._base) / entry))
            if not self._inside(photo.parent):
                raise DataError(f"{path}:{number}", f"{entry} leads out of {self.root}", "use paths within the dataset")
            if photo.parent not in in_folder:
                in_folder[photo.parent] = _file_names(photo.parent)
            if photo.name not in in_folder[photo.parent]:
                raise DataError(f"{path}:{number}", f"lists {entry}, which is missing", "add it, or take it off the list")
            photos.append(photo)
        return photos

    def _labelled(self, images: list[YoloImage], key: str, *, optional: bool) -> bool:
        """Whether any image of a split has a label file. Raises DataError where one must."""
        in_folder: dict[Path, set[str]] = {}
        for image in images:
            folder = image.label.parent
            if folder not in in_folder:
                in_folder[folder] = _file_names(folder)
            if image.label.name in in_folder[folder]:
                return True
        if optional:
            return False
        if not images:
            raise self._fail(key, f"`{key}` holds no images", "check the folder")
        where = os.path.relpath(images[0].label, self.root)
        raise self._fail(key, f"no image of `{key}` has labels (the first would be {where})", "add the label files")


def _find(root: Path) -> tuple[Path, YamlMapping]:
    """The data.yaml of a folder, or its one other YAML file with `train` and `names`."""
    if (root / "data.yaml").is_file():
        data = load_yaml(root / "data.yaml")
        if not isinstance(data, YamlMapping):
            raise DataError(root / "data.yaml", "has no keys", "is this the data.yaml of Ultralytics?")
        return root / "data.yaml", data
    candidates = sorted(path for path in root.iterdir() if path.suffix in (".yaml", ".yml"))
    found: list[tuple[Path, YamlMapping]] = []
    for path in candidates:
        data = load_yaml(path) if len(candidates) == 1 else _load_or_none(path)
        if isinstance(data, YamlMapping) and "train" in data and "names" in data:
            found.append((path, data))
    if len(found) != 1:
        listed = ", ".join(path.name for path, _ in found) or "none"
        raise DataError(root, f"holds no data.yaml, and of other YAML files with train and names: {listed}", "add data.yaml")
    return found[0]


def _load_or_none(path: Path) -> Any:
    try:
        return load_yaml(path)
    except ConfigError:
        return None


def _file_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _key(photo: Path, base: Path) -> str:
    relative = Path(os.path.relpath(photo, base))
    return Path(*(part for part in relative.parts if part != "..")).with_suffix("").as_posix()


def label_path(photo: Path, root: Path) -> Path:
    """Where Ultralytics looks for the rows of a photo: the last folder `images` of its path becomes `labels`."""
    inside = photo.is_relative_to(root)
    parts = list((photo.relative_to(root) if inside else photo).with_suffix(".txt").parts)
    last = max((place for place, part in enumerate(parts[:-1]) if part == "images"), default=None)
    if last is not None:
        parts[last] = "labels"
    return root / Path(*parts) if inside else Path(*parts)


def require_one_split(splits: Mapping[str, list[YoloImage]], where: Path) -> None:
    """Refuse an image that two splits name."""
    owner: dict[Path, str] = {}
    for split, images in splits.items():
        for image in images:
            if owner.setdefault(image.photo, split) != split:
                cure = "keep it in one; to split the training images, drop the other and pass --val"
                raise DataError(where, f"{image.photo} is in {owner[image.photo]} and in {split}", cure)
