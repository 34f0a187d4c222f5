"""Malformed inputs 9 to 11 and 31 of the format specification: unknown labels, sizes, turned photos, empty masks.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed_check import accepts, crossed, hiposeg, refuses_image, refuses_source
from malformed_sets import IDS, SHAPE, draw, person, rewrite
from PIL import Image
from raw_sets import box, ids_png, mat, photo

from hiposeg_cli.store import open_dataset

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GREY = (
    "masks", "cityscapes", "pascal-context", "coco-stuff", "partimagenet", "sceneparse150", "mapillary", "lip", "cihp",
)  # fmt: skip
COLOURED = ("coco-panoptic", "ade20k")
TIFFS = ("cityscapes-panoptic-parts", "pascal-panoptic-parts")
MATS = ("pascal-part", "pascal-context-mat", "coco-stuff-10k")
Spoil = Callable[[Path], None]

# -- 9: ids and names that the taxonomy does not know ------------------------------------------------------------------

STRANGE = np.where(IDS == 3, 250, IDS).astype(np.uint8)


@pytest.mark.parametrize("name", GREY)
def test_09_unknown_id(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    ids_png(raw.label, STRANGE, palette=name == "mapillary")
    refuses_image(raw, raw.label.name, "250 (6 px)")


@pytest.mark.parametrize("name", GREY)
def test_09_unknown_id_ignored_on_request(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path).told("--unknown", "ignore")
    ids_png(raw.label, STRANGE, palette=name == "mapillary")
    accepts(raw, raw.label.name, "6 px of unknown labels ignored")


def test_09_unknown_uid(tmp_path: Path) -> None:
    raw = draw("cityscapes-panoptic-parts", tmp_path)
    Image.fromarray(np.where(IDS == 3, 2_400_199, IDS.astype(np.int32))).save(raw.label)
    refuses_image(raw, raw.label.name, "2499 (6 px)")


def test_09_unlisted_segment(tmp_path: Path) -> None:
    raw = draw("coco-panoptic", tmp_path)
    pixels = np.asarray(Image.open(raw.label)).copy()
    pixels[0, 0] = (1, 2, 3)
    Image.fromarray(pixels).save(raw.label)
    refuses_image(raw, raw.label.name, f"{1 + 2 * 256 + 3 * 65536} (1 px)")


@pytest.mark.parametrize(("name", "changes", "words"), [
    ("09-object", {"name": "zebra"}, ["zebra"]),
    ("09-part", {"parts": (("torsso", box(SHAPE, 0, 0, 1, 1)),)}, ["torsso", "did you mean 'torso'"]),
], ids=["09-object", "09-part"])  # fmt: skip
def test_unknown_name_in_pascal_part(name: str, changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    raw = draw("pascal-part", tmp_path)
    mat(raw.label, [person(**changes)])
    refuses_image(raw, raw.label.name, *words, "--unknown ignore")
    assert (
        hiposeg("prepare", "pascal-part", raw.root, tmp_path / "out2", "--unknown", "ignore", "--workers", 1).exit_code == 0
    )


@pytest.mark.parametrize("name", ["labelme", "cvat"])
def test_09_unknown_name(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    text = raw.label.read_text()
    last = text.rindex("wheel")
    raw.label.write_text(f"{text[:last]}wheeel{text[last + 5 :]}")
    refuses_image(raw, raw.label.name, "wheeel", "did you mean 'wheel'", "--unknown ignore")


@pytest.mark.parametrize("name", ["coco", "coco-panoptic-json", "partimagenet-json", "paco", "yolo-seg"])
def test_09_unknown_name_of_a_whole_set(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    path = raw.root / "data.yaml" if name == "yolo-seg" else raw.label
    path.write_text(path.read_text().replace("body", "boddy").replace("Body", "boddy").replace(":leg", ":boddy"))
    refuses_source(raw, path.name, "boddy", "--unknown ignore")
    accepts(raw.told("--unknown", "ignore"))


# -- 10 and 11: sizes and turned photos --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GREY + COLOURED + TIFFS)
def test_10_label_of_another_size(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    image = Image.open(raw.label)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.save(raw.label)
    refuses_image(raw, raw.label.name, "6x8", "8x6", "nothing is resized")


@pytest.mark.parametrize("name", MATS)
def test_10_mat_of_another_size(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    photo(raw.photo, (5, 7))
    refuses_image(raw, raw.label.name, "8x6", "7x5", "nothing is resized")


@pytest.mark.parametrize("name", ["coco", "paco", "partimagenet-json", "coco-panoptic", "cvat", "labelme"])
def test_10_photo_of_another_size_than_recorded(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    photo(raw.photo, (5, 7))
    refuses_image(raw, raw.photo.name, "7x5")


def turn(path: Path, orientation: int = 6) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(path).save(path, exif=exif)


@pytest.mark.parametrize("name", ["masks", "coco", "pascal-part", "pascal-context", "coco-stuff"])
def test_11_exif_orientation_is_not_applied(name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    turn(raw.photo)
    accepts(raw, raw.photo.name, "EXIF orientation 6", "stored pixels")
    row = open_dataset(raw.out).split("train")[1]
    assert (row.height, row.width) == SHAPE


@pytest.mark.parametrize("name", ["labelme", "cvat", "yolo-seg"])
def test_11_exif_orientation_that_the_tool_applied(name: str, tmp_path: Path) -> None:
    """These tools show a photo upright, so labels drawn in them do not follow the stored pixels."""
    raw = draw(name, tmp_path)
    turn(raw.photo, 3)
    refuses_image(raw, raw.photo.name, "EXIF orientation 3")


# -- 31: empty masks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "words"), [
    ({"mask": np.zeros(SHAPE, np.uint8), "parts": ()}, ["person has an empty mask", "skipped"]),
    ({"parts": (("torso", np.zeros(SHAPE, np.uint8)),)}, ["torso has an empty mask", "skipped"]),
], ids=["31-empty-object", "31-empty-part"])  # fmt: skip
def test_empty_mask_in_pascal_part(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    raw = draw("pascal-part", tmp_path)
    mat(raw.label, [person(**changes), person()])
    accepts(raw, raw.label.name, *words)


@pytest.mark.parametrize(
    ("name", "case"),
    crossed(["31-rle"], ["coco", "paco", "partimagenet-json"]),
)
def test_empty_rle(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    rle = {"size": list(SHAPE), "counts": [48]}
    rewrite(raw.label, lambda data: data["annotations"].append(
        {"id": 77, "image_id": 2, "category_id": 1, "iscrowd": 0, "segmentation": rle}))  # fmt: skip
    accepts(raw, "annotation 77", "no pixel")


def test_31_segment_without_pixels(tmp_path: Path) -> None:
    raw = draw("coco-panoptic-json", tmp_path)
    rewrite(raw.label, lambda data: data["annotations"][1]["segments_info"].append({"id": 5, "category_id": 1}))
    accepts(raw, "segment 5", "no pixel")


@pytest.mark.parametrize(("name", "value"), [("masks", 255), ("cityscapes", 0), ("sceneparse150", 0), ("coco-stuff", 255)])
def test_31_every_pixel_is_ignore(name: str, value: int, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    ids_png(raw.label, np.full(SHAPE, value, np.uint8))
    refuses_image(raw, raw.label.name, "every pixel is ignore", "--allow-empty")


def test_31_every_pixel_is_ignore_accepted_on_request(tmp_path: Path) -> None:
    raw = draw("masks", tmp_path).told("--allow-empty")
    ids_png(raw.label, np.full(SHAPE, 255, np.uint8))
    accepts(raw, "b.png", "every pixel is ignore")
