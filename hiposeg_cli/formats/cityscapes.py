"""Cityscapes: photos with `*_labelIds.png` (34 ids), read by look-up; polygons are re-drawn only where that is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hiposeg_cli.errors import DataError, did_you_mean
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import index_images, safe_key, walk
from hiposeg_cli.formats.targets import id_targets
from hiposeg_cli.labelmap import LabelArray, histogram, read_label_png
from hiposeg_cli.lookup import Target
from hiposeg_cli.strict_json import load_json

_IMAGE = "_leftImg8bit"
_SPLITS = ("train", "train_extra", "val")
LABELS = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk",
    "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup",
    "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan",
    "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""Label names by id, as in cityscapesScripts' labels.py; licence plate has id -1 and is never drawn."""


class Cityscapes(Reader):
    """SRC/gtFine/SPLIT/CITY/*_gtFine_labelIds.png with SRC/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png.

    Variants: `fine`; `coarse` reads gtCoarse; `polygons` draws gtFine's *_polygons.json as json2labelImg does, whose
    edge pixels depend on the Pillow version.
    """

    name = "cityscapes"
    default_hierarchy = "cityscapes-19-7"
    variants = ("fine", "coarse", "polygons")
    honours = frozenset({"instances"})

    def targets(self) -> dict[int, Target]:
        if self.variant == "polygons":
            self.overlap_rule = "polygons in file order, the later on top, drawn by Pillow (edges depend on its version)"
        return id_targets(self.table, self.hierarchy, self.labels_from())

    @property
    def _truth(self) -> str:
        return "gtCoarse" if self.variant == "coarse" else "gtFine"

    @property
    def _suffix(self) -> str:
        return f"_{self._truth}_{'polygons.json' if self.variant == 'polygons' else 'labelIds.png'}"

    def items(self) -> list[RawItem]:
        truth_dir, image_dir = self.root / self._truth, self.root / "leftImg8bit"
        for folder in (truth_dir, image_dir):
            if not folder.is_dir():
                cure = f"extract {self._truth} and leftImg8bit into one folder and name it"
                raise DataError(folder, "no such folder", cure)
        items = []
        for split in _SPLITS:
            if (truth_dir / split).is_dir():
                items += self._of_split(split, truth_dir / split, image_dir / split)
        if not items and not self.faults:
            raise DataError(truth_dir, f"no train or val *{self._suffix} found", f"extract {self._truth}_trainvaltest.zip")
        return items

    def _of_split(self, split: str, truth_dir: Path, image_dir: Path) -> list[RawItem]:
        images = index_images(image_dir, root=self.link_root) if image_dir.is_dir() else {}
        items = []
        for path in walk(truth_dir, (self._suffix.lower(),), root=self.link_root):
            stem = path.relative_to(truth_dir).as_posix().removesuffix(self._suffix)
            with self.each_image():
                if stem + _IMAGE not in images:
                    raise DataError(path, f"has no image {image_dir / (stem + _IMAGE)}.png", "extract leftImg8bit")
                items.append(RawItem(safe_key(stem), split, images[stem + _IMAGE], str(path.relative_to(self.root))))
        return items

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path = self.root / item.source
        ids: LabelArray = _draw(path, size) if self.variant == "polygons" else read_label_png(path)
        if _looks_like_train_ids(ids):
            raise DataError(path, "looks like trainIds (0..18 and 255), not labelIds", "use the official *_labelIds.png")
        instances = self._instances(item, ids) if self.options.instances else None
        return RawLabel(ids, instances=instances)

    def raw_files(self, item: RawItem) -> list[Path]:
        return [*super().raw_files(item), *([self._instance_path(item)] if self.options.instances else [])]

    def _instance_path(self, item: RawItem) -> Path:
        return self.root / (item.source.removesuffix(self._suffix) + f"_{self._truth}_instanceIds.png")

    def _instances(self, item: RawItem, ids: LabelArray) -> NDArray[np.uint16]:
        """The published instance numbers (label id * 1000 + n), 0 for stuff and groups."""
        path = self._instance_path(item)
        found = read_label_png(path)
        if found.dtype != np.uint16:
            raise DataError(path, "is an 8-bit PNG, which cannot hold instance ids", "use the original 16-bit file")
        numbers = found.astype(np.uint16)
        if numbers.shape != ids.shape:
            raise DataError(path, f"is {numbers.shape}, the labels {ids.shape} (height, width)", "use files of one frame")
        numbers[numbers < 1000] = 0
        wrong = int(np.count_nonzero((numbers > 0) & (numbers // 1000 != ids)))
        if wrong and self.variant != "polygons":
            raise DataError(path, f"disagrees with the label ids on {wrong} pixels", "use files of one frame")
        return numbers


def _looks_like_train_ids(ids: LabelArray) -> bool:
    if ids.dtype != np.uint8 or b"\xff" not in ids.tobytes():
        return False
    present = np.flatnonzero(histogram(ids.astype(np.uint8, copy=False)))
    return present[-1] == 255 and bool((present[:-1] <= 18).all())


def _draw(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a polygons JSON by the rules of json2labelImg. Raises DataError."""
    height, width = size
    data = load_json(path)
    try:
        if (data["imgHeight"], data["imgWidth"]) != size:
            stated = f"{data['imgWidth']}x{data['imgHeight']}"
            raise DataError(path, f"is for an image of {stated}, not {width}x{height}", "use files of one frame")
        image = Image.new("L", (width, height), 0)
        pen = ImageDraw.Draw(image)
        for entry in data["objects"]:
            if entry.get("deleted"):
                continue
            points = [(x, y) for x, y in entry["polygon"]]
            if not all(abs(value) <= 10 * max(size) for point in points for value in point):
                raise DataError(path, f"a polygon of {entry['label']!r} lies far outside the image", "replace the file")
            label_id = _label_id(entry["label"], path)
            if label_id >= 0:
                pen.polygon(points, fill=label_id)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(path, f"is not a Cityscapes polygons file ({error!r})", "replace the file") from None
    return np.asarray(image)


def _label_id(label: str, path: Path) -> int:
    if label == "license plate":
        return -1
    for name in (label, label.removesuffix("group")):
        if name in LABELS:
            return LABELS.index(name)
    raise DataError(path, f"unknown label {label!r}", did_you_mean(label, LABELS))
