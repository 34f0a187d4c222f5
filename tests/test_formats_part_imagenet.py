"""PartImageNet: the published parts by name, the PNG and the JSON release, and polygons that cannot be drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion import complaint, converted, keys_by_split, only, rows_of
from PIL import Image
from raw_sets import ids_png, photo, square

from hiposeg_cli.formats.part_imagenet import LABELS
from hiposeg_cli.hierarchy_yaml import load_hierarchy

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SUPER_CATEGORIES = {
    "Quadruped": "0 Head, 1 Body, 2 Foot, 3 Tail", "Biped": "4 Head, 5 Body, 6 Hand, 7 Foot, 8 Tail",
    "Fish": "9 Head, 10 Body, 11 Fin, 12 Tail", "Bird": "13 Head, 14 Body, 15 Wing, 16 Foot, 17 Tail",
    "Snake": "18 Head, 19 Body", "Reptile": "20 Head, 21 Body, 22 Foot, 23 Tail",
    "Car": "24 Body, 25 Tier, 26 Side Mirror", "Bicycle": "27 Body, 28 Head, 29 Seat, 30 Tier",
    "Boat": "31 Body, 32 Sail", "Aeroplane": "33 Head, 34 Body, 35 Engine, 36 Wing, 37 Tail", "Bottle": "38 Mouth, 39 Body",
}  # fmt: skip
"""Super-category -> ids and parts, from the table of the specification."""

PARTS = {
    int(entry.split()[0]): (f"{group} {entry.split(' ', 1)[1]}", group)
    for group, row in SUPER_CATEGORIES.items()
    for entry in row.split(", ")
}
STEM = "n01443537_10026"
SIZE = (6, 8)


# -- the preset --------------------------------------------------------------------------------------------------------


def test_preset_names_ids_and_groups_are_the_published_ones() -> None:
    hierarchy = load_hierarchy("partimagenet-41-12")
    names = [name for name, _ in PARTS.values()]
    assert list(PARTS) == list(range(40))
    assert hierarchy.fine.names == [*names, "background"]
    assert hierarchy.coarse.names == [*SUPER_CATEGORIES, "background"]
    assert [node.parent for node in hierarchy.fine.nodes] == [*(group for _, group in PARTS.values()), "background"]
    assert hierarchy.background == 40
    assert dict(hierarchy.source("partimagenet").map) == {name: name for name in names}
    assert list(LABELS) == names


@pytest.mark.parametrize("spelling", ["Car Tyre", "car tire", "Bicycle Tyre"])
def test_tier_is_a_tyre(spelling: str) -> None:
    fine = load_hierarchy("partimagenet-41-12").fine
    assert fine.find(spelling) == (30 if "icycle" in spelling else 25)


# -- fixtures ----------------------------------------------------------------------------------------------------------

IDS = np.full(SIZE, 40, np.uint8)
IDS[0:2, 0:3], IDS[2:4, 0:3], IDS[4:6, 5:8] = 9, 10, 38


def png_set(root: Path, splits: dict[str, str], ids: Any = IDS) -> Path:
    """annotations/SPLIT/*.png beside the other files of PartImageNet_Seg, images/SPLIT/*.JPEG."""
    for split, stem in splits.items():
        photo(root / "images" / split / f"{stem}.JPEG", (ids.shape[0], ids.shape[1]))
        ids_png(root / "annotations" / split / f"{stem}.png", ids)
        ids_png(root / "annotations" / f"{split}_whole" / f"{stem}.png", np.where(ids == 40, 158, 3).astype(np.uint8))
        (root / "annotations" / split / f"{stem}.json").write_text('{"imgHeight": 6, "imgWidth": 8}')
        (root / "annotations" / split / f"{split}.json").write_text("{}")
    return root


def part(number: int, polygons: Any, **fields: Any) -> dict[str, Any]:
    return {"category_id": number, "segmentation": polygons, "iscrowd": 0, "image_id": 0, **fields}


SAME = [part(9, [square(0, 0, 3, 2)]), part(10, [square(0, 2, 3, 4)]), part(38, [square(5, 4, 8, 6)])]
"""The polygons of IDS: pycocotools fills them half-open."""


def part_json(annotations: list[dict[str, Any]], order: list[int] | None = None) -> dict[str, Any]:
    """A JSON of one image; `order` renumbers the categories."""
    new = {old: position for position, old in enumerate(order or range(40))}
    return {
        "images": [{"id": 0, "file_name": f"{STEM}.JPEG", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [
            {"id": k, "bbox": [0, 0, 1, 1], "area": 1.0} | entry | {"category_id": new[entry["category_id"]]}
            for k, entry in enumerate(annotations)
        ],
        "categories": [{"id": new[number], "name": name, "supercategory": group} for number, (name, group) in PARTS.items()],
    }


def json_set(root: Path, data: Any, json_path: str = "val.json", image_dir: str = "val/n01443537") -> Path:
    photo(root / image_dir / f"{STEM}.JPEG", SIZE)
    path = root / json_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return root


# -- the PNG release ---------------------------------------------------------------------------------------------------


def test_png_release_keeps_the_published_ids(tmp_path: Path) -> None:
    root = png_set(tmp_path / "raw", {"train": "n01440764_1", "val": STEM, "test": "n01484850_2"})
    dataset = converted("partimagenet", root, tmp_path / "out")
    assert keys_by_split(dataset) == {"train": ["n01440764_1"], "val": [STEM], "test": ["n01484850_2"]}
    for row in rows_of(dataset):
        labels = dataset.labels(row)
        assert labels.fine.tolist() == IDS.tolist()
        groups = np.array([*(list(SUPER_CATEGORIES).index(group) for _, group in PARTS.values()), 11])
        assert labels.coarse.tolist() == groups[IDS].tolist()


def test_all_ids_by_name(tmp_path: Path) -> None:
    root = png_set(tmp_path / "raw", {"train": STEM}, np.arange(41, dtype=np.uint8).reshape(1, 41))
    dataset = converted("partimagenet", root, tmp_path / "out")
    names = [dataset.hierarchy.fine.names[k] for k in dataset.labels(only(dataset)).fine[0]]
    assert names == [*(name for name, _ in PARTS.values()), "background"]


def test_background_may_be_ignored(tmp_path: Path) -> None:
    root = png_set(tmp_path / "raw", {"train": STEM})
    dataset = converted("partimagenet", root, tmp_path / "out", unlabelled="ignore")
    assert dataset.labels(only(dataset)).fine.tolist() == np.where(IDS == 40, 255, IDS).tolist()


def test_photos_of_a_class_in_a_folder_of_its_own(tmp_path: Path) -> None:
    root = png_set(tmp_path / "raw", {"train": STEM})
    (root / "images").rename(tmp_path / "photos")
    (tmp_path / "photos" / "train" / "n01443537").mkdir()
    (tmp_path / "photos" / "train" / f"{STEM}.JPEG").rename(tmp_path / "photos" / "train" / "n01443537" / f"{STEM}.JPEG")
    assert "images/train" in complaint("partimagenet", root)
    for number, images in enumerate((tmp_path / "photos", tmp_path / "photos" / "train")):
        dataset = converted("partimagenet", root, tmp_path / f"out{number}", images=images)
        assert only(dataset).key == STEM


def _whole(path: Path) -> None:
    ids_png(path, np.where(IDS == 40, 158, 3).astype(np.uint8))


def _unknown(path: Path) -> None:
    ids_png(path, np.where(IDS == 38, 41, IDS).astype(np.uint8))


def _coloured(path: Path) -> None:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)


def _transposed(path: Path) -> None:
    ids_png(path, IDS.T.copy())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def _unpaired(path: Path) -> None:
    path.rename(path.with_name("n01443537_1.png"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_whole, "SPLIT_whole"), (_unknown, "41 (6 px)"), (_coloured, "RGB"), (_transposed, "6x8"), (_cut, "truncated"),
        (_unpaired, "n01443537_1.JPEG"),
    ],
)  # fmt: skip
def test_bad_part_map(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    root = png_set(tmp_path, {"train": STEM})
    spoil(root / "annotations" / "train" / f"{STEM}.png")
    said = complaint("partimagenet", root)
    assert "n01443537_1" in said
    assert says in said


def test_two_photos_of_one_name(tmp_path: Path) -> None:
    root = png_set(tmp_path, {"train": STEM})
    photo(root / "images" / "train" / "n01443537" / f"{STEM}.JPEG", SIZE)
    assert f"{STEM}.JPEG" in complaint("partimagenet", root)


def test_what_the_pngs_do_not_have(tmp_path: Path) -> None:
    assert "--variant json" in complaint("partimagenet", tmp_path)
    assert "--variant json" in complaint("partimagenet", png_set(tmp_path, {"train": STEM}), instances=True)


# -- the JSON release --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("json_path", "image_dir"),
    [
        ("val.json", "val/n01443537"), ("annotations/val.json", "images/val"),
        ("annotations/val.json", "images/val/n01443537"), ("annotations/val/val.json", "images/val"),
    ],
)  # fmt: skip
def test_json_release_gives_the_labels_of_the_pngs(json_path: str, image_dir: str, tmp_path: Path) -> None:
    root = json_set(tmp_path / "raw", part_json(SAME), json_path, image_dir)
    dataset = converted("partimagenet", root, tmp_path / "out", variant="json")
    assert dataset.labels(only(dataset)).fine.tolist() == IDS.tolist()
    assert keys_by_split(dataset) == {"val": [STEM]}
    assert (only(dataset).n_objects, list(only(dataset).warnings)) == (3, [])


def test_file_names_may_hold_the_folder_of_the_class(tmp_path: Path) -> None:
    """As after VLPart's partimagenet_format_json.py."""
    data = part_json(SAME)
    data["images"][0]["file_name"] = f"n01443537/{STEM}.JPEG"
    dataset = converted("partimagenet", json_set(tmp_path / "raw", data), tmp_path / "out", variant="json")
    assert only(dataset).key == f"n01443537/{STEM}"
    assert dataset.labels(only(dataset)).fine.tolist() == IDS.tolist()


def test_categories_are_matched_by_name_whatever_their_ids(tmp_path: Path) -> None:
    root = json_set(tmp_path / "raw", part_json(SAME, order=list(reversed(range(40)))))
    dataset = converted("partimagenet", root, tmp_path / "out", variant="json")
    assert dataset.labels(only(dataset)).fine.tolist() == IDS.tolist()


def test_a_first_polygon_of_four_numbers_is_dropped_and_counted(tmp_path: Path) -> None:
    """pycocotools would take the whole list for boxes (the official val.json has such annotations)."""
    annotations = [
        part(9, [[1.0, 2.0, 3.0, 4.0], square(0, 0, 3, 2)]), part(10, [square(0, 2, 3, 4), [5, 5]]),
        part(38, [[1.0, 2.0, 3.0, 4.0]]), part(38, [square(5, 4, 8, 6)]),
    ]  # fmt: skip
    dataset = converted("partimagenet", json_set(tmp_path / "raw", part_json(annotations)), tmp_path / "out", variant="json")
    row = only(dataset)
    assert dataset.labels(row).fine.tolist() == IDS.tolist()
    first, second, third = row.warnings
    assert "annotation 0: 1 unusable polygon dropped" in first
    assert "annotation 1: 1 unusable polygon dropped" in second
    assert "annotation 2" in third
    assert row.n_objects == 3


@pytest.mark.parametrize("polygons", [[], None, [[]], [[0, 0, 3, 0, 3]], [[0, 0, 3, 0, 1e9, 3]], "text", [["a"] * 6]])
def test_an_annotation_that_cannot_be_drawn_leaves_the_others(polygons: Any, tmp_path: Path) -> None:
    root = json_set(tmp_path / "raw", part_json([*SAME, part(0, polygons)]))
    dataset = converted("partimagenet", root, tmp_path / "out", variant="json")
    assert dataset.labels(only(dataset)).fine.tolist() == IDS.tolist()
    assert "annotation 3" in "; ".join(only(dataset).warnings)


def test_overlapping_parts_the_smaller_on_top_with_object_numbers(tmp_path: Path) -> None:
    annotations = [part(13, [square(2, 0, 3, 1)]), part(14, [square(0, 0, 6, 1)])]
    root = json_set(tmp_path / "raw", part_json(annotations))
    dataset = converted("partimagenet", root, tmp_path / "out", variant="json", instances=True)
    numbers = dataset.instances(only(dataset))
    assert dataset.labels(only(dataset)).fine[0].tolist() == [14, 14, 13, 14, 14, 14, 40, 40]
    assert numbers is not None
    assert numbers[0].tolist() == [2, 2, 1, 2, 2, 2, 0, 0]


def _renamed(data: dict[str, Any]) -> None:
    data["categories"][0]["name"] = "Quadruped Haed"


def _outside(data: dict[str, Any]) -> None:
    data["images"][0]["file_name"] = f"../{STEM}.JPEG"


def _no_photo(data: dict[str, Any]) -> None:
    data["images"][0]["file_name"] = "n01443537_1.JPEG"


def _dangling(data: dict[str, Any]) -> None:
    data["annotations"][0]["category_id"] = 77


def _other_size(data: dict[str, Any]) -> None:
    data["images"][0]["width"] = 80


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_renamed, "Quadruped Head"), (_outside, f"../{STEM}"), (_no_photo, "n01443537_1.JPEG"), (_dangling, "77"),
        (_other_size, "80x6"),
    ],
)  # fmt: skip
def test_bad_json(spoil: Callable[[dict[str, Any]], None], says: str, tmp_path: Path) -> None:
    data = part_json(SAME)
    spoil(data)
    assert says in complaint("partimagenet", json_set(tmp_path, data), variant="json")


def test_missing_json_and_photos(tmp_path: Path) -> None:
    assert "val.json" in complaint("partimagenet", tmp_path, variant="json")
    (tmp_path / "val.json").write_text(json.dumps(part_json(SAME)))
    assert "images/val" in complaint("partimagenet", tmp_path, variant="json")
    assert "elsewhere" in complaint("partimagenet", tmp_path, variant="json", images=tmp_path / "elsewhere")
