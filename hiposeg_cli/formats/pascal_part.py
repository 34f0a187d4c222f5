"""PASCAL-Part (Chen et al. 2014): one MATLAB v5 file per image with object and part masks.

Published ids are `100 * class_ind + part`, with the part numbers of the `part2ind` table that comes with the dataset
(numbered parts such as wheel_3 folded onto one) and 0 for object pixels outside every part.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import first_folder, index_images, safe_key, split_lists, walk
from hiposeg_cli.formats.paint import Canvas
from hiposeg_cli.formats.targets import resolve_target, unknown_name
from hiposeg_cli.lookup import Target
from hiposeg_cli.raw_names import match_name

_VEHICLE = (
    "frontside leftside rightside backside roofside leftmirror rightmirror fliplate bliplate door_ wheel_ headlight_ window_"
)
_CAT = "head leye reye lear rear nose torso neck lfleg lfpa rfleg rfpa lbleg lbpa rbleg rbpa tail"
_LEGS = "lfuleg lflleg rfuleg rflleg lbuleg lblleg rbuleg rblleg tail"
_COW = f"head leye reye lear rear muzzle lhorn rhorn torso neck {_LEGS}"
RAW_PARTS: dict[str, tuple[str, ...]] = {
    name: tuple(parts.split())
    for name, parts in {
        "aeroplane": "body stern lwing rwing tail engine_ wheel_",
        "bicycle": "fwheel bwheel saddle handlebar chainwheel headlight_",
        "bird": "head leye reye beak torso neck lwing rwing lleg lfoot rleg rfoot tail",
        "boat": "",
        "bottle": "cap body",
        "bus": _VEHICLE,
        "car": _VEHICLE,
        "cat": _CAT,
        "chair": "",
        "cow": _COW,
        "table": "",
        "dog": f"{_CAT} muzzle",
        "horse": f"head leye reye lear rear muzzle lfho rfho lbho rbho torso neck {_LEGS}",
        "motorbike": "fwheel bwheel handlebar saddle headlight_",
        "person": "head leye reye lear rear lebrow rebrow nose mouth hair torso neck llarm luarm lhand rlarm ruarm rhand "
        "llleg luleg lfoot rlleg ruleg rfoot",
        "pottedplant": "pot plant",
        "sheep": _COW,
        "sofa": "",
        "train": "head hfrontside hleftside hrightside hbackside hroofside headlight_ coach_ cfrontside_ cleftside_ "
        "crightside_ cbackside_ croofside_",
        "tvmonitor": "screen",
    }.items()
}
"""Object (in class_ind order, from 1) -> raw part names; a trailing `_` stands for the numbered parts `name_1`, ..."""

_OBJECTS = tuple(RAW_PARTS)
_FIELDS = {"object": ("class", "class_ind", "mask", "parts"), "part": ("part_name", "mask")}


class PascalPart(Reader):
    """SRC/Annotations_Part/*.mat with SRC/JPEGImages/*.jpg; SRC/ImageSets/Main/{train,val}.txt name the splits."""

    name = "pascal-part"
    default_hierarchy = "pascal-part-108"
    honours = frozenset({"images", "part_order", "uncovered"})
    overlap_rule: str = (
        "objects: later in the file wins; parts within an object: later in the file wins (--part-order published)"
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.options.part_order == "area":
            self.overlap_rule = (
                "objects: later in the file wins; parts within an object: the smaller wins (--part-order area)"
            )

    def targets(self) -> dict[int, Target]:
        uncovered = self.options.uncovered or self.table.uncovered
        targets = self._targets = {0: self.background_target(self.table.unlabelled)}
        where = self.labels_from()
        for name, parts in self.table.map.items():
            if name not in RAW_PARTS or not isinstance(parts, dict):
                raise ConfigError(where, f"{name!r} is not a PASCAL-Part object", did_you_mean(str(name), RAW_PARTS))
            coarse_id = self.hierarchy.coarse.find(str(name))
            base = 100 * (_OBJECTS.index(str(name)) + 1)
            if "__object__" in parts:
                targets[base] = resolve_target(parts["__object__"], self.hierarchy, ignored=(None, coarse_id))
            else:
                targets[base] = (None, coarse_id) if uncovered == "ignore" else self.background_target("background")
            for number, part in enumerate(RAW_PARTS[str(name)], start=1):
                target = _match(part, parts, f"{where}, object {name!r}")
                if target is not None:
                    targets[base + number] = resolve_target(target, self.hierarchy, ignored=(None, coarse_id))
        return targets

    def items(self) -> list[RawItem]:
        folder = self.root / "Annotations_Part"
        if not folder.is_dir():
            raise DataError(folder, "no such folder", "name the folder that holds Annotations_Part/")
        image_dir = self.options.images or first_folder(
            self.root, ["JPEGImages", "VOC2010/JPEGImages", "VOCdevkit/VOC2010/JPEGImages"], "image folder"
        )
        if not image_dir.is_dir():
            raise DataError(image_dir, "no such folder", "pass --images FOLDER with the VOC2010 photos")
        images = index_images(image_dir, root=None if self.options.images else self.link_root)
        splits = split_lists(self.root / "ImageSets" / "Main")
        items = []
        for path in walk(folder, (".mat",), root=self.link_root):
            split = splits.get(path.stem) if splits else "train"
            if split is None:
                continue
            if path.stem not in images:
                raise DataError(path, f"has no image {image_dir / path.stem}.jpg", "pass --images FOLDER, or add the photo")
            items.append(RawItem(safe_key(path.stem), split, images[path.stem], path.relative_to(self.root).as_posix()))
        if not items:
            raise DataError(folder, "holds no *.mat of the listed splits", "extract trainval.tar.gz of PASCAL-Part")
        return items

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path = self.root / item.source
        objects = _load_objects(path)
        if not objects:
            raise DataError(path, "has no objects", "remove the file, or annotate it")
        shape = _mask(objects[0]["mask"], np.shape(objects[0]["mask"]), path).shape
        canvas = Canvas(shape, unlabelled=0)
        objects_seen = np.zeros(shape, dtype=np.int32)
        contested, part_overlap_px, warnings = np.zeros(shape, dtype=bool), 0, []
        for entry in objects:
            number, mask = self._object_number(entry, path), _mask(entry["mask"], shape, path)
            if not mask.any():
                warnings.append(f"{entry['class']} has an empty mask; skipped")
                continue
            contested |= mask & (objects_seen != 0) & (objects_seen != number)
            objects_seen[mask] = number
            layer = self._paint_parts(entry, 100 * number, mask, path, warnings)
            part_overlap_px += int(layer.contested.sum())
            canvas.ids[mask] = layer.ids[mask]
        uncovered_px = int(((canvas.ids % 100 == 0) & (canvas.ids > 0)).sum())
        return RawLabel(canvas.ids, len(objects), int(contested.sum()), part_overlap_px, uncovered_px, tuple(warnings))

    def _object_number(self, entry: dict[str, Any], path: Path) -> int:
        name = entry["class"]
        if name not in RAW_PARTS:
            raise unknown_name(path, "object", name, RAW_PARTS)
        number = _OBJECTS.index(name) + 1
        if entry["class_ind"] != number:
            raise DataError(path, f"object {name!r} has class_ind {entry['class_ind']}, not {number}", "replace the file")
        if name not in self.table.map:
            raise unknown_name(path, f"object (hierarchy {self.hierarchy.name!r})", name, map(str, self.table.map))
        return number

    def _paint_parts(
        self, entry: dict[str, Any], base: int, mask: NDArray[np.bool_], path: Path, warnings: list[str]
    ) -> Canvas:
        """Paint one object's parts onto its own layer."""
        layer = Canvas((mask.shape[0], mask.shape[1]), unlabelled=base)
        parts = [(_part_number(entry["class"], name, path), name, _mask(m, mask.shape, path)) for name, m in entry["parts"]]
        if self.options.part_order == "area":
            parts.sort(key=lambda part: -int(part[2].sum()))
        for number, name, part in parts:
            if base + number not in self._targets:
                raise unknown_name(path, f"part (hierarchy {self.hierarchy.name!r}, {entry['class']})", name, ())
            if not part.any():
                warnings.append(f"{entry['class']} {name} has an empty mask; skipped")
            outside = int((part & ~mask).sum())
            if outside:
                warnings.append(f"{entry['class']} {name} reaches {outside} px outside its object; cut off")
            layer.paint(part & mask, base + number)
        return layer


def _match(part: str, table: dict[str, Any], where: str) -> Any:
    """The entry of a map for one raw part; a numbered part is matched without its number, else as number 1."""
    if not part.endswith("_"):
        return match_name(table, part, where)
    plain = part.rstrip("_")
    return table[plain] if plain in table else match_name(table, f"{part}1", where)


def _part_number(object_name: str, part_name: str, path: Path) -> int:
    """Number of a raw part name within its object, numbered parts folded."""
    parts = RAW_PARTS[object_name]
    folded = re.sub(r"_\d+$", "_", part_name)
    if folded not in parts and f"{part_name}_" in parts:  # a bicycle's only headlight may come without a number
        folded = f"{part_name}_"
    if folded not in parts:
        known = [name.rstrip("_") for name in parts]
        raise unknown_name(path, f"part of {object_name}", part_name, known)
    return parts.index(folded) + 1


def _mask(values: Any, shape: tuple[int, ...], path: Path) -> NDArray[np.bool_]:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif" or values.ndim != 2:
        raise DataError(path, "has a mask that is no 2-d array of numbers", "use the original file")
    if values.shape != tuple(shape):
        raise DataError(path, f"has masks of {values.shape} and {tuple(shape)}", "replace the file")
    mask: NDArray[np.bool_] = values > 0
    return mask


def _load_objects(path: Path) -> list[dict[str, Any]]:
    """Objects of one file: class, class_ind, mask and parts as (name, mask) pairs."""
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            head = file.read(128)
        if head.startswith(b"MATLAB 7.3") or head[:8] == b"\x89HDF\r\n\x1a\n":
            raise DataError(path, "is a MATLAB v7.3 file; PASCAL-Part is v5", "save it with -v7, or use the original")
        anno = loadmat(path, variable_names=["anno"]).get("anno")
    except FileNotFoundError:
        raise DataError(path, "no such file", "check the dataset") from None
    except DataError:
        raise
    except Exception as error:  # scipy's parser raises whatever a corrupt byte leads it to
        raise DataError(path, f"is not a readable MATLAB v5 file ({error})", "replace the file") from None
    try:
        return [_object(entry, path) for entry in anno[0, 0]["objects"].ravel()]
    except (TypeError, IndexError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise DataError(path, f"has not the structure anno.objects of PASCAL-Part ({error})", "use the original") from None


def _object(entry: Any, path: Path) -> dict[str, Any]:
    missing = [name for name in _FIELDS["object"] if name not in (entry.dtype.names or ())]
    if missing:
        raise DataError(path, f"an object lacks the field {missing[0]!r}", "use the original file")
    pairs = [(str(part["part_name"][0]), part["mask"]) for part in entry["parts"].ravel()]
    return {
        "class": str(entry["class"][0]), "class_ind": int(entry["class_ind"][0, 0]), "mask": entry["mask"], "parts": pairs,
    }  # fmt: skip
