"""LIP and CIHP: photos with 8-bit id PNGs of 20 classes. Id 10 is jumpsuits in LIP and torso skin in CIHP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import index_images, listed_stems, safe_key, walk
from hiposeg_cli.formats.targets import id_targets
from hiposeg_cli.labelmap import read_label_png
from hiposeg_cli.lookup import Target

_COLOURED = {"Categories": "Category_ids", "Human": "Human_ids", "Humans": "Human_ids", "Instances": "Instance_ids"}
"""Folders of coloured pictures -> the folder of the ids they show."""


class _HumanParsing(Reader):
    """What the two have in common: one id PNG a photo, found by lists where there are any."""

    def targets(self) -> dict[int, Target]:
        return id_targets(self.table, self.hierarchy, self.labels_from())

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        return RawLabel(read_label_png(self.root / item.source))

    def _of_split(self, split: str, image_dir: Path, label_dir: Path, lists: Sequence[Path]) -> list[RawItem]:
        """The listed images of one split, or all labelled ones where no list exists."""
        images = index_images(image_dir, root=self.link_root)
        labels = {path.stem: path for path in walk(label_dir, (".png",), root=self.link_root)}
        list_path = next((path for path in lists if path.is_file()), None)
        stems = sorted(labels) if list_path is None else sorted(_unrepeated(list_path))
        if not stems:
            raise DataError(label_dir, "holds no *.png", "extract the annotations")
        items = []
        for stem in stems:
            with self.each_image():
                for found, folder, what in ((labels, label_dir, "no labels"), (images, image_dir, "no photo")):
                    if stem not in found:
                        cure = "extract the archive again, or take it off the list"
                        raise DataError(list_path or label_dir, f"{stem}: {what} in {folder}", cure)
                source = labels[stem].relative_to(self.root).as_posix()
                items.append(RawItem(safe_key(stem), split, images[stem], source))
        return items

    def _trainings(self, root: Path) -> list[RawItem]:
        """The images of `root`/Training and /Validation, with labels in Category_ids."""
        items = []
        for name, split in (("Training", "train"), ("Validation", "val")):
            folder = root / name
            if not folder.is_dir():
                continue
            for part in ("Images", "Category_ids"):
                if not (folder / part).is_dir():
                    raise _missing(folder, part)
            lists = [place / f"{split}_id.txt" for place in (folder, root)]
            items += self._of_split(split, folder / "Images", folder / "Category_ids", lists)
        return items


class Lip(_HumanParsing):
    """SRC/TrainVal_images/{train,val}_images with SRC/TrainVal_parsing_annotations/{train,val}_segmentations.

    Both folders may be nested once or twice, as the archives are, or left out. `train_id.txt` and `val_id.txt` are
    followed where they exist. Training/{Images,Category_ids} and Validation/... are read too.
    """

    name = "lip"
    default_hierarchy = "lip-20-3-2"

    def items(self) -> list[RawItem]:
        image_dirs, label_dirs = _nested(self.root, "TrainVal_images"), _nested(self.root, "TrainVal_parsing_annotations")
        items = []
        for split in ("train", "val"):
            image_dir = _first([place / f"{split}_images" for place in image_dirs])
            label_dir = _first([place / f"{split}_segmentations" for place in label_dirs])
            if image_dir is None and label_dir is None:
                continue
            if image_dir is None or label_dir is None:
                missing = f"{split}_images" if image_dir is None else f"{split}_segmentations"
                raise DataError(self.root, f"no folder {missing} found", "extract TrainVal_images.zip and its annotations")
            lists = [place / f"{split}_id.txt" for place in (*image_dirs, *label_dirs)]
            items += self._of_split(split, image_dir, label_dir, lists)
        items = items or self._trainings(self.root)
        if not items and not self.faults:
            raise DataError(
                self.root, "no train_images and train_segmentations found", "name the folder LIP was extracted to"
            )
        return items


class Cihp(_HumanParsing):
    """SRC/Training/{Images,Category_ids} and SRC/Validation/...; with --instances the persons of Human_ids.

    The archive's own folder, instance-level_human_parsing, may lie in between. `train_id.txt` and `val_id.txt` are
    followed where they exist. Categories, Human and Instances hold coloured pictures and are not read.
    """

    name = "cihp"
    default_hierarchy = "cihp-20-3-2"
    honours = frozenset({"instances"})

    @cached_property
    def _base(self) -> Path:
        folders = _nested(self.root, "instance-level_human_parsing")
        split_dir = _first([folder / name for folder in folders for name in ("Training", "Validation")])
        if split_dir is None:
            known = [name for name in ("Images", "Category_ids", *_COLOURED) if (self.root / name).is_dir()]
            cure = f"name the folder above {self.root.name}" if known else "name the folder CIHP was extracted to"
            raise DataError(self.root, "no folder Training or Validation found", cure)
        return split_dir.parent

    def items(self) -> list[RawItem]:
        return self._trainings(self._base)

    def raw_files(self, item: RawItem) -> list[Path]:
        return [*super().raw_files(item), *([_persons(self.root / item.source)] if self.options.instances else [])]

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        label = super().paint(item, size)
        if not self.options.instances:
            return label
        path = _persons(self.root / item.source)
        if not path.parent.is_dir():
            raise _missing(path.parent.parent, path.parent.name)
        persons: NDArray[np.uint16] = read_label_png(path).astype(np.uint16)
        if persons.shape != label.ids.shape:
            raise DataError(
                path, f"is {persons.shape}, the labels {label.ids.shape} (height, width)", "use files of one photo"
            )
        return RawLabel(label.ids, n_objects=int(np.count_nonzero(np.bincount(persons.ravel())[1:])), instances=persons)


def _nested(root: Path, name: str) -> list[Path]:
    """The folder itself and the folders of one name nested in it, down to the third."""
    places = [root]
    for _ in range(3):
        places.append(places[-1] / name)
    return places


def _first(folders: Sequence[Path]) -> Path | None:
    return next((folder for folder in folders if folder.is_dir()), None)


def _persons(labels: Path) -> Path:
    """The person numbers that belong to a file of Category_ids."""
    return labels.parent.parent / "Human_ids" / labels.name


def _missing(folder: Path, name: str) -> DataError:
    """The error for a folder of ids that is not there, naming the coloured one that is."""
    coloured = [shown for shown, ids in _COLOURED.items() if ids == name and (folder / shown).is_dir()]
    if coloured:
        return DataError(folder / coloured[0], f"holds coloured pictures, and there is no {name}", f"extract {name}")
    return DataError(folder / name, "no such folder", "extract the archive again")


def _unrepeated(path: Path) -> list[str]:
    stems = listed_stems(path)
    twice, times = Counter(stems).most_common(1)[0] if stems else ("", 0)
    if times > 1:
        raise DataError(path, f"{twice!r} is listed twice", "keep it once")
    return stems
