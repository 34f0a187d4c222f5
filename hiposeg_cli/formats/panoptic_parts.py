"""Panoptic Parts (Meletis et al. 2020): Cityscapes and PASCAL VOC with scene class, instance and part in one number a pixel.

Such a uid has one or two digits (scene class), four or five (then three for the instance) or six or seven (then two for
the part). Published ids are `100 * scene class + part`, with part 0 for pixels that belong to none.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import DataError
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import Stems, first_folder, index_images, safe_key, walk
from hiposeg_cli.formats.pascal_part import RAW_PARTS, n_numbered
from hiposeg_cli.formats.targets import id_targets
from hiposeg_cli.image_file import check_photo, opened
from hiposeg_cli.lookup import Target
from hiposeg_cli.raw_file import file_bytes

_MAX_UID = 99_999_99
_N_IDS = 10_000


class _PanopticParts(Reader):
    """What both data sets share: uids, and one TIFF per photo.

    Attributes of a class:
        with_parts: scene classes that are divided into parts.
    """

    honours = frozenset({"images", "instances"})
    with_parts: ClassVar[tuple[int, ...]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.folding = self._folding()

    def targets(self) -> dict[int, Target]:
        return id_targets(self.table, self.hierarchy, self.labels_from())

    @abstractmethod
    def _folding(self) -> NDArray[np.int32]:
        """(10000,) int32: the id that stands for each id found in the files."""

    def _paired(
        self, split: str, folder: Path, suffix: str, images: Mapping[str, Path], image_suffix: str = ""
    ) -> list[RawItem]:
        """Items of one split's folder of TIFFs; a TIFF without photo is a fault."""
        items = []
        for path in walk(folder, (suffix.lower(),), root=self.link_root):
            stem = path.relative_to(folder).as_posix().removesuffix(suffix)
            with self.each_image():
                if stem + image_suffix not in images:
                    raise DataError(path, f"has no image {stem + image_suffix}.*", "add the photo, or pass --images FOLDER")
                source = path.relative_to(self.root).as_posix()
                items.append(RawItem(safe_key(stem), split, images[stem + image_suffix], source))
        return items

    def _photos(self, candidates: list[str]) -> Path:
        if self.options.images is None:
            return first_folder(self.root, candidates, "image folder")
        if not self.options.images.is_dir():
            raise DataError(self.options.images, "no such folder", "pass --images FOLDER with the photos")
        return self.options.images

    def _index(self, folder: Path) -> Stems:
        return index_images(folder, root=self.photo_root)

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        uids = _read_uids(self.root / item.source)
        one, hundred, most = np.int32(1), np.int32(100), np.int32(100_000)
        whole = uids * np.where(uids > 99_999, one, np.where(uids > 99, hundred, most))  # all with seven digits
        objects = whole // hundred
        found = whole // most * hundred + whole % hundred
        ids = self.folding[found]
        objects[uids <= 99] = 0
        counts = np.bincount(found.ravel(), minlength=_N_IDS)
        return RawLabel(
            ids,
            n_objects=int(np.count_nonzero(np.bincount(objects.ravel())[1:])),
            uncovered_px=int(np.bincount(self.folding, weights=counts)[np.array(self.with_parts) * 100].sum()),
            warnings=self._remarks(counts),
            instances=self._instances(objects, item) if self.options.instances else None,
        )

    def _remarks(self, counts: NDArray[np.intp]) -> tuple[str, ...]:
        """What is odd about the ids found in one file, given the pixels of each."""
        return ()

    def _instances(self, objects: NDArray[np.int32], item: RawItem) -> NDArray[np.uint16]:
        """Instance numbers as Cityscapes writes them, 1000 * scene class + instance."""
        highest = int(objects.max())
        if highest > np.iinfo(np.uint16).max:
            raise DataError(
                self.root / item.source, f"has an instance of scene class {highest // 1000}", "convert without --instances"
            )
        return objects.astype(np.uint16)


class CityscapesPanopticParts(_PanopticParts):
    """SRC/gtFinePanopticParts/SPLIT/CITY/*_gtFinePanopticParts.tif with SRC/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png."""

    name = "cityscapes-panoptic-parts"
    default_hierarchy = "cityscapes-panoptic-parts-37-19-7"
    with_parts = (24, 25, 26, 27, 28)

    def _folding(self) -> NDArray[np.int32]:
        table = np.arange(_N_IDS, dtype=np.int32)
        table[[2405, 2505]] = 2400, 2500  # about ten files hold a fifth part of people, an artefact the authors call void
        return table

    def _remarks(self, counts: NDArray[np.intp]) -> tuple[str, ...]:
        artefacts = int(counts[2405] + counts[2505])
        return (f"{artefacts} px of part 5 of a person or rider, which has four, taken as no part",) if artefacts else ()

    def items(self) -> list[RawItem]:
        folder = first_folder(
            self.root, ["gtFinePanopticParts", "gtFinePanopticParts_trainval/gtFinePanopticParts"], "label folder"
        )
        photos = self._photos(["leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit"])
        items = []
        for split in ("train", "val"):
            if (folder / split).is_dir():
                images = self._index(photos / split) if (photos / split).is_dir() else {}
                items += self._paired(split, folder / split, "_gtFinePanopticParts.tif", images, "_leftImg8bit")
        if not items and not self.faults:
            raise DataError(folder, "holds no {train,val}/CITY/*_gtFinePanopticParts.tif", "extract the whole archive")
        return items


class PascalPanopticParts(_PanopticParts):
    """SRC/{training,validation}/*.tif, or the same below SRC/labels, with SRC/JPEGImages/*.jpg (the VOC 2010 photos).

    The numbers that tell several wheels or windows of one object apart are folded as the data set's own specification does.
    """

    name = "pascal-panoptic-parts"
    default_hierarchy = "pascal-panoptic-parts-277-99"
    with_parts = tuple(number for number, parts in enumerate(RAW_PARTS.values(), start=1) if parts)

    def _folding(self) -> NDArray[np.int32]:
        table = np.arange(_N_IDS, dtype=np.int32)
        for number, (name, parts) in enumerate(RAW_PARTS.items(), start=1):
            slot = 100 * number + 1
            for part_id, part in enumerate(parts, start=100 * number + 1):
                n_slots = 1 if name == "bicycle" else n_numbered(part)  # its headlight has one number only
                table[slot : slot + n_slots] = part_id
                slot += n_slots
        return table

    def items(self) -> list[RawItem]:
        places = [self.root / name for name in ("", "labels", "pascal_panoptic_parts_v2")]
        splits = {"train": "training", "val": "validation"}
        folder = next((place for place in places if any((place / name).is_dir() for name in splits.values())), None)
        if folder is None:
            raise DataError(
                self.root, "no folder training or validation found (nor in labels/)", "name the extracted archive"
            )
        photos = self._photos(["JPEGImages", "VOC2010/JPEGImages", "VOCdevkit/VOC2010/JPEGImages", "images"])
        images = self._index(photos)
        items = []
        for split, name in splits.items():
            if (folder / name).is_dir():
                items += self._paired(split, folder / name, ".tif", images)
        if not items and not self.faults:
            raise DataError(folder, "holds no {training,validation}/*.tif", "extract the whole archive")
        return items


def _read_uids(path: Path) -> NDArray[np.int32]:
    """(H, W) int32 uids of a label TIFF. Raises DataError for anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Pillow only warns of tags that are cut off
        try:
            with opened(path, file_bytes(path)) as image:
                mode, n_pages = image.mode, getattr(image, "n_frames", 1)
                uids = np.asarray(image)
        except DataError:
            raise
        except Exception as error:  # Pillow's TIFF reader raises whatever a corrupt tag leads it to
            warnings.simplefilter("ignore")
            check_photo(path)  # says where it is broken, if it can
            raise DataError(path, f"cannot be read as a TIFF ({error})", "replace the file") from None
    if mode != "I" or n_pages > 1:
        what = f"has {n_pages} pages" if n_pages > 1 else f"holds {mode} pixels, not one 32-bit integer each"
        raise DataError(path, what, "use the published *.tif; no other kind of picture can hold its numbers")
    wrong = uids[(uids < 0) | (uids > _MAX_UID) | ((uids > 99) & (uids < 1000))]
    if wrong.size:
        raise DataError(
            path, f"{wrong.size} px hold no uid, such as {int(wrong[0])}",
            "a uid has 1-2 digits (scene class), 4-5 (and instance) or 6-7 (and part)",
        )  # fmt: skip
    return uids.astype(np.int32, copy=False)
