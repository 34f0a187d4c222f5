"""CVAT and nnU-Net: both levels in one label map, read back by the rules of datumaro and of nnU-Net's LabelManager."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_sets import (
    COARSE,
    FINE,
    N_WIDE,
    WIDE_COARSE,
    Ids,
    add_instances,
    labels_of,
    photos_of,
    toy_data,
    wide_data,
    write,
)
from numpy.typing import NDArray
from PIL import Image
from raw_sets import masks_set

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError
from hiposeg_cli.exports.joint import JointLabels, unique_colors, unique_names, voc_color
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import parse_hierarchy
from hiposeg_cli.labelmap import TwoLevelMap

ODD_YAML = """
schema: hiposeg/hierarchy@1
name: odd
levels: [fine, coarse]
classes:
  coarse:
    - {id: 0, name: car}
    - {id: 1, name: "a:b"}
    - {id: 2, name: void, kind: background}
  fine:
    - {id: 0, name: "a:b", parent: car, color: [10, 0, 0]}
    - {id: 1, name: "a/b", parent: car, color: [10, 0, 0]}
    - {id: 2, name: "x, y", parent: "a:b", color: [0, 0, 0]}
    - {id: 3, name: Ignore, parent: "a:b", color: [128, 0, 0]}
    - {id: 4, name: nothing, parent: void, color: [1, 2, 3], kind: background}
    - {id: 5, name: "#noise", parent: void, color: [5, 5, 5]}
sources:
  masks:
    ignore: [255]
    map:
      {0: "a:b", 1: "a/b", 2: "x, y", 3: Ignore, 4: nothing, 5: "#noise",
       6: {coarse: car}, 7: {coarse: "a:b"}, 8: {coarse: void}}
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    return toy_data(tmp_path_factory.mktemp("toy_maps"), toy_yaml)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide_data(tmp_path_factory.mktemp("wide_maps"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Background that is not 0 and has a sibling, names that clash and that the tools reserve, shared colours."""
    root = tmp_path_factory.mktemp("odd_maps")
    (root / "odd.yaml").write_text(ODD_YAML)
    ids = np.kron(np.arange(9).reshape(3, 3), np.ones((4, 4), int)).astype(np.uint8)
    ids[0, 0] = 255
    masks_set(root / "raw", {"a": ids})
    prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(root / "odd.yaml")))
    return root / "data"


# -- joint labels ------------------------------------------------------------------------------------------------------


def test_joint_labels_by_hand(toy_hierarchy: Hierarchy) -> None:
    joint = JointLabels(toy_hierarchy)
    assert [entry.name for entry in joint.classes] == [*FINE, "car"]  # sky and background say the same on both levels
    fine = np.array([[0, 1, 6, 255, 255, 255, 255]], np.uint8)
    coarse = np.array([[0, 1, 2, 0, 1, 2, 255]], np.uint8)
    assert joint.encode(TwoLevelMap(fine, coarse)).tolist() == [[0, 1, 6, 0, 7, 6, -1]]


def test_a_coarse_class_is_not_its_namesake_among_several_children() -> None:
    text = """
schema: hiposeg/hierarchy@1
name: namesake
levels: [fine, coarse]
classes:
  coarse: [{id: 0, name: car}]
  fine: [{id: 0, name: car, parent: car}, {id: 1, name: truck, parent: car}]
"""
    joint = JointLabels(parse_hierarchy(text, "namesake.yaml"))
    assert [(entry.name, entry.fine_id) for entry in joint.classes] == [("car", 0), ("truck", 1), ("car (coarse)", None)]
    fine, coarse = np.array([[0, 1, 255]], np.uint8), np.array([[0, 0, 0]], np.uint8)
    assert joint.encode(TwoLevelMap(fine, coarse)).tolist() == [[0, 1, 2]]


def test_joint_names_differ_even_up_to_case() -> None:
    joint = JointLabels(parse_hierarchy(ODD_YAML, "odd.yaml"))
    names = [entry.name for entry in joint.classes]
    assert names == ["a:b", "a/b", "x, y", "Ignore", "nothing", "#noise", "car", "a:b (coarse)", "void"]
    assert unique_names(["Car", "car", "car (x)", "CAR"], "x") == ["Car", "car (x)", "car (x) (x)", "CAR (x 2)"]


def test_colours_are_kept_where_they_can_be() -> None:
    wanted = [(1, 2, 3), (1, 2, 3), (0, 0, 0), voc_color(1), (9, 9, 9)]
    found = unique_colors(wanted, [(0, 0, 0)])
    assert found == [(1, 2, 3), voc_color(2), voc_color(3), voc_color(1), (9, 9, 9)]
    assert [voc_color(k) for k in (0, 1, 2, 8, 255)] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (64, 0, 0), (224, 224, 192)]
    assert len({voc_color(k) for k in range(70_000)}) == 70_000


# -- CVAT --------------------------------------------------------------------------------------------------------------


def read_labelmap(path: Path) -> dict[str, tuple[tuple[int, ...], list[str]]]:
    """name -> (colour, parts) by datumaro's rule: four fields between colons, no name twice, no colour twice."""
    labels: dict[str, tuple[tuple[int, ...], list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, color, parts, _actions = line.split(":")
        assert name not in labels
        labels[name] = tuple(int(v) for v in color.split(",")), [p.strip() for p in parts.split(",")] if parts else []
    colors = [color for color, _ in labels.values()]
    assert len(set(colors)) == len(colors)
    assert len(labels) <= 256
    return labels


def looked_up(path: Path, colors: dict[tuple[int, ...], int]) -> Ids:
    """A colour PNG as ids; every colour must be known."""
    rgb = np.array(Image.open(path))
    return np.array([[colors[tuple(pixel)] for pixel in line] for line in rgb.tolist()])


def read_cvat(folder: Path, frame: str) -> tuple[NDArray[Any], NDArray[Any], Ids]:
    """(H, W) label names of the class PNG, those of the objects only (else ""), and object numbers, by datumaro's rule."""
    labels = read_labelmap(folder / "labelmap.txt")
    names = np.array(list(labels), object)
    classes = looked_up(folder / "SegmentationClass" / f"{frame}.png", {c: k for k, (c, _) in enumerate(labels.values())})
    objects = looked_up(folder / "SegmentationObject" / f"{frame}.png", {voc_color(k): k for k in range(256)})
    for number in set(objects.ravel().tolist()) - {0}:
        assert len(set(classes[objects == number].tolist())) == 1
    return names[classes], np.where(objects > 0, names[classes], ""), objects


def unpacked(export: Path, folder: Path) -> Path:
    with zipfile.ZipFile(export / "annotations.zip") as archive:
        assert archive.testzip() is None
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # the same bytes at any time
        archive.extractall(folder)
    return folder


def test_cvat_archive_reads_back_both_levels(toy: Path, tmp_path: Path) -> None:
    exported = write(toy, "cvat", tmp_path / "out")
    folder = unpacked(tmp_path / "out", tmp_path / "unpacked")
    fine, coarse, photos = labels_of(toy, "fine"), labels_of(toy, "coarse"), photos_of(toy)
    assert any("SPLIT/NAME" in text for text in exported.warnings)  # `a` is in train and in val
    listed = {
        (path.stem, line.split("/", 1)[1])
        for path in (folder / "ImageSets" / "Segmentation").iterdir()
        for line in path.read_text().splitlines()
    }
    assert listed == set(fine)
    for split, key in fine:
        expected = np.full(fine[split, key].shape, "ignored", object)
        for level, names in ((coarse, COARSE), (fine, FINE)):
            known = level[split, key] >= 0
            expected[known] = np.array(names, object)[level[split, key][known]]
        classes, found, objects = read_cvat(folder, f"{split}/{key}")
        assert (classes == expected).all()
        nothing = (expected == "ignored") | (expected == "background")
        assert (found == np.where(nothing, "", expected)).all()
        assert objects.max() == len(set(expected[~nothing].tolist()))
        placed = tmp_path / "out" / "JPEGImages" / split / f"{key}.jpg"
        assert placed.read_bytes() == photos[split, key].read_bytes()


def test_cvat_labelmap_and_hierarchy(toy: Path, tmp_path: Path) -> None:
    write(toy, "cvat", tmp_path / "out", splits=("train",), images="reference")
    labels = read_labelmap(tmp_path / "out" / "labelmap.txt")
    assert list(labels) == ["background", *FINE[1:], "car", "ignored"]
    assert labels["background"][0] == (0, 0, 0)
    assert all(not parts for _, parts in labels.values())  # CVAT's datumaro fails on a part that is a label itself
    tree = read_labelmap(tmp_path / "out" / "hierarchy_labelmap.txt")
    assert {name: color for name, (color, _) in tree.items()} == {name: color for name, (color, _) in labels.items()}
    assert {name: parts for name, (_, parts) in tree.items() if parts} == {"car": FINE[1:6]}
    for_cvat = json.loads((tmp_path / "out" / "cvat_labels.json").read_text())
    assert [entry["name"] for entry in for_cvat] == [*FINE[1:], "car"]
    assert for_cvat[0] == {"name": "wheel", "color": "#800000", "attributes": []}
    assert (tmp_path / "out" / "SegmentationClass" / "a.png").exists()
    assert not (tmp_path / "out" / "JPEGImages").exists()
    with zipfile.ZipFile(tmp_path / "out" / "annotations.zip") as archive:
        assert "hierarchy_labelmap.txt" not in archive.namelist()


def test_cvat_names_and_colours_that_it_cannot_hold_are_changed_and_said(odd: Path, tmp_path: Path) -> None:
    exported = write(odd, "cvat", tmp_path / "out")
    folder = unpacked(tmp_path / "out", tmp_path / "unpacked")
    names = ["a/b", "a/b (class)", "x; y", "Ignore", "background", "noise", "car", "a/b (coarse)", "void"]
    assert sorted(read_labelmap(folder / "labelmap.txt")) == sorted([*names, "ignored"])
    classes, _, _ = read_cvat(folder, "a")
    joint = np.kron(np.arange(9).reshape(3, 3), np.ones((4, 4), int))
    expected = np.array(names, object)[joint]
    expected[0, 0] = "ignored"
    assert (classes == expected).all()
    said = " ".join(exported.warnings)
    for word in ("'a:b' is 'a/b'", "'#noise' is 'noise'", "'nothing' is 'background'", "new colours"):
        assert word in said
    assert read_labelmap(folder / "labelmap.txt")["noise"][0] == (5, 5, 5)


def test_cvat_holds_256_labels_and_no_underscore_in_subsets(wide: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"256 labels.*--level coarse"):
        write(wide, "cvat", tmp_path / "out")
    exported = write(wide, "cvat", tmp_path / "out", level="coarse")
    assert any("'val_2' is the subset 'val-2'" in text for text in exported.warnings)
    assert (tmp_path / "out" / "ImageSets" / "Segmentation" / "val-2.txt").read_text() == "c\n"
    truth = labels_of(wide, "coarse")["val_2", "c"]
    names = np.array(["thing/ one", *WIDE_COARSE[1:], "ignored"], object)
    assert (read_cvat(tmp_path / "out", "c")[0] == names[truth]).all()
    assert not (tmp_path / "out" / "hierarchy_labelmap.txt").exists()


def test_cvat_tells_objects_apart_up_to_255(toy_yaml: Path, tmp_path: Path) -> None:
    ids = np.ones((20, 20), np.uint8)
    masks_set(tmp_path / "raw", {"few": ids, "many": ids})
    prepare("masks", tmp_path / "raw", tmp_path / "data", PrepareOptions(hierarchy=str(toy_yaml)))
    many = np.arange(400, dtype=np.uint16).reshape(20, 20)
    few = (many // 100).astype(np.uint16)
    add_instances(tmp_path / "data", {("train", "few"): few, ("train", "many"): many})
    exported = write(tmp_path / "data", "cvat", tmp_path / "out")
    assert (read_cvat(tmp_path / "out", "few")[2] == few + 1).all()
    assert (read_cvat(tmp_path / "out", "many")[2] == 1).all()
    assert any(text.startswith("1 images have more than 255 objects") for text in exported.warnings)


# -- nnU-Net -----------------------------------------------------------------------------------------------------------


def check_labels(about: dict[str, Any]) -> set[int]:
    """All label values, after the checks of nnU-Net's LabelManager and verify_dataset_integrity."""
    labels: dict[str, int | list[int]] = about["labels"]
    assert labels["background"] == 0
    used = {k for name, entry in labels.items() if name != "ignore" for k in (entry if isinstance(entry, list) else [entry])}
    if "ignore" in labels:
        assert labels["ignore"] == max(used) + 1
        used.add(int(labels["ignore"]))  # type: ignore[call-overload]
    assert used == set(range(len(used)))
    regions = [entry for name, entry in labels.items() if name not in ("background", "ignore")]
    assert any(isinstance(entry, list) for entry in regions) == ("regions_class_order" in about)
    if "regions_class_order" in about:
        assert len(about["regions_class_order"]) == len(regions)
    return used


def decoded(about: dict[str, Any], labels: Ids) -> Ids:
    """What nnU-Net would predict from perfect region scores: regions painted in the order of regions_class_order."""
    regions = [entry for name, entry in about["labels"].items() if name not in ("background", "ignore")]
    found = np.zeros_like(labels)
    for region, value in zip(regions, about["regions_class_order"], strict=True):
        found[np.isin(labels, region)] = value
    return found


def test_nnunet_labels_regions_and_splits(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset007_toy"
    write(toy, "nnunet", out)
    about = json.loads((out / "dataset.json").read_text())
    assert about["labels"] == {
        "background": 0, "car": [1, 2, 3, 4, 5, 7],
        "wheel": 1, "window": 2, "body": 3, "left_light": 4, "right_light": 5, "sky": 6, "ignore": 8,
    }  # fmt: skip
    assert about["regions_class_order"] == [7, 1, 2, 3, 4, 5, 6]
    assert (about["numTraining"], about["file_ending"]) == (5, ".png")
    assert about["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    check_labels(about)
    cases = {("train", "a"): "a", ("train", "b%20c"): "b%20c", ("train", "sub/d"): "sub__d", ("val", "a"): "a__val",
             ("val", "v"): "v", ("test", "t"): "t"}  # fmt: skip
    splits = json.loads((out / "splits_final.json").read_text())
    assert splits == [{"train": ["a", "b%20c", "sub__d"], "val": ["a__val", "v"]}]
    fine, coarse, photos = labels_of(toy, "fine"), labels_of(toy, "coarse"), photos_of(toy)
    for place, case in cases.items():
        part = "Ts" if place[0] == "test" else "Tr"
        labels = np.array(Image.open(out / f"labels{part}" / f"{case}.png")).astype(np.int64)
        expected = np.where(
            fine[place] >= 0, fine[place], np.where(coarse[place] == 1, 7, np.where(coarse[place] < 0, 8, -9))
        )
        assert (labels == expected).all()
        known = labels != 8
        assert (decoded(about, labels)[known] == labels[known]).all()
        assert (np.isin(labels, about["labels"]["car"])[known] == (coarse[place] == 1)[known]).all()
        image = np.array(Image.open(out / f"images{part}" / f"{case}_0000.png"))
        assert (image == np.array(Image.open(photos[place]).convert("RGB"))).all()
    assert sorted(path.name for path in (out / "imagesTr").iterdir()) == sorted(
        f"{case}_0000.png" for (split, _), case in cases.items() if split != "test"
    )


def test_nnunet_coarse_level_has_no_regions(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset007_toy"
    write(toy, "nnunet", out, level="coarse", splits=("train",))
    about = json.loads((out / "dataset.json").read_text())
    assert about["labels"] == {"background": 0, "car": 1, "sky": 2, "ignore": 3}
    check_labels(about)
    assert not (out / "splits_final.json").exists()
    truth = labels_of(toy, "coarse")["train", "sub/d"]
    assert (np.array(Image.open(out / "labelsTr" / "sub__d.png")) == np.where(truth < 0, 3, truth)).all()


def test_nnunet_moves_background_to_0_and_renames_reserved_names(odd: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset123_odd"
    exported = write(odd, "nnunet", out)
    about = json.loads((out / "dataset.json").read_text())
    assert about["labels"] == {
        "background": 0, "car": [1, 2, 6], "a:b (coarse)": [3, 4, 7],
        "a:b": 1, "a/b": 2, "x, y": 3, "Ignore (class)": 4, "#noise": 5, "void": 8, "ignore": 9,
    }  # fmt: skip
    check_labels(about)
    assert any("'nothing' is called 'background'" in text for text in exported.warnings)
    labels = np.array(Image.open(out / "labelsTr" / "a.png")).astype(np.int64)
    assert labels[::4, ::4].tolist() == [[9, 2, 3], [4, 0, 5], [6, 7, 8]]
    assert labels[1, 1] == 1
    assert (decoded(about, labels)[1:] == labels[1:]).all()


def test_nnunet_without_background_leaves_0_unused(wide: Path, tmp_path: Path) -> None:
    out = tmp_path / "Dataset123_wide"
    write(wide, "nnunet", out)
    about = json.loads((out / "dataset.json").read_text())
    used = check_labels(about)
    assert max(used) == 1 + N_WIDE + 3 == about["labels"]["ignore"]
    fine, coarse = labels_of(wide, "fine"), labels_of(wide, "coarse")
    for (split, key), truth in fine.items():
        stored = np.array(Image.open(out / "labelsTr" / f"{key}.png"))
        assert stored.dtype == np.uint16
        only = N_WIDE + 1 + coarse[split, key]
        expected = np.where(truth >= 0, truth + 1, np.where(coarse[split, key] < 0, 1 + N_WIDE + 3, only))
        assert (stored == expected).all()


def test_nnunet_of_the_test_split_only_says_so(toy: Path, tmp_path: Path) -> None:
    exported = write(toy, "nnunet", tmp_path / "Dataset001_x", splits=("test",))
    assert any("nothing to train on" in text for text in exported.warnings)
    assert json.loads((tmp_path / "Dataset001_x" / "dataset.json").read_text())["numTraining"] == 0
