"""Readers of raw annotations: expectations worked out by hand, and malformed input refused in words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image
from pycocotools import mask as rle
from raw_sets import (
    RawObject,
    box,
    coco_json,
    coco_set,
    grey_png,
    ids_png,
    mat,
    pascal_set,
    photo,
    square,
)

from hiposeg_cli.convert import Prepared, PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError, HiposegError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.store import Dataset, Row, open_dataset

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

X = 255  # ignore
SIZE = (6, 8)  # height, width of most pictures here


def converted(format_name: str, root: Path, out: Path, hierarchy: object = None, **reader: Any) -> Dataset:
    options = PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))
    result = prepare(format_name, root, out, options)
    assert [str(error) for error in result.failures] == []
    return open_dataset(out)


def only(dataset: Dataset) -> Row:
    (row,) = (row for split in dataset.rows.values() for row in split)
    return row


def maps(dataset: Dataset) -> tuple[list[list[int]], list[list[int]]]:
    """Fine and coarse of the only image, as lists."""
    labels = dataset.labels(only(dataset))
    return labels.fine.tolist(), labels.coarse.tolist()


def complaint(format_name: str, root: Path, hierarchy: object = None, **reader: Any) -> str:
    """The one thing `prepare` says against a source, raised or collected; any other exception fails the test."""
    options = PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))
    try:
        result: Prepared = prepare(format_name, root, None, options)
    except HiposegError as error:
        return str(error)
    assert result.failures, "nothing was refused"
    return str(result.failures[0])


# == PASCAL-Part =======================================================================================================


def part_ids(*names: str) -> list[int]:
    return [load_hierarchy("pascal-part-108").fine.names.index(name) for name in names]


def test_pascal_small_part_under_a_big_one_in_file_order_and_on_top_in_area_order(tmp_path: Path) -> None:
    shape = (2, 5)
    car = RawObject(
        "car",
        box(shape, 0, 0, 2, 4),
        (("fliplate", box(shape, 0, 1, 1, 2)), ("backside", box(shape, 0, 0, 1, 3)), ("wheel_3", box(shape, 1, 0, 2, 1))),
    )
    root = pascal_set(tmp_path / "raw", [car], shape)
    side, plate, wheel = part_ids("car_rightside", "car_fliplate", "car_wheel")
    published = converted("pascal-part", root, tmp_path / "published")
    by_area = converted("pascal-part", root, tmp_path / "area", part_order="area")
    coarse = [[7, 7, 7, 7, 0], [7, 7, 7, 7, 0]]
    assert maps(published) == ([[side, side, side, X, 0], [wheel, X, X, X, 0]], coarse)
    assert maps(by_area) == ([[side, plate, side, X, 0], [wheel, X, X, X, 0]], coarse)
    for row in (only(published), only(by_area)):
        assert (row.part_overlap_px, row.uncovered_px, row.overlap_px, row.n_objects) == (1, 4, 0, 1)


def test_pascal_uncovered_pixels_keep_their_object_or_become_background(tmp_path: Path) -> None:
    shape = (1, 4)
    tv = RawObject("tvmonitor", box(shape, 0, 0, 1, 3), (("screen", box(shape, 0, 1, 1, 2)),))
    root = pascal_set(tmp_path / "raw", [tv], shape)
    (screen,) = part_ids("tvmonitor_screen")
    kept = converted("pascal-part", root, tmp_path / "kept")
    lost = converted("pascal-part", root, tmp_path / "lost", uncovered="background")
    named = converted("pascal-part", root, tmp_path / "named", "pascal-part-58")
    assert maps(kept) == ([[X, screen, X, 0]], [[20, 20, 20, 0]])
    assert maps(lost) == ([[0, screen, 0, 0]], [[0, 20, 0, 0]])
    assert maps(named) == ([[57, 56, 57, 0]], [[20, 20, 20, 0]])
    assert [only(data).coarse_only_px for data in (kept, lost, named)] == [2, 0, 0]
    assert [only(data).uncovered_px for data in (kept, lost, named)] == [2, 2, 2]


def test_pascal_later_object_wins_with_its_whole_silhouette(tmp_path: Path) -> None:
    shape = (1, 5)
    person = RawObject("person", box(shape, 0, 0, 1, 4), (("torso", box(shape, 0, 0, 1, 4)),))
    boat = RawObject("boat", box(shape, 0, 2, 1, 5))  # parts of shape (0, 0)
    torso, boat_id = part_ids("person_torso", "boat")
    root = pascal_set(tmp_path / "boat_last", [person, boat], shape)
    dataset = converted("pascal-part", root, tmp_path / "out1")
    assert maps(dataset) == ([[torso, torso, boat_id, boat_id, boat_id]], [[15, 15, 4, 4, 4]])
    assert (only(dataset).overlap_px, only(dataset).n_objects) == (2, 2)
    root = pascal_set(tmp_path / "boat_first", [boat, person], shape)
    assert maps(converted("pascal-part", root, tmp_path / "out2"))[0] == [[torso, torso, torso, torso, boat_id]]


def test_pascal_car_under_a_partless_cat_does_not_show_through(tmp_path: Path) -> None:
    shape = (1, 3)
    car = RawObject("car", box(shape, 0, 0, 1, 3), (("wheel_1", box(shape, 0, 0, 1, 3)),))
    cat = RawObject("cat", box(shape, 0, 1, 1, 2))
    (wheel,) = part_ids("car_wheel")
    dataset = converted("pascal-part", pascal_set(tmp_path / "raw", [car, cat], shape), tmp_path / "out")
    assert maps(dataset) == ([[wheel, X, wheel]], [[7, 8, 7]])


def test_pascal_ignored_part_keeps_its_object(tmp_path: Path) -> None:
    shape = (1, 3)
    mirror = (("leftmirror", box(shape, 0, 1, 1, 2)), ("rightmirror", box(shape, 0, 2, 1, 3)))
    objects = [RawObject("car", box(shape, 0, 0, 1, 3), (("door_2", box(shape, 0, 0, 1, 3)), *mirror))]
    (door,) = part_ids("car_door")
    dataset = converted("pascal-part", pascal_set(tmp_path / "raw", objects, shape), tmp_path / "out")
    assert maps(dataset) == ([[door, X, X]], [[7, 7, 7]])
    assert only(dataset).uncovered_px == 0


def test_pascal_empty_mask_and_part_outside_its_object_are_reported(tmp_path: Path) -> None:
    shape = (1, 4)
    parts = (("torso", box(shape, 0, 0, 1, 3)), ("hair", box(shape, 0, 0, 0, 0)))
    objects = [RawObject("person", box(shape, 0, 0, 1, 2), parts), RawObject("boat", box(shape, 0, 0, 0, 0))]
    dataset = converted("pascal-part", pascal_set(tmp_path / "raw", objects, shape), tmp_path / "out")
    (torso,) = part_ids("person_torso")
    assert maps(dataset)[0] == [[torso, torso, 0, 0]]
    said = "; ".join(only(dataset).warnings)
    assert "torso reaches 1 px" in said
    assert "hair has an empty mask" in said
    assert "boat has an empty mask" in said


def test_pascal_split_lists_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for stem in ("2008_1", "2008_2", "2008_3"):
        pascal_set(root, [RawObject("boat", box((2, 2), 0, 0, 1, 1))], (2, 2), stem)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("2008_2\n")
    (lists / "val.txt").write_text("2008_1\n")
    dataset = converted("pascal-part", root, tmp_path / "out")
    assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {
        "train": ["2008_2"],
        "val": ["2008_1"],
    }
    (lists / "val.txt").write_text("2008_1\n2008_2\n")
    said = complaint("pascal-part", root)
    assert "val.txt" in said
    assert "2008_2" in said


def test_pascal_objects_and_parts_stored_as_columns_are_all_read(tmp_path: Path) -> None:
    shape = (1, 4)
    root = tmp_path / "raw"
    photo(root / "JPEGImages" / "a.jpg", shape)
    parts = np.zeros((2, 1), [("part_name", object), ("mask", object)])
    parts[0, 0], parts[1, 0] = ("torso", box(shape, 0, 0, 1, 1)), ("hair", box(shape, 0, 1, 1, 2))
    objects = np.zeros((2, 1), [(field, object) for field in ("class", "class_ind", "mask", "parts")])
    objects[0, 0] = ("person", np.uint8(15), box(shape, 0, 0, 1, 2), parts)
    objects[1, 0] = ("boat", np.uint8(4), box(shape, 0, 2, 1, 3), np.zeros((0, 0), parts.dtype))
    (root / "Annotations_Part").mkdir()
    scipy.io.savemat(root / "Annotations_Part" / "a.mat", {"anno": {"imname": "a", "objects": objects}})
    dataset = converted("pascal-part", root, tmp_path / "out")
    assert maps(dataset)[0] == [[*part_ids("person_torso", "person_hair", "boat"), 0]]


def person(**changes: Any) -> RawObject:
    fields: dict[str, Any] = {"name": "person", "mask": box(SIZE, 0, 0, 3, 3), "parts": (("torso", box(SIZE, 0, 0, 2, 2)),)}
    return RawObject(**{**fields, **changes})


MAT = "2008_000001.mat"


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([person(name="zebra")], ["zebra"]),
        ([person(name="persn", class_ind=15)], ["persn", "person"]),
        ([person(parts=(("torsso", box(SIZE, 0, 0, 1, 1)),))], ["torsso", "torso"]),
        ([person(parts=(("wheel_1", box(SIZE, 0, 0, 1, 1)),))], ["wheel_1"]),
        ([person(class_ind=7)], ["person", "7", "15"]),
        ([person(class_ind=np.zeros((0, 0)))], []),
        ([person(class_ind=float("inf"))], []),
        ([person(class_ind=float("nan"))], []),
        ([person(mask=box((5, 8), 0, 0, 2, 2), parts=())], ["8x5", "8x6"]),
        ([person(parts=(("torso", box((6, 7), 0, 0, 2, 2)),))], ["(6, 7)", "(6, 8)"]),
        ([person(), person(mask=box((9, 9), 0, 0, 2, 2), parts=())], ["(9, 9)"]),
        ([person(mask=np.zeros((*SIZE, 3), np.uint8), parts=())], []),
        ([person(mask="text", parts=())], []),
        ([person(mask={"field": 1.0}, parts=())], []),
        ([person(mask=np.array([[1, "a"], [2, 3]], object), parts=())], []),
        ([person(mask=scipy.sparse.csc_matrix(box(SIZE, 0, 0, 2, 2).astype(float)), parts=())], []),
        ([person(parts=(("torso", "text"),))], []),
        ([person(parts=((3.0, box(SIZE, 0, 0, 1, 1)),))], ["3"]),
        ([], ["no objects"]),
    ],
    ids=[
        "class", "class-typo", "part-typo", "part-of-another-object", "class_ind", "class_ind-empty", "class_ind-inf",
        "class_ind-nan", "size", "part-size", "second-size", "three-dimensional", "mask-text", "mask-struct", "mask-cell",
        "mask-sparse", "part-mask-text", "part-name-number", "empty",
    ],
)  # fmt: skip
def test_pascal_bad_objects(objects: list[RawObject], says: list[str], tmp_path: Path) -> None:
    said = complaint("pascal-part", pascal_set(tmp_path, objects, SIZE))
    assert MAT in said
    assert [word for word in says if word not in said] == []


def _without_anno(path: Path) -> None:
    scipy.io.savemat(path, {"annotation": 1})


def _anno_is_a_number(path: Path) -> None:
    scipy.io.savemat(path, {"anno": np.eye(3)})


def _no_objects_field(path: Path) -> None:
    scipy.io.savemat(path, {"anno": {"imname": "a"}})


def _objects_without_mask(path: Path) -> None:
    objects = np.zeros((1, 1), [("class", object), ("class_ind", object), ("parts", object)])
    objects[0, 0] = ("boat", np.uint8(4), np.zeros((0, 0)))
    scipy.io.savemat(path, {"anno": {"objects": objects}})


def _part_without_mask(path: Path) -> None:
    parts = np.zeros((1, 1), [("part_name", object)])
    parts[0, 0] = ("torso",)
    objects = np.zeros((1, 1), [(field, object) for field in ("class", "class_ind", "mask", "parts")])
    objects[0, 0] = ("person", np.uint8(15), box(SIZE, 0, 0, 1, 1), parts)
    scipy.io.savemat(path, {"anno": {"objects": objects}})


def _v73(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n" + b"\0" * 64)


def _hdf5(path: Path) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 500)


def _text(path: Path) -> None:
    path.write_bytes(b"<html><body>404</body></html>" * 20)


def _short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:125])


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(255 - value for value in data[len(data) // 2 :])
    path.write_bytes(bytes(data))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _gone(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_anno, "anno"), (_anno_is_a_number, "anno"), (_no_objects_field, "objects"),
        (_objects_without_mask, "mask"), (_part_without_mask, "mask"), (_v73, "7.3"), (_hdf5, "7.3"), (_text, ""),
        (_short, ""), (_truncated, ""), (_flipped, ""), (_empty, ""), (_gone, ""),
    ],
)  # fmt: skip
def test_pascal_bad_mat_file(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    root = pascal_set(tmp_path, [person()], SIZE)
    spoil(root / "Annotations_Part" / MAT)
    said = complaint("pascal-part", root)
    assert MAT in said
    assert says in said


def test_pascal_missing_folders_and_images(tmp_path: Path) -> None:
    assert "nowhere" in complaint("pascal-part", tmp_path / "nowhere")
    (tmp_path / "raw").mkdir()
    assert "Annotations_Part" in complaint("pascal-part", tmp_path / "raw")
    mat(tmp_path / "raw" / "Annotations_Part" / "a.mat", [person()])
    assert "JPEGImages" in complaint("pascal-part", tmp_path / "raw")
    assert "photos" in complaint("pascal-part", tmp_path / "raw", images=tmp_path / "photos")
    photo(tmp_path / "raw" / "JPEGImages" / "b.jpg", SIZE)
    assert "a.mat" in complaint("pascal-part", tmp_path / "raw")
    (tmp_path / "raw" / "Annotations_Part" / "a.mat").unlink()
    assert "Annotations_Part" in complaint("pascal-part", tmp_path / "raw")


def test_pascal_split_list_that_is_not_text(tmp_path: Path) -> None:
    root = pascal_set(tmp_path, [person()], SIZE)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(b"2008_000001\n\xff\xfe\n")
    assert "train.txt" in complaint("pascal-part", root)


def test_pascal_source_that_is_an_archive(tmp_path: Path) -> None:
    (tmp_path / "trainval.tar.gz").write_bytes(b"\x1f\x8b")
    said = complaint("pascal-part", tmp_path / "trainval.tar.gz")
    assert "trainval.tar.gz" in said
    assert "extract" in said


# == Cityscapes ========================================================================================================

FRAME = "bonn_000001_000019"


def cityscapes_set(root: Path, ids: Any, split: str = "train", frame: str = FRAME) -> Path:
    array = np.array(ids, np.uint8)
    city = frame.split("_")[0]
    photo(root / "leftImg8bit" / split / city / f"{frame}_leftImg8bit.png", (array.shape[0], array.shape[1]))
    ids_png(root / "gtFine" / split / city / f"{frame}_gtFine_labelIds.png", array)
    return root


def test_cityscapes_look_up_by_hand(tmp_path: Path) -> None:
    root = cityscapes_set(tmp_path / "raw", [[7, 8, 11, 23, 24, 33], [0, 6, 9, 18, 29, 30]])
    cityscapes_set(root, [[26, 31]], "val", "bochum_000000_000000")
    dataset = converted("cityscapes", root, tmp_path / "out")
    (train,), (val,) = dataset.split("train"), dataset.split("val")
    assert train.key == f"bonn/{FRAME}"
    labels = dataset.labels(train)
    assert labels.fine.tolist() == [[0, 1, 2, 10, 11, 18], [X] * 6]
    assert labels.coarse.tolist() == [[0, 0, 1, 4, 5, 6], [X] * 6]
    assert dataset.labels(val).fine.tolist() == [[13, 16]]
    assert train.ignore_px == 6


def test_cityscapes_train_ids_in_place_of_label_ids(tmp_path: Path) -> None:
    said = complaint("cityscapes", cityscapes_set(tmp_path, [[0, 1, 18, 255]]))
    assert f"{FRAME}_gtFine_labelIds.png" in said
    assert "trainIds" in said


def test_cityscapes_unknown_ids_are_listed_with_their_pixels(tmp_path: Path) -> None:
    said = complaint("cityscapes", cityscapes_set(tmp_path, [[7, 34, 34, 34, 99, 26]]))
    assert f"{FRAME}_gtFine_labelIds.png" in said
    assert "34 (3 px)" in said
    assert "99 (1 px)" in said


def test_cityscapes_missing_parts(tmp_path: Path) -> None:
    root = cityscapes_set(tmp_path / "raw", [[7]])
    frame = root / "leftImg8bit" / "train" / "bonn" / f"{FRAME}_leftImg8bit.png"
    frame.unlink()
    said = complaint("cityscapes", root)
    assert f"{FRAME}_gtFine_labelIds.png" in said
    assert frame.name in said
    shutil.rmtree(root / "leftImg8bit")
    assert "leftImg8bit" in complaint("cityscapes", root)
    shutil.rmtree(root / "gtFine")
    assert "gtFine" in complaint("cityscapes", root)
    (root / "gtFine").mkdir()
    (root / "leftImg8bit").mkdir()
    assert "labelIds" in complaint("cityscapes", root)


def test_cityscapes_instance_ids_in_place_of_label_ids(tmp_path: Path) -> None:
    root = cityscapes_set(tmp_path, [[7, 26]])
    path = root / "gtFine" / "train" / "bonn" / f"{FRAME}_gtFine_labelIds.png"
    ids_png(path, np.array([[7, 26001]], np.uint16))
    said = complaint("cityscapes", root)
    assert path.name in said
    assert "26001 (1 px)" in said


def test_option_of_another_format_is_refused(tmp_path: Path) -> None:
    root = cityscapes_set(tmp_path, [[7]])
    with pytest.raises(ConfigError, match="--part-order"):
        prepare("cityscapes", root, None, PrepareOptions(reader=ReaderOptions(part_order="area")))


def test_unknown_format_and_hierarchy_without_a_source(tmp_path: Path) -> None:
    assert "cityscapes" in complaint("cityscape", tmp_path)
    assert "wbc-3-2" in complaint("cityscapes", tmp_path, "wbc-3-2")
    assert "--hierarchy" in complaint("masks", tmp_path)
    assert "cityscapes-19-7" in complaint("cityscapes", tmp_path, "cityscapes-19-8")


# == COCO ==============================================================================================================


def test_coco_small_annotation_wins_crowd_lies_under_and_ties_go_by_id(tmp_path: Path, toy_yaml: Path) -> None:
    shape = (3, 6)
    crowd = np.zeros(shape, np.uint8)
    crowd[0] = 1  # the whole first row
    counts = [0, 1] + [2, 1] * 5 + [2]  # column by column: one pixel in, two out
    assert sum(counts) == crowd.size
    annotations = [
        {"category_id": 1, "segmentation": [square(0, 0, 1, 2)]},  # wheel: 2 px, smallest
        {"category_id": 3, "iscrowd": 1, "segmentation": {"counts": counts, "size": list(shape)}},
        {"category_id": 2, "segmentation": [square(0, 0, 4, 2)]},  # body: 8 px
        {"category_id": 1, "segmentation": [square(3, 1, 5, 3)]},  # 4 px, id 4
        {"category_id": 2, "segmentation": [square(4, 1, 6, 3)]},  # 4 px, id 5: on top of id 4
    ]
    root = coco_set(tmp_path / "raw", coco_json(annotations, shape), shape)
    dataset = converted("coco", root, tmp_path / "out", toy_yaml)
    fine = [[1, 3, 3, 3, X, X], [1, 3, 3, 1, 3, 3], [0, 0, 0, 1, 3, 3]]
    coarse = [[1, 1, 1, 1, X, X], [1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert maps(dataset) == (fine, coarse)
    row = only(dataset)
    assert (row.n_objects, row.overlap_px, row.ignore_px) == (5, 2 + 2 + 1, 2)


def test_coco_unlabelled_pixels_by_option(tmp_path: Path, toy_yaml: Path) -> None:
    root = coco_set(tmp_path / "raw", coco_json([{"segmentation": [square(0, 0, 1, 1)]}], (1, 3)), (1, 3))
    assert maps(converted("coco", root, tmp_path / "background", toy_yaml))[0] == [[1, 0, 0]]
    assert maps(converted("coco", root, tmp_path / "ignore", toy_yaml, unlabelled="ignore"))[0] == [[1, X, X]]
    assert "background" in complaint("coco", root, "coco-80-12", unlabelled="background")


def test_coco_compressed_and_uncompressed_rle_equal_the_polygon(tmp_path: Path, toy_yaml: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[1:5, 2:7] = 1
    compressed = rle.encode(np.asfortranarray(mask))
    flat = mask.ravel(order="F").tolist()
    counts, value = [0], 0
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    found = []
    forms: list[Any] = [
        [square(2, 1, 7, 5)],
        {"counts": counts, "size": list(SIZE)},
        {"counts": compressed["counts"].decode(), "size": list(SIZE)},
    ]
    for number, form in enumerate(forms):
        root = coco_set(tmp_path / f"raw{number}", coco_json([{"segmentation": form}]))
        dataset = converted("coco", root, tmp_path / f"out{number}", toy_yaml)
        assert only(dataset).warnings == []
        found.append(maps(dataset)[0])
    assert found == [mask.tolist()] * 3  # wheel has fine id 1


def test_coco_compressed_rle_of_random_masks_equals_the_mask(tmp_path: Path, toy_yaml: Path) -> None:
    """Long and short runs, rising and falling, so that every branch of the code for run lengths is taken."""
    rng = np.random.default_rng(5)
    shape = (40, 50)
    for number, share in enumerate((0.001, 0.03, 0.5, 0.97, 0.999)):
        mask = (rng.random(shape) < share).astype(np.uint8)
        encoded = rle.encode(np.asfortranarray(mask))
        form = {"counts": encoded["counts"].decode(), "size": list(shape)}
        data = coco_json([{"segmentation": form}], shape)
        dataset = converted("coco", coco_set(tmp_path / f"raw{number}", data, shape), tmp_path / f"out{number}", toy_yaml)
        assert only(dataset).warnings == []
        assert np.array_equal(dataset.labels(only(dataset)).fine, mask)


def test_coco_category_known_on_the_coarse_level_only(tmp_path: Path, toy_yaml: Path) -> None:
    data = coco_json([{"category_id": 1, "segmentation": [square(0, 0, 2, 1)]}], (1, 3), names=["car"])
    dataset = converted("coco", coco_set(tmp_path / "raw", data, (1, 3)), tmp_path / "out", toy_yaml)
    assert maps(dataset) == ([[X, X, 0]], [[1, 1, 0]])
    assert not dataset.coarse_is_function_of_fine


def test_coco_image_without_annotations_is_kept(tmp_path: Path, toy_yaml: Path) -> None:
    data = coco_json([{"segmentation": [square(0, 0, 2, 2)]}], images=["a.jpg", "empty.jpg"])
    dataset = converted("coco", coco_set(tmp_path / "raw", data), tmp_path / "out", toy_yaml)
    assert [row.key for row in dataset.split("train")] == ["a", "empty"]
    assert dataset.split("train")[1].fine_counts == {"0": 48}


def test_coco_byte_order_mark_is_accepted(tmp_path: Path, toy_yaml: Path) -> None:
    text = json.dumps(coco_json([{"segmentation": [square(0, 0, 2, 2)]}]))
    root = coco_set(tmp_path / "raw", b"\xef\xbb\xbf" + text.encode())
    assert only(converted("coco", root, tmp_path / "out", toy_yaml)).fine_counts == {"0": 44, "1": 4}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"segmentation": [[1, 1, 4, 4], square(0, 0, 2, 2)]}, "polygon"),
        ({"segmentation": [square(0, 0, 2, 2), [0, 0, 5, 0, 5, 5, 0]]}, "polygon"),
        ({"segmentation": [square(0, 0, 2, 2), [0, 0, 5, "5", 5, 5]]}, "polygon"),
        ({"segmentation": [square(0, 0, 2, 2), [1e999, 0, 5, 5, 5, 0]]}, "polygon"),
    ],
    ids=["four-numbers-first", "odd", "text", "infinite"],
)
def test_coco_bad_polygon_beside_a_good_one(bad: dict[str, Any], says: str, tmp_path: Path, toy_yaml: Path) -> None:
    """The good polygon is kept (upstream loses the annotation), and the other is not dropped in silence."""
    text = json.dumps(coco_json([bad])).replace("Infinity", "1e999")
    dataset = converted("coco", coco_set(tmp_path / "raw", text), tmp_path / "out", toy_yaml)
    assert only(dataset).fine_counts == {"0": 44, "1": 4}
    said = "; ".join(only(dataset).warnings)
    assert "annotation 1" in said
    assert says in said


HUGE = 10**400  # a whole number that JSON may hold and a float cannot


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([[1, 1, 4, 4]], "polygon"),
        ([[1, 1, 4, 4, 2]], "polygon"),
        ([[HUGE, 1, 4, 4, 2, 2]], "polygon"),
        ([], "segmentation"),
        (None, "segmentation"),
        ("text", "segmentation"),
        ({"counts": [48], "size": [8, 6]}, "[8, 6]"),
        ({"counts": [10, 10], "size": [6, 8]}, "20"),
        ({"counts": [40, 40], "size": [6, 8]}, "80"),
        ({"counts": [50, -2], "size": [6, 8]}, "counts"),
        ({"counts": [47.5, 0.5], "size": [6, 8]}, "counts"),
        ({"counts": None, "size": [6, 8]}, "counts"),
        ({"counts": [48]}, "None"),
        ({"counts": "\u00e9\u00e9", "size": [6, 8]}, "broken"),
        ({"counts": "oooo", "size": [6, 8]}, "broken"),
        ({"counts": "`" + "0" * 30, "size": [6, 8]}, "sum"),
        ({"counts": " ", "size": [6, 8]}, "broken"),
        ({"counts": "", "size": [6, 8]}, "0"),
    ],
    ids=[
        "box", "odd", "huge", "empty", "null", "text", "rle-of-other-size", "rle-too-short", "rle-too-long", "rle-negative",
        "rle-fractions", "rle-null", "rle-without-size", "rle-not-ascii", "rle-cut", "rle-wrong-sum", "rle-space",
        "rle-blank",
    ],
)  # fmt: skip
def test_coco_bad_geometry_is_skipped_and_said(segmentation: Any, says: str, tmp_path: Path, toy_yaml: Path) -> None:
    data = coco_json([{"id": 77, "segmentation": segmentation}, {"segmentation": [square(0, 0, 2, 2)]}])
    dataset = converted("coco", coco_set(tmp_path / "raw", data), tmp_path / "out", toy_yaml)
    assert only(dataset).fine_counts == {"0": 44, "1": 4}  # the other annotation is there
    said = "; ".join(only(dataset).warnings)
    assert "annotation 77" in said
    assert says in said
    assert "\n" not in said


@pytest.mark.parametrize("far", [1e5, 1e9, 1e300])
def test_coco_polygon_reaching_far_outside_neither_crashes_nor_fills_the_memory(
    far: float, tmp_path: Path, toy_yaml: Path
) -> None:
    """pycocotools walks the whole outline at five steps a pixel, in C and with int coordinates."""
    data = coco_json([{"segmentation": [[0, 0, far, 0, far, 3, 0, 3]]}, {"segmentation": [square(0, 4, 2, 6)]}])
    coco_set(tmp_path / "raw", data)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "from hiposeg_cli.convert import PrepareOptions, prepare\n"
        "result = prepare('coco', Path(sys.argv[1]), Path(sys.argv[2]), PrepareOptions(hierarchy=sys.argv[3]))\n"
        "print(len(result.failures), result.report['images'])\n"
    )
    arguments = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "raw"), str(tmp_path / "out"), str(toy_yaml)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    row = only(open_dataset(tmp_path / "out"))
    clipped = {"0": 20, "1": 28}  # the outline cut off at the picture: 3 rows of 8, and the square
    assert row.fine_counts == clipped or (row.fine_counts == {"0": 44, "1": 4} and "annotation 1" in row.warnings[0])


JSON = "instances_train2017.json"
GOOD = [{"segmentation": [square(0, 0, 2, 2)]}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [', ":1:13"),
        ('{"images": [],\n "annotations": [],}', ":2:"),
        ('{"images": [{"id": NaN}]}', "NaN"),
        ('{"images": [{"id": Infinity}]}', "Infinity"),
        ("[1, 2]", "images"),
        ("", "empty"),
        ('{"images": [], "annotations": [], "categories": []}', "no images"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}', "categories"),
        ('{"images": {}, "annotations": [], "categories": []}', "images"),
        ("[" * 100_000, ""),
        (json.dumps({"images": [], "annotations": [], "categories": []}).encode("utf-16"), "UTF-8"),
        ('{"images": [{"id": 1' + "0" * 5000 + "}]}", ""),
        ('{"images": [], "images": [], "annotations": [], "categories": []}', "images"),
    ],
    ids=[
        "truncated", "trailing-comma", "nan", "infinity", "list", "zero-byte", "no-images", "no-categories", "wrong-type",
        "nested", "utf-16", "5000-digits", "duplicate-key",
    ],
)  # fmt: skip
def test_coco_broken_json(text: str | bytes, says: str, tmp_path: Path, toy_yaml: Path) -> None:
    said = complaint("coco", coco_set(tmp_path, text), toy_yaml)
    assert JSON in said
    assert says in said


def test_coco_panoptic_file_in_place_of_instances(tmp_path: Path, toy_yaml: Path) -> None:
    data = {**coco_json(GOOD), "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}]}
    assert "use the format coco-panoptic" in complaint("coco", coco_set(tmp_path, data), toy_yaml)


def test_coco_key_written_twice_in_one_object_is_named(tmp_path: Path, toy_yaml: Path) -> None:
    good = json.dumps(coco_json(GOOD))
    twice = good.replace('"category_id": 1', '"category_id": 2, "category_id": 1')
    assert twice != good
    said = complaint("coco", coco_set(tmp_path, twice), toy_yaml)
    assert JSON in said
    assert "category_id" in said


def _change(data: dict[str, Any], **lists: Any) -> dict[str, Any]:
    return {**data, **lists}


def _with_annotation(**fields: Any) -> dict[str, Any]:
    return coco_json([{"id": 5, "segmentation": [square(0, 0, 2, 2)], **fields}])


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (_change(coco_json(GOOD), images=[IMAGE, {**IMAGE, "file_name": "b.jpg"}]), ["images", "1"]),
        (coco_json([*GOOD, {**GOOD[0], "id": 1}]), ["annotations", "1"]),
        (_change(coco_json(GOOD), categories=[{"id": 1, "name": "wheel"}, {"id": 1, "name": "sky"}]), ["categories", "1"]),
        (_with_annotation(image_id=404), ["image_id", "404", "5"]),
        (_with_annotation(image_id="1"), ["image_id", "'1'", "5"]),
        (_with_annotation(image_id=None), ["image_id", "5"]),
        (_with_annotation(image_id=[1]), ["image_id", "5"]),
        (_with_annotation(category_id=9), ["category_id", "9", "5"]),
        (_with_annotation(category_id={"id": 1}), ["category_id", "5"]),
        (_with_annotation(id="x"), ["annotations"]),
        (_change(coco_json(GOOD), images=[{"id": 1}]), ["images", "file_name"]),
        (_change(coco_json(GOOD), images=["a.jpg"]), ["images"]),
        (_change(coco_json(GOOD), images=[{"id": None, "file_name": "a.jpg"}]), ["images"]),
        (_change(coco_json(GOOD), categories=[{"id": 1}]), ["categories", "name"]),
        (_change(coco_json(GOOD), categories=[]), ["lists no categories"]),
        (coco_json(GOOD, names=["wheeel"]), ["wheeel", "wheel"]),
        (_change(coco_json(GOOD), categories=[{"id": 2**62, "name": "sky"}, {"id": 1, "name": "wheel"}]), [str(2**62)]),
        (_change(coco_json(GOOD), categories=[{"id": -(2**62), "name": "sky"}, {"id": 1, "name": "wheel"}]), [str(2**62)]),
    ],
    ids=[
        "image-twice", "annotation-twice", "category-twice", "dangling-image", "image-id-text", "no-image", "image-id-list",
        "dangling-category", "category-id-object", "annotation-id", "no-file-name", "image-is-text", "image-id-null",
        "no-category-name", "no-categories", "category-typo", "category-id-huge", "category-id-very-negative",
    ],
)  # fmt: skip
def test_coco_bad_references(data: dict[str, Any], says: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    photo(tmp_path / "train2017" / "a.jpg", SIZE)
    said = complaint("coco", coco_set(tmp_path, json.dumps(data)), toy_yaml)
    assert JSON in said
    assert [word for word in says if word not in said] == []


def test_coco_ids_written_as_floats_are_matched_or_refused(tmp_path: Path, toy_yaml: Path) -> None:
    """1.0 == 1 in Python, so the reference resolves; the annotation must then not be lost."""
    root = coco_set(tmp_path / "raw", _with_annotation(image_id=1.0, category_id=1.0))
    try:
        counts = only(converted("coco", root, tmp_path / "out", toy_yaml)).fine_counts
    except HiposegError as error:
        said = str(error)
    else:
        assert counts == {"0": 44, "1": 4}
        return
    assert JSON in said


@pytest.mark.parametrize("record", [{"height": 9, "width": 8}, {"height": 9}, {"width": 9}])
def test_coco_image_of_another_size_than_recorded(record: dict[str, Any], tmp_path: Path, toy_yaml: Path) -> None:
    data = _change(coco_json(GOOD), images=[{"id": 1, "file_name": "a.jpg", **record}])
    said = complaint("coco", coco_set(tmp_path, data), toy_yaml)
    assert "a.jpg" in said
    assert "8x6" in said


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/etc/passwd", "a/../../evil.jpg", "C:/evil.jpg", "C:evil.jpg", "..\\evil.jpg"]
)
@pytest.mark.parametrize("position", [0, 1])
def test_coco_file_name_that_leaves_its_folder(name: str, position: int, tmp_path: Path, toy_yaml: Path) -> None:
    photo(tmp_path / "evil.jpg", SIZE)  # it exists, so only the check can refuse it
    names = ["a.jpg", name] if position else [name, "a.jpg"]
    said = complaint("coco", coco_set(tmp_path / "raw", coco_json(GOOD, images=names)), toy_yaml)
    assert name in said
    assert JSON in said


@pytest.mark.parametrize("second", ["a.png", "A.jpg", "./a.jpg"])
def test_coco_two_images_with_one_stem(second: str, tmp_path: Path, toy_yaml: Path) -> None:
    root = coco_set(tmp_path, coco_json(GOOD, images=["a.jpg", second]))
    said = complaint("coco", root, toy_yaml)
    assert Path(second).name in said
    assert "a.jpg" in said


def test_coco_missing_files(tmp_path: Path, toy_yaml: Path) -> None:
    (tmp_path / "raw").mkdir()
    assert "annotation JSON" in complaint("coco", tmp_path / "raw", toy_yaml)
    root = coco_set(tmp_path / "raw", coco_json(GOOD, images=["a.jpg", "b.jpg"]))
    (root / "train2017" / "b.jpg").unlink()
    assert "b.jpg" in complaint("coco", root, toy_yaml)
    (root / "train2017" / "a.jpg").unlink()
    assert "a.jpg" in complaint("coco", root, toy_yaml)
    assert "elsewhere" in complaint("coco", root, toy_yaml, images=tmp_path / "elsewhere")


def test_coco_two_files_of_one_split_lose_nothing(tmp_path: Path, toy_yaml: Path) -> None:
    root = coco_set(tmp_path / "raw", coco_json(GOOD))
    photo(root / "train2014" / "b.jpg", SIZE)
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(coco_json(GOOD, images=["b.jpg"])))
    try:
        rows = converted("coco", root, tmp_path / "out", toy_yaml).split("train")
    except HiposegError as error:
        said = str(error)
    else:
        assert [row.key for row in rows] == ["a", "b"]
        return
    assert "instances_train2014.json" in said


def test_coco_files_named_by_split_alone(tmp_path: Path, toy_yaml: Path) -> None:
    """annotations/train.json and annotations/val.json, as many exporters write them."""
    root = tmp_path / "raw"
    (root / "annotations").mkdir(parents=True)
    for split, stem in (("train", "a"), ("val", "b")):
        photo(root / split / f"{stem}.jpg", SIZE)
        (root / "annotations" / f"{split}.json").write_text(json.dumps(coco_json(GOOD, images=[f"{stem}.jpg"])))
    dataset = converted("coco", root, tmp_path / "out", toy_yaml)
    assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {"train": ["a"], "val": ["b"]}


def test_coco_equal_file_names_in_two_splits_are_not_mixed_up(tmp_path: Path, toy_yaml: Path) -> None:
    root = coco_set(tmp_path / "raw", coco_json(GOOD))
    photo(root / "val2017" / "a.jpg", SIZE, seed=9)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(coco_json(GOOD)))
    try:
        dataset = converted("coco", root, tmp_path / "out", toy_yaml)
    except HiposegError as error:
        said = str(error)
    else:
        assert [row.image_path for row in dataset.split("train")] == ["train2017/a.jpg"]
        assert [row.image_path for row in dataset.split("val")] == ["val2017/a.jpg"]
        return
    assert "a.jpg" in said  # asking for --images is an answer, too


# == folders of id PNGs ================================================================================================

IDS = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [255, 255, 0, 0]], np.uint8)
FINE = [[0, 1, 2, 3], [4, 5, 6, X], [X, X, 0, 0]]
COARSE = [[0, 1, 1, 1], [1, 1, 2, 1], [X, X, 0, 0]]


def mask_pair(root: Path, images: str, labels: str, ids: Any = IDS, **how: Any) -> Path:
    photo(root / images / "a.jpg", np.asarray(ids).shape[:2])
    ids_png(root / labels / "a.png", ids, **how)
    return root


@pytest.mark.parametrize(
    ("images", "labels", "split"),
    [
        ("train/images", "train/labels", "train"), ("val/img_dir", "val/ann_dir", "val"),
        ("images/test", "labels/test", "test"), ("images", "labels", "train"),
        ("JPEGImages", "SegmentationClass", "train"), ("imgs", "masks", "train"),
    ],
)  # fmt: skip
def test_masks_in_every_layout(images: str, labels: str, split: str, tmp_path: Path, toy_yaml: Path) -> None:
    dataset = converted("masks", mask_pair(tmp_path / "raw", images, labels), tmp_path / "out", toy_yaml)
    assert (only(dataset).split, only(dataset).key) == (split, "a")
    assert maps(dataset) == (FINE, COARSE)
    assert (only(dataset).ignore_px, only(dataset).coarse_only_px) == (2, 1)


def test_masks_palette_indices_and_16_bit_values_are_ids(tmp_path: Path, toy_yaml: Path) -> None:
    palette = mask_pair(tmp_path / "palette", "images", "labels", palette=True)
    deep = mask_pair(tmp_path / "deep", "images", "labels", IDS.astype(np.uint16))
    assert Image.open(palette / "labels" / "a.png").mode == "P"
    assert Image.open(deep / "labels" / "a.png").mode in ("I;16", "I")
    for root in (palette, deep):
        assert maps(converted("masks", root, tmp_path / f"{root.name}_out", toy_yaml)) == (FINE, COARSE)


def test_masks_16_bit_ids_above_255(tmp_path: Path) -> None:
    text = (
        "schema: hiposeg/hierarchy@1\nname: deep\nlevels: [fine, coarse]\nclasses:\n  coarse: [all]\n"
        "  fine: [{name: one, parent: all}, {name: two, parent: all}]\n"
        "sources: {masks: {map: {300: one, 60000: two}, ignore: [65535]}}\n"
    )
    (tmp_path / "deep.yaml").write_text(text)
    root = mask_pair(tmp_path / "raw", "images", "labels", np.array([[300, 60000, 65535]], np.uint16))
    assert maps(converted("masks", root, tmp_path / "out", tmp_path / "deep.yaml")) == ([[0, 1, X]], [[0, 0, X]])


def test_masks_nested_folders_suffix_and_odd_names(tmp_path: Path, toy_yaml: Path) -> None:
    root = tmp_path / "raw"
    for stem in ("day one/b\u00fccher 1", "v1.2.frame"):
        photo(root / "images" / f"{stem}.jpg", (1, 2))
        ids_png(root / "labels" / f"{stem}_labelIds.png", [[1, 6]])
    dataset = converted("masks", root, tmp_path / "out", toy_yaml, label_suffix="_labelIds")
    rows = dataset.split("train")
    assert [row.key for row in rows] == ["day%20one/b%C3%BCcher%201", "v1.2.frame"]
    assert all(dataset.labels(row).fine.tolist() == [[1, 6]] for row in rows)
    assert all(dataset.image(row).shape == (1, 2, 3) for row in rows)
    said = complaint("masks", root, toy_yaml, label_suffix="_ids")
    assert "_ids.png" in said


@pytest.mark.parametrize(("depth", "packed"), [(2, [bytes([0b00_01_10_11])]), (4, [bytes([0x01, 0x23])])])
def test_masks_grey_png_of_few_bits_is_not_silently_rescaled(
    depth: int, packed: list[bytes], tmp_path: Path, toy_yaml: Path
) -> None:
    """Pillow stretches 2- and 4-bit grey to 0..255: ids 0, 1, 2, 3 would come back as 0, 85, 170, 255."""
    root = mask_pair(tmp_path / "raw", "images", "labels", [[0, 1, 2, 3]])
    (root / "labels" / "a.png").write_bytes(grey_png(4, 1, depth, packed))
    result = prepare("masks", root, None, PrepareOptions(hierarchy=str(toy_yaml)))
    if result.failures:
        said = str(result.failures[0])
        assert "a.png" in said
        assert f"{depth}-bit" in said
    else:
        assert [entry["pixels"].get("train", 0) for entry in result.report["fine"]] == [1, 1, 1, 1, 0, 0, 0]


def _png(path: Path) -> bytes:
    return path.read_bytes()


def _label_no_end(path: Path) -> None:
    path.write_bytes(_png(path)[:-12])


def _label_cut_end(path: Path) -> None:
    path.write_bytes(_png(path)[:-5])


def _label_half(path: Path) -> None:
    path.write_bytes(_png(path)[: len(_png(path)) // 2])


def _label_bad_crc(path: Path) -> None:
    data = bytearray(_png(path))
    data[data.index(b"IDAT") - 4 + 8 + int.from_bytes(data[data.index(b"IDAT") - 4 : data.index(b"IDAT")], "big")] ^= 1
    path.write_bytes(bytes(data))


def _label_lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")


def _label_html(path: Path) -> None:
    path.write_text("\n <!DOCTYPE html><html><body>Sign in</body></html>")


def _label_rgb(path: Path) -> None:
    Image.fromarray(np.zeros((*IDS.shape, 3), np.uint8)).save(path)


def _label_rgba(path: Path) -> None:
    Image.fromarray(np.full((*IDS.shape, 4), 200, np.uint8)).save(path)


def _label_bits(path: Path) -> None:
    Image.fromarray(IDS > 2).save(path)


def _label_jpeg(path: Path) -> None:
    Image.fromarray(IDS).save(path, "JPEG")


def _label_bomb(path: Path) -> None:
    path.write_bytes(grey_png(30_000, 30_000, 8, [b"\0" * 10]))


def _label_large(path: Path) -> None:
    path.write_bytes(grey_png(12_000, 9_000, 8, [b"\0" * 10]))


def _label_size(path: Path) -> None:
    ids_png(path, IDS.T.copy())


def _label_unknown(path: Path) -> None:
    ids_png(path, np.where(IDS == 255, 9, np.where(IDS == 5, 200, IDS)).astype(np.uint8))


def _label_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _label_other_name(path: Path) -> None:
    path.rename(path.with_name("b.png"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_label_no_end, ["truncated"]), (_label_cut_end, ["truncated"]), (_label_half, []), (_label_bad_crc, ["IDAT"]),
        (_empty, ["empty"]), (_label_lfs, ["LFS"]), (_label_html, ["HTML"]), (_label_rgb, ["RGB", "labelIds"]),
        (_label_rgba, ["RGBA"]), (_label_bits, ["1"]), (_label_jpeg, ["JPEG"]), (_label_bomb, ["pixels"]),
        (_label_large, ["12000x9000"]), (_label_size, ["3x4", "4x3", "a.jpg"]),
        (_label_unknown, ["9 (2 px)", "200 (1 px)"]), (_label_folder, []),
    ],
)  # fmt: skip
def test_masks_bad_label_file(spoil: Callable[[Path], None], says: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    root = mask_pair(tmp_path, "images", "labels")
    spoil(root / "labels" / "a.png")
    said = complaint("masks", root, toy_yaml)
    assert "a.png" in said
    assert [word for word in says if word not in said] == []
    assert "\n" not in said


def test_masks_every_cut_of_a_label_png_is_refused(tmp_path: Path, toy_yaml: Path) -> None:
    root = mask_pair(tmp_path, "images", "labels")
    path = root / "labels" / "a.png"
    data = _png(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert "a.png" in complaint("masks", root, toy_yaml), f"{length} of {len(data)} bytes"


def test_masks_many_unknown_ids_are_summed_up(tmp_path: Path, toy_yaml: Path) -> None:
    root = mask_pair(tmp_path, "images", "labels", np.arange(20, 32, dtype=np.uint8).reshape(3, 4))
    said = complaint("masks", root, toy_yaml)
    assert "20 (1 px)" in said
    assert "7 more" in said


def test_masks_255_that_is_not_listed_as_ignore(tmp_path: Path) -> None:
    text = (
        "schema: hiposeg/hierarchy@1\nname: bare\nlevels: [fine, coarse]\nclasses:\n  coarse: [all]\n"
        "  fine: [{name: one, parent: all}]\nsources: {masks: {map: {1: one}}}\n"
    )
    (tmp_path / "bare.yaml").write_text(text)
    root = mask_pair(tmp_path, "images", "labels", [[1, 255]])
    said = complaint("masks", root, tmp_path / "bare.yaml")
    assert "255 (1 px)" in said
    assert "ignore: [255]" in said


def _photo_empty(path: Path) -> None:
    path.write_bytes(b"")


def _photo_html(path: Path) -> None:
    path.write_text("<html>login</html>")


def _photo_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _photo_of_another_size(path: Path) -> None:
    photo(path, (9, 9))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_photo_empty, "empty"), (_photo_html, "HTML"), (_photo_of_another_size, "9x9"), (_photo_truncated, "")],
)
def test_masks_bad_photo(spoil: Callable[[Path], None], says: str, suffix: str, tmp_path: Path, toy_yaml: Path) -> None:
    ids = np.zeros((40, 40), np.uint8)
    ids_png(tmp_path / "labels" / "a.png", ids)
    path = photo(tmp_path / "images" / f"a{suffix}", (40, 40))
    spoil(path)
    said = complaint("masks", tmp_path, toy_yaml)
    assert path.name in said
    assert says in said


def test_masks_missing_folders_labels_and_images(tmp_path: Path, toy_yaml: Path) -> None:
    (tmp_path / "raw").mkdir()
    assert "raw" in complaint("masks", tmp_path / "raw", toy_yaml)
    root = mask_pair(tmp_path / "raw", "images", "labels")
    (root / "labels" / "a.png").rename(root / "labels" / "b.png")
    assert "b.png" in complaint("masks", root, toy_yaml)
    (root / "labels" / "b.png").unlink()
    assert "labels" in complaint("masks", root, toy_yaml)


@pytest.mark.parametrize(("first", "second"), [("a.jpg", "a.png"), ("a.jpg", "A.jpg")])
def test_masks_two_images_with_one_stem(first: str, second: str, tmp_path: Path, toy_yaml: Path) -> None:
    for name in (first, second):
        photo(tmp_path / "images" / name, (1, 2))
        ids_png(tmp_path / "labels" / f"{Path(name).stem}.png", [[0, 1]])
    if len(os.listdir(tmp_path / "images")) < 2:
        pytest.skip("this file system does not tell a.jpg from A.jpg")
    said = complaint("masks", tmp_path, toy_yaml)
    assert second in said
    assert first in said


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{0: wheel, 1: whel}", ["whel", "wheel"]),
        ("{zero: wheel}", ["zero"]),
        ("{0: wheel, 255: wheel}", ["255"]),
        ("{0: {coarse: carr}}", ["carr", "car"]),
        (f"{{{2**62}: wheel}}", [str(2**62)]),
    ],
    ids=["unknown-class", "key-is-a-name", "mapped-and-ignored", "unknown-coarse-class", "id-beyond-16-bits"],
)
def test_masks_source_table_that_cannot_be_used(table: str, says: list[str], tmp_path: Path) -> None:
    text = (
        "schema: hiposeg/hierarchy@1\nname: odd\nlevels: [fine, coarse]\nclasses:\n  coarse: [car]\n"
        f"  fine: [{{name: wheel, parent: car}}]\nsources:\n  masks:\n    map: {table}\n    ignore: [255]\n"
    )
    (tmp_path / "odd.yaml").write_text(text)
    said = complaint("masks", mask_pair(tmp_path / "raw", "images", "labels", [[0, 0]]), tmp_path / "odd.yaml")
    assert "odd" in said
    assert [word for word in says if word not in said] == []
