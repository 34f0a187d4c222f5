"""COCO-Stuff: one id map per image, in the four codings that are in use.

The 164k release writes labels.txt id - 1 (0..181, 255 unlabelled), the 10k release the id itself (0 unlabelled), and
mmsegmentation numbers the 171 annotated classes of either without gaps. An id means another class in each, so the ids found
are held against the coding that was asked for; source tables are written in the ids of the 164k release.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import Stems, index_images, safe_key, split_lists, walk
from hiposeg_cli.formats.mat_file import read_id_mat
from hiposeg_cli.formats.targets import id_targets
from hiposeg_cli.image_file import pixel_limit
from hiposeg_cli.labelmap import RawIds, read_label_png
from hiposeg_cli.lookup import Target
from hiposeg_cli.remarks import collected

_NEVER = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)  # things of labels.txt that no annotation uses
_CLASSES = tuple(value for value in range(182) if value not in _NEVER)
_TRAIN_IDS = "_labelTrainIds"
_SAMPLE = 32  # label files that are looked at before anything is converted


@dataclass(frozen=True)
class Coding:
    """How one release writes the classes.

    Attributes:
        classes: id in its files -> id in the 164k release, of the 171 annotated classes.
        unlabelled: its id of pixels without a class.
        never: its ids of the classes that were never annotated.
    """

    classes: Mapping[int, int]
    unlabelled: int
    never: tuple[int, ...] = ()

    @cached_property
    def used(self) -> frozenset[int]:
        return frozenset((*self.classes, self.unlabelled))


CODINGS = {
    "164k": Coding({value: value for value in _CLASSES}, 255, _NEVER),
    "10k": Coding({value + 1: value for value in _CLASSES}, 0, tuple(value + 1 for value in _NEVER)),
    "164k-train-ids": Coding(dict(enumerate(_CLASSES)), 255),
    "10k-train-ids": Coding(dict(enumerate(_CLASSES, start=1)), 0),
}


@dataclass(frozen=True)
class _Folders:
    """Where one split's files lie."""

    split: str
    label_dir: Path
    image_dirs: tuple[Path, ...]


class CocoStuff(Reader):
    """SRC/{annotations,stuffthingmaps}/{train,val}2017/*.png with SRC/images/{train,val}2017 or SRC/{train,val}2017.

    Variants: `164k` (stuffthingmaps_trainval2017.zip); `10k` (annotations/*.mat with images/ and imageLists/, or PNGs with
    its ids); `164k-train-ids` and `10k-train-ids` (the *_labelTrainIds.png that mmsegmentation writes from them).
    SRC/{train,val}_label with SRC/{train,val}_img is read too. Ids that only another variant has are refused; a few images
    of common classes may fit several, and are then read as the variant says.
    """

    needs = ("scipy",)
    name = "coco-stuff"
    default_hierarchy = "coco-stuff-171-27"
    variants = tuple(CODINGS)
    honours = frozenset({"images"})
    split_of: ClassVar[Mapping[str, str]] = {
        "train2017": "train", "val2017": "val", "train2014": "train", "test2014": "test", "train": "train", "val": "val",
        "test": "test",
    }  # fmt: skip

    def targets(self) -> dict[int, Target]:
        coding = CODINGS[self.variant]
        published = id_targets(self.table, self.hierarchy, self.labels_from())
        shifted = {value: published[meant] for value, meant in coding.classes.items() if meant in published}
        if self.variant == "164k":
            shifted = published
        ignored: dict[int, Target] = dict.fromkeys((*coding.never, coding.unlabelled), (None, None))
        targets = ignored | shifted
        self._expected = coding.used | {value for value, target in targets.items() if target != (None, None)}
        return targets

    def items(self) -> list[RawItem]:
        items = self._from_lists() if self.variant == "10k" else []
        if not items and not self.faults:
            folders = self._folders()
            if not folders:
                raise self._nothing_found()
            for found in folders:
                items += self._of_split(found)
        self._check_coding_of(items)
        return items

    def _from_lists(self) -> list[RawItem]:
        """The 10k release as published: annotations/*.mat, and imageLists/{train,test}.txt that split them."""
        folder = self.root / "annotations"
        labels = {path.stem: path for path in walk(folder, (".mat",), root=self.link_root)} if folder.is_dir() else {}
        if not labels:
            return []
        splits = split_lists(self.root / "imageLists", ("train", "test")) or dict.fromkeys(labels, "train")
        photos = self._photos(_Folders("", folder, (self.root / "images",)))
        found = []
        for stem, split in sorted(splits.items(), key=_place):
            with self.each_image():
                if stem not in labels:
                    path = folder / f"{stem}.mat"
                    raise DataError(path, "is listed in imageLists but missing", "extract the release again")
                found.append(self._item(labels[stem], stem, split, photos))
        return found

    def _folders(self) -> list[_Folders]:
        """The folders of the first layout that holds label PNGs of the variant."""
        for base in ("annotations", "stuffthingmaps", "stuffthingmaps_trainval2017", "."):
            layout = [
                _Folders(split, self.root / base / name, (self.root / "images" / name, self.root / name))
                for name, split in self.split_of.items()
            ]
            found = [folders for folders in layout if self._holds_labels(folders.label_dir)]
            if found:
                return found
        pairs = [_Folders(s, self.root / f"{s}_label", (self.root / f"{s}_img",)) for s in ("train", "val", "test")]
        return [folders for folders in pairs if self._holds_labels(folders.label_dir)]

    def _holds_labels(self, folder: Path) -> bool:
        return folder.is_dir() and any(True for _ in self._labels(folder))

    def _labels(self, folder: Path) -> Iterable[Path]:
        """The label PNGs of the variant below a folder: mmsegmentation writes its own beside the published ones."""
        wanted = self.variant.endswith("train-ids")
        return (path for path in walk(folder, (".png",), root=self.link_root) if path.stem.endswith(_TRAIN_IDS) == wanted)

    def _nothing_found(self) -> DataError:
        suffix = _TRAIN_IDS if self.variant.endswith("train-ids") else ""
        looked = (
            f"no label maps *{suffix}.png found (annotations/train2017, stuffthingmaps/train2017, train2017, train_label)"
        )
        if not suffix and any(walk(self.root, (f"{_TRAIN_IDS}.png".lower(),), root=self.link_root)):
            return DataError(
                self.root, f"holds only *{_TRAIN_IDS}.png, which mmsegmentation has renumbered",
                "pass --variant 164k-train-ids (or 10k-train-ids)",
            )  # fmt: skip
        if any(walk(self.root, (".mat",), root=self.link_root)):
            return DataError(self.root, f"{looked}, but *.mat", "pass --variant 10k")
        return DataError(self.root, looked, "name the folder that holds them")

    def _of_split(self, folders: _Folders) -> list[RawItem]:
        photos = self._photos(folders)
        found = []
        for path in self._labels(folders.label_dir):
            stem = path.relative_to(folders.label_dir).with_suffix("").as_posix().removesuffix(_TRAIN_IDS)
            with self.each_image():
                found.append(self._item(path, stem, folders.split, photos))
        return found

    def _photos(self, folders: _Folders) -> Stems:
        """Stem -> photo; the label maps may lie among them."""
        given = self.options.images
        candidates = folders.image_dirs if given is None else (given / folders.image_dirs[0].name, given)
        for folder in candidates:
            if folder.is_dir():
                return index_images(folder, root=self.photo_root, suffixes=(".jpg", ".jpeg"))
        raise DataError(candidates[-1], "no such folder", "pass --images FOLDER with the photos")

    def _item(self, path: Path, stem: str, split: str, photos: Mapping[str, Path]) -> RawItem:
        if stem not in photos:
            raise DataError(path, f"has no photo {stem}.jpg", "add it, or pass --images FOLDER")
        return RawItem(safe_key(stem, path), split, photos[stem], path.relative_to(self.root).as_posix())

    def _check_coding_of(self, items: list[RawItem]) -> None:
        """Refuse a data set whose ids are of another coding: one image often fits several, many together do not."""
        values: set[int] = set()
        step = max(1, len(items) // _SAMPLE)
        for item in items[::step][:_SAMPLE]:
            # What is wrong or odd about a file is told when it is converted.
            with suppress(DataError), collected(), pixel_limit(self.options.max_pixels):
                self.check_links(item)
                values |= _values(self._read(item))
        self._check_coding(values, self.root)

    def _check_coding(self, values: set[int], where: Path) -> None:
        strange = sorted(values - self._expected)
        fitting = [name for name, coding in CODINGS.items() if name != self.variant and values <= coding.used]
        if strange and fitting:
            shown = ", ".join(map(str, strange[:5])) + (", ..." if len(strange) > 5 else "")
            raise DataError(
                where, f"holds ids that the {self.variant} coding never uses ({shown}) and {' and '.join(fitting)} does",
                f"pass --variant {fitting[0]}, or read annotations of your own with the format masks",
            )  # fmt: skip

    def _read(self, item: RawItem) -> RawIds:
        path = self.root / item.source
        return read_id_mat(path, "S") if path.suffix == ".mat" else read_label_png(path)

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        ids = self._read(item)
        values = _values(ids)
        self._check_coding(values, self.root / item.source)
        odd = sorted((values - self._expected) & set(CODINGS[self.variant].never))
        warnings = (f"ids that COCO-Stuff never annotates are ignored: {', '.join(map(str, odd))}",) if odd else ()
        return RawLabel(ids, warnings=warnings)


def _values(ids: RawIds) -> set[int]:
    return set(np.flatnonzero(np.bincount(ids.ravel())).tolist())


def _place(entry: tuple[str, str]) -> tuple[str, str]:
    """Sorts (stem, split) by split."""
    return entry[1], entry[0]
