"""LIP and CIHP: their folders and lists, persons, and the published class tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conversion import complaint, converted, keys_by_split
from raw_sets import ids_png, photo

from hiposeg_cli.convert import PrepareOptions, open_reader
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy

SIZE = (2, 10)
ALL = np.arange(20, dtype=np.uint8).reshape(SIZE)
# id -> class, by the official list; u, l: upper and lower body
TABLE = """0 background - , 1 hat u, 2 hair u, 3 glove u, 4 sunglasses u, 5 upper-clothes u, 6 dress u, 7 coat u, 8 socks l,
9 pants l, 10 TEN u, 11 scarf u, 12 skirt l, 13 face u, 14 left_arm u, 15 right_arm u, 16 left_leg l, 17 right_leg l,
18 left_shoe l, 19 right_shoe l"""
GROUPS = {"-": "background", "u": "upper_body", "l": "lower_body"}
GROUP_IDS = [[0, 1, 1, 1, 1, 1, 1, 1, 2, 2], [1, 1, 2, 1, 1, 1, 2, 2, 2, 2]]
TEN = {"lip": "jumpsuits", "cihp": "torso-skin"}


def preset(name: str) -> Hierarchy:
    return load_hierarchy(f"{name}-20-3-2")


# -- the taxonomies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lip", "cihp"])
def test_classes_groups_and_levels_are_the_published_ones(name: str) -> None:
    hierarchy = preset(name)
    rows = [entry.split() for entry in TABLE.replace("TEN", TEN[name]).split(",")]
    for raw_id, class_name, group in rows:
        node = hierarchy.fine.nodes[int(raw_id)]
        assert (node.name.replace(" ", "_"), node.parent) == (class_name, GROUPS[group])
    assert [len(level) for level in hierarchy.levels] == [20, 3, 2]
    assert hierarchy.levels[2].names == ["background", "person"]
    assert hierarchy.ancestors(2).tolist() == [0] + [1] * 19
    assert hierarchy.parent.tolist() == GROUP_IDS[0] + GROUP_IDS[1]
    assert hierarchy.background == 0


@pytest.mark.parametrize("name", ["lip", "cihp"])
def test_a_flip_swaps_left_and_right_and_nothing_else(name: str) -> None:
    assert preset(name).fine.mirror_ids().tolist() == [*range(14), 15, 14, 17, 16, 19, 18]


def test_the_two_differ_in_class_10_only() -> None:
    lip, cihp = preset("lip").fine, preset("cihp").fine
    assert [k for k in range(20) if lip.names[k] != cihp.names[k]] == [10]
    assert lip.colors().tolist() == cihp.colors().tolist()
    assert lip.colors()[[0, 2, 13, 19]].tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 255], [255, 170, 0]]
    assert preset("lip").digest != preset("cihp").digest


@pytest.mark.parametrize("spelling", ["left-arm", "left_arm", "Left arm", "UpperClothes", "Upper-clothes", "Right-shoe"])
def test_other_spellings_are_found(spelling: str) -> None:
    assert preset("lip").fine.find(spelling) is not None
    assert preset("cihp").fine.find(spelling) is not None


# -- LIP ---------------------------------------------------------------------------------------------------------------


def lip_set(root: Path, images: str, labels: str) -> Path:
    for number, (split, stem) in enumerate((("train", "77_1"), ("train", "77_2"), ("val", "88_1"))):
        photo(root / images / f"{split}_images" / f"{stem}.jpg", SIZE, seed=number)
        ids_png(root / labels / f"{split}_segmentations" / f"{stem}.png", ALL)
    return root


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("TrainVal_images", "TrainVal_parsing_annotations"),
        ("TrainVal_images/TrainVal_images", "TrainVal_parsing_annotations/TrainVal_parsing_annotations"),
        ("TrainVal_images/TrainVal_images", "/".join(["TrainVal_parsing_annotations"] * 3)),
        ("", ""),
    ],
)
def test_lip_in_every_layout(images: str, labels: str, tmp_path: Path) -> None:
    dataset = converted("lip", lip_set(tmp_path / "raw", images, labels), tmp_path / "out")
    assert keys_by_split(dataset) == {"train": ["77_1", "77_2"], "val": ["88_1"]}
    found = dataset.labels(dataset.rows["val"][0])
    assert found.fine.tolist() == ALL.tolist()
    assert found.coarse.tolist() == GROUP_IDS


def test_lip_lists_are_followed(tmp_path: Path) -> None:
    root = lip_set(tmp_path / "raw", "TrainVal_images", "TrainVal_parsing_annotations")
    path = root / "TrainVal_images" / "train_id.txt"
    path.write_text("77_2\n", encoding="utf-8")
    assert keys_by_split(converted("lip", root, tmp_path / "out")) == {"train": ["77_2"], "val": ["88_1"]}
    path.write_text("77_2\n77_3\n", encoding="utf-8")
    said = complaint("lip", root)
    assert "train_id.txt" in said
    assert "77_3: no labels in" in said
    path.write_text("77_2\n77_2\n", encoding="utf-8")
    assert "'77_2' is listed twice" in complaint("lip", root)
    path.unlink()
    (root / "TrainVal_images" / "train_images" / "77_1.jpg").unlink()
    assert "77_1: no photo in" in complaint("lip", root)


def test_lip_missing_folders(tmp_path: Path) -> None:
    assert "no train_images and train_segmentations found" in complaint("lip", tmp_path)
    (tmp_path / "TrainVal_images" / "train_images").mkdir(parents=True)
    assert "no folder train_segmentations found" in complaint("lip", tmp_path)
    (tmp_path / "train_segmentations").mkdir()
    assert "holds no *.png" in complaint("lip", tmp_path)


def test_lip_in_the_folders_of_cihp(tmp_path: Path) -> None:
    dataset = converted("lip", cihp_set(tmp_path / "raw"), tmp_path / "out")
    assert keys_by_split(dataset) == {"train": ["0000006"], "val": ["0000001"]}


@pytest.mark.parametrize("name", ["lip", "cihp"])
def test_ids_beyond_the_table_are_refused(name: str, tmp_path: Path) -> None:
    root = cihp_set(tmp_path / "raw", ALL + 1)
    assert "label ids unknown to the hierarchy: 20 (1 px)" in complaint(name, root)


# -- CIHP --------------------------------------------------------------------------------------------------------------


def cihp_set(root: Path, ids: np.ndarray = ALL) -> Path:
    for number, (split, stem) in enumerate((("Training", "0000006"), ("Validation", "0000001"))):
        photo(root / split / "Images" / f"{stem}.jpg", SIZE, seed=number)
        ids_png(root / split / "Category_ids" / f"{stem}.png", ids)
        persons = np.where(ALL > 0, 1 + (ALL > 12), 0).astype(np.uint8)
        ids_png(root / split / "Human_ids" / f"{stem}.png", persons)
        photo(root / split / "Categories" / f"{stem}.png", SIZE)
        photo(root / split / "Human" / f"{stem}.png", SIZE)
    return root


@pytest.mark.parametrize("base", ["", "instance-level_human_parsing", "/".join(["instance-level_human_parsing"] * 2)])
def test_cihp_in_every_layout(base: str, tmp_path: Path) -> None:
    cihp_set(tmp_path / "raw" / base)
    dataset = converted("cihp", tmp_path / "raw", tmp_path / "out")
    assert keys_by_split(dataset) == {"train": ["0000006"], "val": ["0000001"]}
    found = dataset.labels(dataset.rows["train"][0])
    assert found.fine.tolist() == ALL.tolist()
    assert found.coarse.tolist() == GROUP_IDS


def test_cihp_lists_are_followed(tmp_path: Path) -> None:
    root = cihp_set(tmp_path / "raw")
    photo(root / "Training" / "Images" / "0000009.jpg", SIZE)
    ids_png(root / "Training" / "Category_ids" / "0000009.png", ALL)
    (root / "Training" / "train_id.txt").write_text("0000009\n", encoding="utf-8")
    assert keys_by_split(converted("cihp", root, tmp_path / "out")) == {"train": ["0000009"], "val": ["0000001"]}


def test_cihp_persons_become_object_numbers_on_request(tmp_path: Path) -> None:
    root = cihp_set(tmp_path / "raw")
    reader = open_reader("cihp", root, PrepareOptions(reader=ReaderOptions(instances=True)))
    item = reader.items()[0]
    label = reader.read(item)
    assert label.n_objects == 2
    assert label.instances is not None
    assert label.instances.dtype == np.uint16
    assert label.instances.tolist() == [[0] + [1] * 9, [1, 1, 1, 2, 2, 2, 2, 2, 2, 2]]
    assert root / "Training" / "Human_ids" / "0000006.png" in reader.raw_files(item)
    plain = open_reader("cihp", root, PrepareOptions()).read(item)
    assert plain.instances is None


def test_cihp_coloured_folders_are_refused_by_name(tmp_path: Path) -> None:
    root = cihp_set(tmp_path / "raw")
    for folder in (root / "Training", root / "Validation"):
        (folder / "Human_ids").rename(folder / "persons")
    said = complaint("cihp", root, instances=True)
    assert "Human: holds coloured pictures, and there is no Human_ids" in said
    (root / "Training" / "Category_ids").rename(root / "Training" / "ids")
    said = complaint("cihp", root)
    assert "Categories: holds coloured pictures, and there is no Category_ids" in said
    assert "extract Category_ids" in said


def test_cihp_coloured_pictures_in_place_of_ids(tmp_path: Path) -> None:
    root = cihp_set(tmp_path / "raw")
    photo(root / "Training" / "Category_ids" / "0000006.png", SIZE)
    assert "coloured visualisation" in complaint("cihp", root)


def test_cihp_folders_that_are_not_the_right_ones(tmp_path: Path) -> None:
    root = cihp_set(tmp_path / "raw")
    said = complaint("cihp", root / "Training")
    assert "no folder Training or Validation found" in said
    assert "name the folder above Training" in said
    (root / "Training" / "Images").rename(root / "Training" / "photos")
    assert "no such folder" in complaint("cihp", root)


def test_cihp_persons_of_another_size_or_missing(tmp_path: Path) -> None:
    root = cihp_set(tmp_path / "raw")
    path = root / "Training" / "Human_ids" / "0000006.png"
    ids_png(path, np.zeros((3, 3), np.uint8))
    assert "is (3, 3), the labels (2, 10)" in complaint("cihp", root, instances=True)
    path.unlink()
    assert "no such file" in complaint("cihp", root, instances=True)
    dataset = converted("cihp", root, tmp_path / "out")  # not needed without --instances
    assert keys_by_split(dataset)["train"] == ["0000006"]
