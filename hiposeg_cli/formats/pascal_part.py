"""PASCAL-Part (Chen et al. 2014): one MATLAB v5 file per image with object and part masks.

Published ids are `100 * class_ind + part`, with the part numbers of the `part2ind` table that comes with the dataset
(numbered parts such as wheel_3 folded onto one) and 0 for object pixels outside every part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiposeg_cli.errors import ConfigError, DataError, did_you_mean
from hiposeg_cli.formats.base import RawItem, RawLabel, Reader
from hiposeg_cli.formats.files import Stems, first_folder, index_images, safe_key, split_lists, walk
from hiposeg_cli.formats.mat_file import read_mat
from hiposeg_cli.formats.paint import Canvas
from hiposeg_cli.formats.targets import resolve_target, unknown_name
from hiposeg_cli.lookup import Target
from hiposeg_cli.raw_names import match_name
from hiposeg_cli.remarks import remark

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
_FIELDS = ("class", "class_ind", "mask", "parts")
_Box = tuple[slice, slice]  # rows, columns
_REST = "*"  # key of a map: the objects it does not list
_UNKNOWN = 99  # number of an object or part without one; no table has a target for it


class PascalPart(Reader):
    """SRC/Annotations_Part/*.mat with SRC/JPEGImages/*.jpg; SRC/ImageSets/Main/{train,val}.txt name the splits.

    A map may hold the object `"*": {__object__: CLASS}` for all objects it does not list. Such a map is about the parts of
    some objects, so images in which none of their parts is annotated are left out, as the published sets do.
    """

    needs = ("scipy",)
    name = "pascal-part"
    default_hierarchy = "pascal-part-108"
    honours = frozenset({"images", "part_order", "uncovered", "instances"})
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
            if name == _REST:
                targets |= self._rest_targets(parts, where)
                continue
            if name not in RAW_PARTS or not isinstance(parts, dict):
                raise ConfigError(where, f"{name!r} is not a PASCAL-Part object", did_you_mean(str(name), RAW_PARTS))
            coarse_id = self.hierarchy.coarse.find(str(name))
            base = _base_id(str(name))
            if "__object__" in parts:
                targets[base] = resolve_target(parts["__object__"], self.hierarchy, ignored=(None, coarse_id))
            else:
                targets[base] = (None, coarse_id) if uncovered == "object-only" else self.background_target(uncovered)
            for number, part in enumerate(RAW_PARTS[str(name)], start=1):
                target = _match(part, parts, f"{where}, object {name!r}")
                if target is not None:
                    targets[base + number] = resolve_target(target, self.hierarchy, ignored=(None, coarse_id))
        return targets

    def _rest_targets(self, entry: object, where: object) -> dict[int, Target]:
        """One target for all pixels of the objects that the map does not list."""
        if not isinstance(entry, dict) or set(entry) != {"__object__"}:
            raise ConfigError(where, "`*` can only say what whole objects become", 'write "*": {__object__: CLASS}')
        target = resolve_target(entry["__object__"], self.hierarchy)
        rest = [name for name in RAW_PARTS if name not in self.table.map]
        return {_base_id(name) + number: target for name in rest for number in range(len(RAW_PARTS[name]) + 1)}

    def items(self) -> list[RawItem]:
        folder = self.root / "Annotations_Part"
        if not folder.is_dir():
            raise DataError(folder, "no such folder", "name the folder that holds Annotations_Part/")
        image_dir = self.options.images or first_folder(
            self.root, ["JPEGImages", "VOC2010/JPEGImages", "VOCdevkit/VOC2010/JPEGImages"], "image folder"
        )
        if not image_dir.is_dir():
            raise DataError(image_dir, "no such folder", "pass --images FOLDER with the VOC2010 photos")
        images = index_images(image_dir, root=self.photo_root)
        annotations = self._annotations(folder)
        items = []
        for stem, split in self._splits(annotations, image_dir).items():
            with self.each_image():
                if stem not in images:
                    cure = "pass --images FOLDER, or add the photo"
                    raise DataError(annotations[stem], f"has no image {image_dir / stem}.jpg", cure)
                source = annotations[stem].relative_to(self.root).as_posix()
                items.append(RawItem(safe_key(stem), split, images[stem], source))
        if not items and not self.faults:
            raise DataError(folder, "holds no *.mat", "extract trainval.tar.gz of PASCAL-Part")
        return self._with_parts(items) if _REST in self.table.map else items

    def _annotations(self, folder: Path) -> Stems:
        found = Stems()
        for path in walk(folder, (".mat",), root=self.link_root):
            found.add(path.stem, path)
        return found

    def _splits(self, annotations: Mapping[str, Path], image_dir: Path) -> dict[str, str]:
        """Stem -> split, by the lists where there are any."""
        roots = [self.root] if self.options.images else [self.root, image_dir.parent]
        folders = [root / "ImageSets" / "Main" for root in roots]
        folder = next((folder for folder in folders if folder.is_dir()), folders[0])
        listed = split_lists(folder)
        for stem in sorted(listed.keys() - annotations.keys()):
            with self.each_image():
                cure = "add the annotation, or take the name off the list"
                what = f"lists {stem!r}, but there is no Annotations_Part/{stem}.mat"
                raise DataError(folder / f"{listed[stem]}.txt", what, cure)
        return {stem: listed.get(stem, "train") for stem in annotations if stem in listed or not listed}

    def _with_parts(self, items: list[RawItem]) -> list[RawItem]:
        """The images in which a part of a listed object is annotated."""
        with ThreadPoolExecutor() as pool:  # most of the time goes into inflating the files, which needs no interpreter
            kept = [item for item, found in zip(items, pool.map(self._has_parts, items), strict=True) if found]
        listed = ", ".join(str(name) for name in self.table.map if name != _REST)
        if not kept:
            raise DataError(self.root / "Annotations_Part", f"no part of {listed} is annotated", "choose another hierarchy")
        what = f"{len(kept)} of {len(items)} images have a part of {listed}; the others are left out"
        remark(self.root / "Annotations_Part", what)
        return kept

    def _has_parts(self, item: RawItem) -> bool:
        try:
            self.check_links(item)
            objects = _load_objects(self.root / item.source)
        except DataError:
            return True  # converting it will say what is wrong
        return any(entry["parts"] and entry["class"] in self.table.map for entry in objects)

    def paint(self, item: RawItem, size: tuple[int, int]) -> RawLabel:
        path = self.root / item.source
        objects = _load_objects(path)
        if not objects:
            raise DataError(path, "has no objects", "remove the file, or annotate it")
        shape = _mask(objects[0]["mask"], np.shape(objects[0]["mask"]), path).shape
        # MATLAB stores masks column by column, so everything is painted so and turned round once at the end.
        ids, owners = np.zeros(shape, np.int32, order="F"), np.zeros(shape, np.uint8, order="F")
        contested, instances = np.zeros(shape, np.bool_, order="F"), np.zeros(shape, np.uint16, order="F")
        part_overlap_px, warnings = 0, list[str]()
        for order, entry in enumerate(objects, start=1):
            number, mask = self._object_number(entry, path), _mask(entry["mask"], shape, path)
            box = _bounding_box(mask)
            if box is None:
                warnings.append(f"{entry['class']} has an empty mask; skipped")
                continue
            inside = mask[box]
            contested[box] |= inside & (owners[box] != 0) & (owners[box] != number)
            layer = self._paint_parts(entry, 100 * number, mask, box, path, warnings)
            part_overlap_px += int(np.count_nonzero(layer.contested))
            for canvas, value in ((owners, number), (ids, layer.ids), (instances, order)):
                np.copyto(canvas[box], value, where=inside)
        uncovered_px = int(np.count_nonzero((ids % 100 == 0) & (ids > 0)))
        return RawLabel(
            np.ascontiguousarray(ids), len(objects), int(np.count_nonzero(contested)), part_overlap_px, uncovered_px,
            tuple(warnings), np.ascontiguousarray(instances) if self.options.instances else None,
        )  # fmt: skip

    def _object_number(self, entry: dict[str, Any], path: Path) -> int:
        name = entry["class"]
        if name not in RAW_PARTS:
            if self.ignore_unknown:
                return _UNKNOWN
            raise unknown_name(path, "object", name, RAW_PARTS)
        number = _OBJECTS.index(name) + 1
        if entry["class_ind"] != number:
            raise DataError(path, f"object {name!r} has class_ind {entry['class_ind']}, not {number}", "replace the file")
        if 100 * number not in self._targets and not self.ignore_unknown:
            raise unknown_name(path, f"object (hierarchy {self.hierarchy.name!r})", name, map(str, self.table.map))
        return number

    def _paint_parts(
        self, entry: dict[str, Any], base: int, mask: NDArray[np.bool_], box: _Box, path: Path, warnings: list[str]
    ) -> Canvas:
        """Paint one object's parts onto its own layer, which covers its bounding box."""
        inside = mask[box]
        layer = Canvas((inside.shape[0], inside.shape[1]), unlabelled=base)
        parts = []
        for name, values in entry["parts"]:
            part = _mask(values, mask.shape, path)
            raw_id = self._part_id(entry["class"], base, name, path, warnings)
            parts.append((raw_id, name, part, int(np.count_nonzero(part))))
        if self.options.part_order == "area":
            parts.sort(key=lambda part: -part[3])
        for raw_id, name, part, area in parts:
            if not area:
                warnings.append(f"{entry['class']} {name} has an empty mask; skipped")
            visible = part[box] & inside
            outside = area - int(np.count_nonzero(visible))
            if outside:
                warnings.append(f"{entry['class']} {name} reaches {outside} px outside its object; cut off")
            layer.paint(visible, raw_id)
        return layer

    def _part_id(self, object_name: str, base: int, name: str, path: Path, warnings: list[str]) -> int:
        """Published id of a raw part. Raises DataError for one the data set or the hierarchy does not know."""
        parts = RAW_PARTS.get(object_name, ())
        folded, number = _folded(name, parts)
        if folded not in parts:
            if self.ignore_unknown:
                return base + _UNKNOWN
            raise unknown_name(path, f"part of {object_name}", name, [part.rstrip("_") for part in parts])
        if number is not None and not 1 <= number <= n_numbered(folded):
            warnings.append(f"{object_name} {name}: these parts are numbered from 1 to {n_numbered(folded)}")
        raw_id = base + parts.index(folded) + 1
        if raw_id not in self._targets and not self.ignore_unknown:
            raise unknown_name(path, f"part (hierarchy {self.hierarchy.name!r}, {object_name})", name, ())
        return raw_id


def n_numbered(part: str) -> int:
    """How many parts of an object one entry of `RAW_PARTS` stands for."""
    return {"window_": 20}.get(part, 10) if part.endswith("_") else 1


def _base_id(object_name: str) -> int:
    """Published id of an object's pixels outside all parts."""
    return 100 * (_OBJECTS.index(object_name) + 1)


def _folded(name: str, parts: tuple[str, ...]) -> tuple[str, int | None]:
    """A raw part name without its number, and the number: `wheel_3` -> `wheel_`, 3."""
    numbered = re.fullmatch(r"(.*_)(\d+)", name)
    if numbered:
        return numbered[1], int(numbered[2])
    if name not in parts and f"{name}_" in parts:  # a bicycle's only headlight may come without a number
        return f"{name}_", None
    return name, None


def _match(part: str, table: dict[str, Any], where: str) -> Any:
    """The entry of a map for one raw part; a numbered part is matched without its number, else as number 1."""
    if not part.endswith("_"):
        return match_name(table, part, where)
    plain = part.rstrip("_")
    return table[plain] if plain in table else match_name(table, f"{part}1", where)


def _mask(values: Any, shape: tuple[int, ...], path: Path) -> NDArray[np.bool_]:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "buif" or values.ndim != 2:
        raise DataError(path, "has a mask that is no 2-d array of numbers", "use the original file")
    if values.shape != tuple(shape):
        raise DataError(path, f"has masks of {values.shape} and {tuple(shape)}", "replace the file")
    mask: NDArray[np.bool_] = values > 0
    return mask


def _bounding_box(mask: NDArray[np.bool_]) -> _Box | None:
    """The rows and columns that hold all of a mask; None for an empty one."""
    columns = np.flatnonzero(mask.any(axis=0))
    if not columns.size:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _load_objects(path: Path) -> list[dict[str, Any]]:
    """Objects of one file: class, class_ind, mask and parts as (name, mask) pairs."""
    anno = read_mat(path, "anno")
    try:
        return [_object(entry, path) for entry in anno[0, 0]["objects"].ravel()]
    except (TypeError, IndexError, ValueError, KeyError, OverflowError, AttributeError) as error:
        raise DataError(path, f"has not the structure anno.objects of PASCAL-Part ({error})", "use the original") from None


def _object(entry: Any, path: Path) -> dict[str, Any]:
    missing = [name for name in _FIELDS if name not in (entry.dtype.names or ())]
    if missing:
        raise DataError(path, f"an object lacks the field {missing[0]!r}", "use the original file")
    pairs = [(str(part["part_name"][0]), part["mask"]) for part in entry["parts"].ravel()]
    return {
        "class": str(entry["class"][0]), "class_ind": int(entry["class_ind"][0, 0]), "mask": entry["mask"], "parts": pairs,
    }  # fmt: skip
