"""Ultralytics segmentation data: what rows cover, where images and labels are found, and what is refused."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conversion import complaint, converted, keys_by_split, only
from PIL import Image
from pycocotools import mask as rle
from raw_sets import photo

from hiposeg_cli.convert import PrepareOptions, open_reader
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.yolo_data import label_path
from hiposeg_cli.store import Dataset

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

X = 255
SIZE = (4, 8)  # height, width: multiples of 1/8 and 1/4 are whole pixels
WHEEL, BODY, SKY = 1, 3, 6
NAMES = ("wheel", "car", "body", "sky")
DATA = "path: .\ntrain: images/train\nnames: [wheel, car, body, sky]\n"


def row(class_id: int | str, left: float, top: float, right: float, bottom: float) -> str:
    """A rectangle as a polygon row: columns left..right-1 and rows top..bottom-1 of an 8x4 picture."""
    points = ((left, top), (right, top), (right, bottom), (left, bottom))
    return " ".join([str(class_id), *(f"{x / 8} {y / 4}" for x, y in points)])


def yolo_set(root: Path, rows: str | None, data: str = DATA, size: tuple[int, int] = SIZE) -> Path:
    photo(root / "images" / "train" / "a.jpg", size)
    if rows is not None:
        (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
        (root / "labels" / "train" / "a.txt").write_text(rows, encoding="utf-8")
    (root / "data.yaml").write_text(data, encoding="utf-8")
    return root


def labelled(root: Path, *places: str) -> Path:
    """Photos, and a label file for each where Ultralytics looks for it; all of them sky."""
    for number, place in enumerate(places):
        photo(root / place, SIZE, seed=number)
        path = label_path(root / place, root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row(3, 0, 0, 8, 4), encoding="utf-8")
    return root


def maps(dataset: Dataset) -> tuple[list[list[int]], list[list[int]]]:
    labels = dataset.labels(only(dataset))
    return labels.fine.tolist(), labels.coarse.tolist()


def filled(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = SIZE) -> list[list[int]]:
    array = np.zeros(size, int)
    for value, left, top, right, bottom in boxes:
        array[top:bottom, left:right] = value
    return array.tolist()


# -- what rows cover ---------------------------------------------------------------------------------------------------


def test_small_polygons_lie_on_top_whatever_their_order(tmp_path: Path, toy_yaml: Path) -> None:
    rows = "\n".join([row(0, 2, 1, 3, 2), row(1, 0, 0, 6, 4), row(2, 1, 1, 5, 3), row(3, 4, 0, 8, 2), ""])
    dataset = converted("yolo-seg", yolo_set(tmp_path / "raw", rows), tmp_path / "out", toy_yaml)
    fine, coarse = maps(dataset)
    # areas: car 24, body 8 and sky 8 (a tie, the later row on top), wheel 1
    assert fine == filled((X, 0, 0, 6, 4), (BODY, 1, 1, 5, 3), (SKY, 4, 0, 8, 2), (WHEEL, 2, 1, 3, 2))
    assert coarse == filled((1, 0, 0, 6, 4), (2, 4, 0, 8, 2))
    entry = only(dataset)
    assert (entry.n_objects, entry.overlap_px, entry.part_overlap_px) == (4, 4, 1)
    assert entry.warnings == []


def test_polygons_equal_those_of_pycocotools(tmp_path: Path, toy_yaml: Path) -> None:
    rng = np.random.default_rng(5)
    size = 40, 60
    for number in range(20):
        points = rng.uniform(-0.01, 1.01, 2 * int(rng.integers(3, 9)))
        text = "3 " + " ".join(repr(float(value)) for value in points)
        root = yolo_set(tmp_path / f"raw{number}", text, size=size)
        fine = np.array(maps(converted("yolo-seg", root, tmp_path / f"out{number}", toy_yaml))[0])
        pixels = np.clip(points, 0, 1) * np.tile([60, 40], len(points) // 2)
        expected = rle.decode(rle.frPyObjects([pixels.tolist()], *size)[0])
        assert (fine == np.where(expected == 1, SKY, 0)).all()


def test_a_row_of_five_numbers_is_a_box(tmp_path: Path, toy_yaml: Path) -> None:
    rows = f"{row(1, 0, 0, 8, 4)}\n0 0.25 0.5 0.25 0.5\n3 0.875 0.5 0.5 1.0\n"
    dataset = converted("yolo-seg", yolo_set(tmp_path / "raw", rows), tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled((X, 0, 0, 8, 4), (WHEEL, 1, 1, 3, 3), (SKY, 5, 0, 8, 4))  # the box ends at x 9
    assert only(dataset).warnings == ["2 rows are boxes, drawn as rectangles"]


def test_coordinates_slightly_outside_are_clipped(tmp_path: Path, toy_yaml: Path) -> None:
    rows = "3 -0.009 -0.01 1.01 -0.002 1.003 1.01 0 1.0001\n"
    dataset = converted("yolo-seg", yolo_set(tmp_path / "raw", rows), tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled((SKY, 0, 0, 8, 4))
    assert only(dataset).warnings == []


def test_empty_and_missing_label_files_are_background(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "\n \n")
    photo(root / "images" / "train" / "b.png", SIZE)
    dataset = converted("yolo-seg", root, tmp_path / "out", toy_yaml)
    empty, missing = dataset.rows["train"]
    assert empty.warnings == []
    assert missing.warnings == ["no labels/train/b.txt: no objects"]
    for entry in (empty, missing):
        assert dataset.labels(entry).coarse.tolist() == filled()
    ignored = converted("yolo-seg", root, tmp_path / "none", toy_yaml, unlabelled="ignore")
    assert ignored.labels(ignored.rows["train"][1]).coarse.tolist() == filled((X, 0, 0, 8, 4))


def test_rows_are_objects(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "\n".join([row(1, 0, 0, 2, 2), row(1, 4, 0, 6, 3)]))
    reader = open_reader("yolo-seg", root, PrepareOptions(str(toy_yaml), ReaderOptions(instances=True)))
    (item,) = reader.items()
    label = pickle.loads(pickle.dumps(reader)).read(item)
    assert label.instances.tolist() == filled((1, 4, 0, 6, 3), (2, 0, 0, 2, 2))


def test_a_byte_order_mark_and_class_ids_written_as_floats(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "\ufeff" + row("3.0", 0, 0, 8, 4))
    assert maps(converted("yolo-seg", root, tmp_path / "out", toy_yaml))[0] == filled((SKY, 0, 0, 8, 4))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("3 0 0 1 0 1 1\n4 0 0 1 0 1 1\n", ["a.txt:2", "class 4 is not 0..3"]),
        ("-1 0 0 1 0 1 1\n", ["a.txt:1", "class -1 is not 0..3"]),
        ("0.5 0 0 1 0 1 1\n", ["a.txt:1", "class 0.5"]),
        ("nan 0 0 1 0 1 1\n", ["a.txt:1", "class nan"]),
        ("\n\nsky 0 0 1 0 1 1\n", ["a.txt:3", "'sky' is not a number"]),
        ("3 0 0 1 0 1 1,\n", ["a.txt:1", "'1,' is not a number"]),
        ("3 0 0 1 0 1 nan\n", ["a.txt:1", "nan is not between 0 and 1"]),
        ("3 0 0 1 0 1 1e999\n", ["a.txt:1", "1e999 is not between 0 and 1"]),
        ("3 0 0 640 0 640 480\n", ["a.txt:1", "640 is not between 0 and 1", "divide x by the picture's width"]),
        ("3 0 0 1 0 1 -0.02\n", ["a.txt:1", "-0.02 is not between"]),
    ],
)
def test_rows_that_are_refused(rows: str, says: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    said = complaint("yolo-seg", yolo_set(tmp_path / "raw", rows), toy_yaml)
    assert all(part in said for part in says), said


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("1", "0 coordinates are no polygon"),
        ("1 0.5 0.5", "2 coordinates are no polygon"),
        ("1 0 0 1 0 1", "5 coordinates are no polygon"),
        ("1 0 0 1 0 1 1 0.5", "7 coordinates are no polygon"),
        ("1 0.5 0.5 0.5 0.5 0.5 0.5", "covers no pixel"),
    ],
)
def test_rows_that_cannot_be_drawn_are_skipped_and_said(bad: str, says: str, tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", f"{row(3, 0, 0, 8, 4)}\n{bad}\n")
    dataset = converted("yolo-seg", root, tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled((SKY, 0, 0, 8, 4))
    (warning,) = only(dataset).warnings
    assert "line 2 ('car')" in warning
    assert says in warning


def test_label_files_that_are_no_text_or_lead_elsewhere(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "")
    path = root / "labels" / "train" / "a.txt"
    path.write_bytes(b"\xff\xfe3\x00")
    assert "not UTF-8 text" in complaint("yolo-seg", root, toy_yaml)
    path.unlink()
    path.mkdir()
    assert "cannot be read" in complaint("yolo-seg", root, toy_yaml)
    path.rmdir()
    (tmp_path / "far.txt").write_text(row(3, 0, 0, 8, 4), encoding="utf-8")
    path.symlink_to(tmp_path / "far.txt")
    assert "--follow-symlinks" in complaint("yolo-seg", root, toy_yaml)
    dataset = converted("yolo-seg", root, tmp_path / "out", toy_yaml, follow_symlinks=True)
    assert maps(dataset)[0] == filled((SKY, 0, 0, 8, 4))


def test_a_photo_that_ultralytics_turns_is_refused(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "")
    picture = Image.new("RGB", (8, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(root / "images" / "train" / "a.jpg", exif=exif)
    said = complaint("yolo-seg", root, toy_yaml)
    assert "EXIF orientation 6" in said
    assert "Ultralytics applies" in said


# -- data.yaml ---------------------------------------------------------------------------------------------------------

SCRIPT = """
# Ultralytics \U0001f680 AGPL-3.0 License
path: coco8-seg # dataset root dir
train: images/train # 4 images
val: images/val
test: # optional
nc: 4
names:
  0: wheel
  1: car
  2: body
  3: sky
download: |
  import pathlib
  pathlib.Path("run-by-mistake").touch()
"""


def test_an_ultralytics_file_is_used_unchanged_and_its_script_is_not_run(
    tmp_path: Path, toy_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = labelled(tmp_path / "coco8-seg", "images/train/a.jpg", "images/train/deep/b.png", "images/val/c.jpg")
    (root / "coco8-seg.yaml").write_text(SCRIPT, encoding="utf-8")
    dataset = converted("yolo-seg", root, tmp_path / "out", toy_yaml)
    assert keys_by_split(dataset) == {"train": ["a", "deep/b"], "val": ["c"]}
    assert not (tmp_path / "run-by-mistake").exists()
    nested = tmp_path / "outer"
    nested.mkdir()
    root.rename(nested / "coco8-seg")
    (nested / "data.yaml").write_text(SCRIPT, encoding="utf-8")  # beside the dataset rather than in it
    again = converted("yolo-seg", nested, tmp_path / "again", toy_yaml)
    assert keys_by_split(again) == keys_by_split(dataset)


LAYOUTS: dict[str, tuple[str, dict[str, list[str]], dict[str, list[str]]]] = {
    "roboflow": (
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 4",
        {"": ["train/images/a.jpg", "valid/images/b.jpg", "test/images/c.jpg"]},
        {"train": ["a"], "val": ["b"], "test": ["c"]},
    ),
    "several folders": (
        "path: .\ntrain: [images/x, images/y]\nvalidation: images/z",
        {"": ["images/x/a.jpg", "images/y/a.jpg", "images/z/a.jpg"]},
        {"train": ["images/x/a", "images/y/a"], "val": ["a"]},
    ),
    "lists": (
        "train: lists/train.txt\nval: val.txt",
        {
            "": ["images/a.jpg", "images/b.jpg", "images/c.jpg"],
            "lists/train.txt": ["./../images/a.jpg", "", "images/c.jpg "],
            "val.txt": ["./images/b.jpg"],
        },
        {"train": ["images/a", "images/c"], "val": ["images/b"]},
    ),
    "beside the photos": ("train: x\nval: y", {"": ["x/a.jpg", "y/b.jpg"]}, {"train": ["a"], "val": ["b"]}),
    "absolute path": ("path: ROOT/inner\ntrain: images", {"": ["inner/images/a.jpg"]}, {"train": ["a"]}),
    "path of another machine": ("path: /home/someone/data\ntrain: images", {"": ["images/a.jpg"]}, {"train": ["a"]}),
    "test that was not downloaded": ("train: images\ntest: far", {"": ["images/a.jpg"]}, {"train": ["a"]}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found_where_ultralytics_finds_them(layout: str, tmp_path: Path, toy_yaml: Path) -> None:
    data, files, wanted = LAYOUTS[layout]
    root = labelled(tmp_path / "raw", *files[""])
    for name, lines in files.items():
        if name:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("\n".join(lines), encoding="utf-8")
    (root / "data.yaml").write_text(data.replace("ROOT", str(root)) + "\nnames: [wheel, car, body, sky]\n", encoding="utf-8")
    dataset = converted("yolo-seg", root, tmp_path / "out", toy_yaml)
    assert keys_by_split(dataset) == wanted
    for rows in dataset.rows.values():
        for entry in rows:
            assert dataset.labels(entry).fine.tolist() == filled((SKY, 0, 0, 8, 4))


def test_label_path_replaces_the_last_folder_called_images(tmp_path: Path) -> None:
    for photo_name, label_name in {
        "images/train/images/a.jpg": "images/train/labels/a.txt",
        "images/a.b.jpeg": "labels/a.b.txt",
        "my images/a.jpg": "my images/a.txt",
        "images.jpg": "images.txt",
    }.items():
        assert label_path(tmp_path / "images" / photo_name, tmp_path / "images") == tmp_path / "images" / label_name


def test_training_images_named_again_for_val_are_left_out_with_a_warning(
    tmp_path: Path, toy_yaml: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = yolo_set(tmp_path / "raw", "", DATA + "val: images/train\n")
    with caplog.at_level(logging.WARNING):
        dataset = converted("yolo-seg", root, tmp_path / "out", toy_yaml)
    assert keys_by_split(dataset) == {"train": ["a"]}
    assert "val names the training images again" in caplog.text


def test_an_image_in_two_splits_is_refused(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "", DATA + "val: images\n")
    said = complaint("yolo-seg", root, toy_yaml)
    assert "is in train and in val" in said
    assert "--val" in said


def test_a_test_split_without_labels_is_left_out_and_others_must_have_some(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "", DATA + "test: images/test\n")
    photo(root / "images" / "test" / "t.jpg", SIZE)
    assert keys_by_split(converted("yolo-seg", root, tmp_path / "out", toy_yaml)) == {"train": ["a"]}
    (root / "data.yaml").write_text(DATA + "val: images/test\n", encoding="utf-8")
    said = complaint("yolo-seg", root, toy_yaml)
    assert "data.yaml:4" in said
    assert "no image of `val` has labels" in said
    assert os.path.join("labels", "test", "t.txt") in said


NAME_LIST = "train: images/train\nnames: "


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("names: [wheel, car, body, sky]\n", ["names no training images"]),
        ("train:\nnames: [wheel, car, body, sky]\n", ["names no training images"]),
        ("train: 3\nnames: [wheel]\n", ["data.yaml:1", "`train` is 3"]),
        ("train: images/nowhere\nnames: [wheel]\n", ["data.yaml:1", "images/nowhere is not in"]),
        ("train: images/train\nval: images/val\nnames: [wheel]\n", ["data.yaml:2", "images/val is not in"]),
        ("train: ../far\nnames: [wheel]\n", ["data.yaml:1", "../far leads out of"]),
        ("train: FAR\nnames: [wheel]\n", ["data.yaml:1", "leads out of", "--follow-symlinks"]),
        ("train: empty\nnames: [wheel]\n", ["`train` holds no images"]),
        ("train: images/train\n", ["`names` is no list"]),
        (NAME_LIST + "wheel\n", ["data.yaml:2", "`names` is no list"]),
        (NAME_LIST + "{0: wheel, 2: car}\n", ["data.yaml:2", "class ids are not 0..1"]),
        (NAME_LIST + "{a: wheel}\n", ["class ids are not 0..0"]),
        (NAME_LIST + "\n- wheel\n- no\n", ["data.yaml:4", "the name no as text", 'write "no"']),
        (NAME_LIST + "\n  0: wheel\n  1:\n", ["data.yaml:4", "as text"]),
        (NAME_LIST + "[wheel, car]\nnc: 3\n", ["data.yaml:3", "`nc` is 3, but there are 2 names"]),
        (NAME_LIST + "[wheel, weel]\n", ["unknown label (hierarchy 'toy') 'weel'", "did you mean 'wheel'"]),
        (NAME_LIST + "!!python/object/apply:os.system ['true']\n", ["data.yaml:2", "tag"]),
        ("a: &a [1]\nb: *a\n", ["data.yaml:1", "anchors"]),
        ("- a\n", ["has no keys"]),
        ("train: [a\n", ["not valid YAML"]),
    ],
)
def test_data_files_that_are_refused(data: str, says: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    far = labelled(tmp_path / "far", "a.jpg")
    root = yolo_set(tmp_path / "raw", "", data.replace("FAR", str(far)))
    (root / "empty").mkdir()
    said = complaint("yolo-seg", root, toy_yaml)
    assert all(part in said for part in says), said


def test_a_split_outside_the_folder_is_read_when_links_may_lead_there(tmp_path: Path, toy_yaml: Path) -> None:
    far = labelled(tmp_path / "far", "images/a.jpg")
    root = tmp_path / "raw"
    root.mkdir()
    (root / "data.yaml").write_text(f"path: {far}\ntrain: images\nnames: [wheel, car, body, sky]\n", encoding="utf-8")
    assert "images is not in" in complaint("yolo-seg", root, toy_yaml)
    dataset = converted("yolo-seg", root, tmp_path / "out", toy_yaml, follow_symlinks=True)
    assert maps(dataset)[0] == filled((SKY, 0, 0, 8, 4))
    (root / "images").symlink_to(far / "images")
    assert "leads out of" in complaint("yolo-seg", root, toy_yaml)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["./images/train/b.jpg"], ["list.txt:1", "b.jpg, which is missing"]),
        (["./images/train/a.jpg", "../far/a.jpg"], ["list.txt:2", "leads out of"]),
        (["/etc/a.jpg"], ["list.txt:1", "leads out of"]),
    ],
)
def test_lists_that_are_refused(lines: list[str], says: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "", "train: list.txt\nnames: [wheel]\n")
    labelled(tmp_path / "far", "a.jpg")
    (root / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    said = complaint("yolo-seg", root, toy_yaml)
    assert all(part in said for part in says), said


def test_which_yaml_file_is_meant(tmp_path: Path, toy_yaml: Path) -> None:
    root = yolo_set(tmp_path / "raw", "")
    (root / "data.yaml").unlink()
    assert "holds no data.yaml" in complaint("yolo-seg", root, toy_yaml)
    files: Mapping[str, str] = {"one.yaml": DATA, "other.yml": "a: 1\n", "broken.yaml": "a: [\n"}
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    assert keys_by_split(converted("yolo-seg", root, tmp_path / "out", toy_yaml)) == {"train": ["a"]}
    (root / "two.yaml").write_text(DATA, encoding="utf-8")
    assert "one.yaml, two.yaml" in complaint("yolo-seg", root, toy_yaml)
