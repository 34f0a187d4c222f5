"""PartImageNet: part maps as PNGs (the release for segmentation), or COCO-style polygons (the first release).

Both number the 40 parts alike; a source table names them as the JSON does ("Quadruped Head"), so that the order of a README
or of another tool cannot be mistaken for theirs. The PNGs write 40 for background.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.formats.base import RawItem, RawLabel
from hiposeg_cli.formats.coco import Coco
from hiposeg_cli.formats.coco_json import CocoJson
from hiposeg_cli.formats.files import IMAGE_SUFFIXES, Stems, first_folder, safe_key, walk
from hiposeg_cli.formats.targets import named_targets
from hiposeg_cli.labelmap import read_label_png
from hiposeg_cli.lookup import Target

_PARTS = {
    "Quadruped": ("Head", "Body", "Foot", "Tail"),
    "Biped": ("Head", "Body", "Hand", "Foot", "Tail"),
    "Fish": ("Head", "Body", "Fin", "Tail"),
    "Bird": ("Head", "Body", "Wing", "Foot", "Tail"),
    "Snake": ("Head", "Body"),
    "Reptile": ("Head", "Body", "Foot", "Tail"),
    "Car": ("Body", "Tier", "Side Mirror"),
    "Bicycle": ("Body", "Head", "Seat", "Tier"),
    "Boat": ("Body", "Sail"),
    "Aeroplane": ("Head", "Body", "Engine", "Wing", "Tail"),
    "Bottle": ("Mouth", "Body"),
}
LABELS = tuple(f"{group} {part}" for group, parts in _PARTS.items() for part in parts)
"""Category names by id, as in the JSON; tier is a tyre."""

_BACKGROUND = len(LABELS)
_SPLITS = ("train", "val", "test")


class PartImageNet(Coco):
    """SRC/annotations/{train,val,test}/*.png with SRC/images/{train,val,test}/*.JPEG.

    Variants: `png` (PartImageNet_Seg.zip); `json` reads {train,val,test}.json from SRC/annotations,
    SRC/annotations/{train,val,test} or SRC, with photos in SRC/images/SPLIT or SRC/SPLIT, in folders of a class or not.
    """

    name = "partimagenet"
    default_hierarchy = "partimagenet-41-12"
    variants = ("png", "json")
    prefix: ClassVar[str] = ""
    json_kind: ClassVar[str] = "a PartImageNet JSON"

    def targets(self) -> dict[int, Target]:
        if self.variant == "json":
            return super().targets()
        self.overlap_rule = "none: the labels are already one id per pixel"
        if self.options.instances:
            raise ConfigError("--instances", "the PNGs of PartImageNet do not tell objects apart", "pass --variant json")
        return {
            _BACKGROUND: self.background_target(self.options.unlabelled or self.table.unlabelled),
            **named_targets(
                dict(enumerate(LABELS)), self.table, self.hierarchy, self.labels_from(), kind="category",
                ignore_unknown=self.ignore_unknown,
            ),
        }  # fmt: skip

    def labels_from(self) -> object:
        return super().labels_from() if self.variant == "json" else f"hierarchy {self.hierarchy.name!r}, source {self.name}"

    def items(self) -> list[RawItem]:
        if self.variant == "json":
            return super().items()
        folder = self.root / "annotations"
        items = []
        for split in _SPLITS:
            if (folder / split).is_dir():
                items += self._of_split(folder / split, split)
        if not items and not self.faults:
            cure = "name the folder that holds annotations/ and images/, or pass --variant json"
            raise DataError(self.root, "no annotations/{train,val,test}/*.png found", cure)
        return items

    def _of_split(self, folder: Path, split: str) -> list[RawItem]:
        photos = self._photos_by_stem(split)
        found = []
        for path in walk(folder, (".png",), root=self.link_root):
            with self.each_image():
                if path.stem not in photos:
                    raise DataError(path, f"has no photo {path.stem}.JPEG", "add it, or pass --images FOLDER")
                source = path.relative_to(self.root).as_posix()
                found.append(RawItem(safe_key(path.stem, path), split, photos[path.stem], source))
        return found

    def _photos_by_stem(self, split: str) -> Stems:
        """Stem -> photo of a split, in folders of one class each or not."""
        given = self.options.images
        if given is None:
            folder = first_folder(self.root, (f"images/{split}", split), f"photos of the split {split}")
        else:
            folder = given / split if (given / split).is_dir() else given
            if not folder.is_dir():
                raise DataError(folder, "no such folder", "pass --images FOLDER with the photos")
        found = Stems()
        for path in walk(folder, IMAGE_SUFFIXES, root=self.photo_root):
            found.add(path.stem, path)
        return found

    @cached_property
    def _files(self) -> list[Path]:
        found = []
        for split in _SPLITS:
            folders = (self.root / "annotations", self.root / "annotations" / split, self.root)
            found += [folder / f"{split}.json" for folder in folders if (folder / f"{split}.json").is_file()][:1]
        if not found:
            raise DataError(
                self.root, "no train.json, val.json or test.json found (annotations/, or SRC)", "check the folder"
            )
        return found

    def _split(self, path: Path) -> str:
        return path.stem

    def _photos(self, table: CocoJson) -> dict[str, Path]:
        by_stem = self._photos_by_stem(self._split(table.path))
        found = {}
        for image in table.images.values():
            if (stem := Path(image.file_name).stem) in by_stem:
                found[image.file_name] = by_stem[stem]
        return found

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        if self.variant == "json":
            return super().paint(item, size)
        path = self.root / item.source
        ids = read_label_png(path)
        if int(ids.max(initial=0)) == 158:
            raise DataError(path, "is a map of whole objects (158 is background)", "use annotations/SPLIT, not SPLIT_whole")
        return RawLabel(ids)
