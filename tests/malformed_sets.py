"""Toy raw datasets of every format, to be spoilt.

Each set has two images: the first stays sound, the second is the one that tests spoil.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from conftest import TOY_YAML
from numpy.typing import NDArray
from PIL import Image
from raw_sets import RawObject, box, ids_png, mat, photo, square

SHAPE = (6, 8)
IDS: NDArray[np.uint8] = np.array([[1, 2, 3, 4, 5, 6, 7, 7]] * 6, np.uint8)  # known to every format; 7 is never ignore


@dataclass(frozen=True)
class Raw:
    """A toy dataset.

    Attributes:
        world: the folder that holds it, with the taxonomy and whatever else must stay untouched.
        label: annotation file of the image to spoil, or the one annotation file of the set.
        photo: photo of the image to spoil.
        options: what the command line needs to read the set.
    """

    format: str
    world: Path
    label: Path
    photo: Path
    options: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        return self.world / "raw"

    @property
    def out(self) -> Path:
        return self.world / "out"

    def told(self, *options: object) -> Raw:
        """The same set, read with more options."""
        return replace(self, options=(*self.options, *map(str, options)))


# -- the sets ----------------------------------------------------------------------------------------------------------

Write = Callable[[Path], object]
Draw = Callable[[Path], Raw]


def _grey(path: Path) -> None:
    ids_png(path, IDS)


def _palette(path: Path) -> None:
    ids_png(path, IDS, palette=True)


def _uids(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(IDS.astype(np.int32)).save(path)


def _mat_of(field: str) -> Write:
    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {field: IDS.astype(np.uint16)})

    return write


def _json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def person(**changes: Any) -> RawObject:
    torso = ("torso", box(SHAPE, 0, 0, 2, 2))
    return RawObject(**{"name": "person", "mask": box(SHAPE, 0, 0, 3, 3), "parts": (torso,), **changes})


def _pascal_part(path: Path) -> None:
    mat(path, [person()])


def _polygons(path: Path) -> None:
    objects = [{"label": "road", "polygon": [[0, 0], [7, 0], [7, 5], [0, 5]]}]
    _json(path, {"imgWidth": 8, "imgHeight": 6, "objects": objects})


def _labelme(path: Path) -> None:
    points = [[1, 1], [5, 1], [5, 4]]
    shape: dict[str, Any] = {"label": "wheel", "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
    sizes = {"imageHeight": SHAPE[0], "imageWidth": SHAPE[1]}
    _json(path, {"version": "5.5.0", "shapes": [shape], "imagePath": f"{path.stem}.jpg", "imageData": None, **sizes})


def _yolo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("0 0.1 0.1 0.9 0.1 0.9 0.9\n")


def _ade20k(path: Path) -> None:
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[:, :4] = (10, 145, 255)  # code 401
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    parts = {"part_level": 0, "hasparts": [], "ispartof": []}
    car = {"id": 0, "name": "car, auto, automobile, machine, motorcar", "name_ndx": 401, "parts": parts}
    _json(path.with_name(path.name.replace("_seg.png", ".json")), {"annotation": {"object": [car]}})


def coco_annotations(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """One square each in the images 1 and 2, then what is given, of image 2 unless it says otherwise."""
    entries: list[dict[str, Any]] = [
        {"image_id": 1, "segmentation": [square(0, 0, 2, 2)]},
        {"segmentation": [square(0, 0, 2, 2)]},
        *more,
    ]
    default: dict[str, Any] = {"image_id": 2, "category_id": 1, "iscrowd": 0}
    return [{"id": number, **default, **entry} for number, entry in enumerate(entries, start=1)]


def coco_data(*more: dict[str, Any], names: tuple[str, ...] = ("wheel", "body", "sky"), **changes: Any) -> dict[str, Any]:
    """An instances JSON of the images a.jpg and b.jpg."""
    size = {"height": SHAPE[0], "width": SHAPE[1]}
    return {
        "images": [{"id": k, "file_name": f"{stem}.jpg", **size} for k, stem in enumerate("ab", start=1)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(names, start=1)],
        "annotations": coco_annotations(*more), **changes,
    }  # fmt: skip


def panoptic_data(**changes: Any) -> dict[str, Any]:
    segments = [{"id": 7, "category_id": 1, "area": 12, "iscrowd": 0}, {"id": 900, "category_id": 3, "area": 36}]
    records = [
        {"image_id": k, "file_name": f"{stem}.png", "segments_info": segments} for k, stem in enumerate("ab", start=1)
    ]
    return coco_data(annotations=records, **changes)


def rewrite(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def _segments(path: Path) -> None:
    pixels = np.zeros((*SHAPE, 3), np.uint8)
    pixels[...] = (900 % 256, 900 // 256, 0)
    pixels[:, :2] = (7, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def cvat_xml(inside: str = "", *, name: str = "b.jpg", size: str = 'width="8" height="6"', head: str = "") -> str:
    """An annotations.xml of a.jpg and another image, which holds one polygon and what is given."""
    polygon = '<polygon label="wheel" points="0,0;4,0;4,4" z_order="0"/>'
    first = f'<image id="0" name="a.jpg" width="8" height="6">{polygon}</image>'
    second = f'<image id="1" name="{name}" {size}>{polygon}{inside}</image>'
    body = f"<annotations><version>1.1</version>\n{first}\n{second}\n</annotations>\n"
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{body}'


def _files(format_name: str, photos: str, labels: str, write: Write, *options: str, toy: bool = False) -> Draw:
    """A set of one label file an image; `{}` stands for the stem."""

    def build(world: Path) -> Raw:
        root = world / "raw"
        for number, stem in enumerate("ab"):
            photo(root / photos.format(stem), SHAPE, seed=number)
            write(root / labels.format(stem))
        return Raw(format_name, world, root / labels.format("b"), root / photos.format("b"), _taxonomy(world, options, toy))

    return build


def _one_file(format_name: str, photos: str, label: str, text: str, *options: str, toy: bool = True) -> Draw:
    """A set of one annotation file for all images."""

    def build(world: Path) -> Raw:
        path = world / "raw" / label
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        for number, stem in enumerate("ab"):
            last = photo(world / "raw" / photos.format(stem), SHAPE, seed=number)
        return Raw(format_name, world, path, last, _taxonomy(world, options, toy))

    return build


def _taxonomy(world: Path, options: tuple[str, ...], toy: bool) -> tuple[str, ...]:
    return (*options, "--hierarchy", str(world / "toy.yaml")) if toy else options


def _panoptic(world: Path) -> Raw:
    path = world / "raw" / "annotations" / "panoptic_train2017.json"
    raw = _files("coco-panoptic", "train2017/{}.jpg", "annotations/panoptic_train2017/{}.png", _segments, toy=True)(world)
    _json(path, panoptic_data())
    return raw


def _panoptic_json(world: Path) -> Raw:
    return replace(_panoptic(world), label=world / "raw" / "annotations" / "panoptic_train2017.json")


def _yolo_set(world: Path) -> Raw:
    raw = _files("yolo-seg", "images/train/{}.jpg", "labels/train/{}.txt", _yolo, toy=True)(world)
    (world / "raw" / "data.yaml").write_text("path: .\ntrain: images/train\nnames: {0: wheel, 1: body}\n")
    return raw


_CONTEXT = ("pascal-context", "JPEGImages/{}.jpg")
_PARTS_OF_CITIES = "gtFinePanopticParts/train/bonn/{}_gtFinePanopticParts.tif"
_CITY = "leftImg8bit/train/bonn/{}_leftImg8bit.png"
SETS: dict[str, Draw] = {
    "masks": _files("masks", "train/images/{}.jpg", "train/labels/{}.png", _grey, toy=True),
    "cityscapes": _files("cityscapes", _CITY, "gtFine/train/bonn/{}_gtFine_labelIds.png", _grey),
    "cityscapes-polygons": _files(
        "cityscapes", _CITY, "gtFine/train/bonn/{}_gtFine_polygons.json", _polygons, "--variant", "polygons"
    ),
    "cityscapes-panoptic-parts": _files("cityscapes-panoptic-parts", _CITY, _PARTS_OF_CITIES, _uids),
    "pascal-panoptic-parts": _files("pascal-panoptic-parts", "JPEGImages/{}.jpg", "training/{}.tif", _uids),
    "pascal-part": _files("pascal-part", "JPEGImages/{}.jpg", "Annotations_Part/{}.mat", _pascal_part),
    "pascal-context": _files(*_CONTEXT, "SegmentationClassContext/{}.png", _grey),
    "pascal-context-mat": _files(*_CONTEXT, "trainval/{}.mat", _mat_of("LabelMap"), "--variant", "mat"),
    "coco": _one_file("coco", "train2017/{}.jpg", "annotations/instances_train2017.json", json.dumps(coco_data())),
    "coco-panoptic": _panoptic,
    "coco-panoptic-json": _panoptic_json,
    "coco-stuff": _files("coco-stuff", "train2017/{}.jpg", "stuffthingmaps/train2017/{}.png", _grey),
    "coco-stuff-10k": _files("coco-stuff", "images/{}.jpg", "annotations/{}.mat", _mat_of("S"), "--variant", "10k"),
    "paco": _one_file(
        "paco", "train2017/{}.jpg", "annotations/paco_lvis_v1_train.json",
        json.dumps(coco_data(names=("bench", "bench:leg"))), toy=False,
    ),
    "partimagenet": _files("partimagenet", "images/train/{}.JPEG", "annotations/train/{}.png", _grey),
    "partimagenet-json": _one_file(
        "partimagenet", "images/train/{}.jpg", "annotations/train.json",
        json.dumps(coco_data(names=("Quadruped Head", "Quadruped Body"))), "--variant", "json", toy=False,
    ),
    "ade20k": _files("ade20k", "images/ADE/training/street/{}.jpg", "images/ADE/training/street/{}_seg.png", _ade20k),
    "sceneparse150": _files("sceneparse150", "images/training/{}.jpg", "annotations/training/{}.png", _grey),
    "mapillary": _files("mapillary", "training/images/{}.jpg", "training/v2.0/labels/{}.png", _palette),
    "lip": _files("lip", "train_images/{}.jpg", "train_segmentations/{}.png", _grey),
    "cihp": _files("cihp", "Training/Images/{}.jpg", "Training/Category_ids/{}.png", _grey),
    "labelme": _files("labelme", "{}.jpg", "{}.json", _labelme, toy=True),
    "cvat": _one_file("cvat", "images/{}.jpg", "annotations.xml", cvat_xml()),
    "yolo-seg": _yolo_set,
}  # fmt: skip


def draw(name: str, world: Path) -> Raw:
    """Draw one of `SETS` below WORLD/raw."""
    world.mkdir(exist_ok=True)
    (world / "toy.yaml").write_text(TOY_YAML, encoding="utf-8")
    (world / "neighbour.txt").write_text("not ours")
    return SETS[name](world)


# -- names -------------------------------------------------------------------------------------------------------------

JSON_SETS = ("coco", "coco-panoptic-json", "paco", "partimagenet-json")
ANY_NAME = ["masks", "pascal-part", "coco", "coco-panoptic", "labelme", "cvat", "yolo-seg", "ade20k"]
LISTS = {
    "pascal-part": "ImageSets/Main/train.txt",
    "pascal-context": "ImageSets/SegmentationContext/train.txt",
    "coco-stuff-10k": "imageLists/train.txt",
    "lip": "train_id.txt",
    "cihp": "Training/train_id.txt",
}  # fmt: skip


def write_list(raw: Raw, place: str, *stems: str) -> Path:
    path = raw.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{stem}\n" for stem in stems))
    return path


def rename_photo(raw: Raw, name: str) -> None:
    """Give the second photo and all that belongs to it another name, in files as on disk."""
    old = re.split("[_.]", raw.photo.name)[0]
    for path in [path for path in raw.root.rglob(f"{old}[._]*") if path.is_file()]:
        path.rename(path.with_name(name + path.name.removeprefix(old)))
    for path in sorted(raw.root.rglob("*.json")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(f'"{old}.', f'"{json.dumps(name)[1:-1]}.'), encoding="utf-8")
    if raw.format == "cvat":
        raw.label.write_text(cvat_xml(name=f"{name}.jpg".replace("\n", "&#10;").replace("\x07", "?")), encoding="utf-8")
