"""The drawn demonstration set: repeatable bytes, the genuine .mat structure, masks that make sense."""

from __future__ import annotations

import fnmatch
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image

from hiposeg_cli.demo.draw import draw_dataset

VOC_INDEX = {"boat": 4, "bus": 6, "car": 7, "cat": 8, "dog": 12, "horse": 13}  # place among the 20 VOC names
HIERARCHY_PATH = Path(__file__).resolve().parents[1] / "hierarchies" / "demo.yaml"


@pytest.fixture(scope="module")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out_dir = tmp_path_factory.mktemp("demo")
    draw_dataset(out_dir, n_train=60, n_val=6, seed=0)
    return out_dir


def _annos(demo_dir: Path) -> list[Any]:
    """Load every annotation as `anno`, a (1, 1) struct, with the defaults of scipy."""
    return [scipy.io.loadmat(path)["anno"] for path in sorted((demo_dir / "Annotations_Part").glob("*.mat"))]


def _objects(demo_dir: Path) -> list[Any]:
    return [obj for anno in _annos(demo_dir) for obj in anno[0, 0]["objects"][0]]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        draw_dataset(tmp_path / name, n_train=3, n_val=2, size_px=64, seed=seed)
    first, again, other = (_contents(tmp_path / name) for name in "abc")
    assert first == again
    assert [path for path in first if path.endswith((".jpg", ".mat")) and first[path] == other[path]] == []


def test_a_picture_depends_on_neither_n_train_nor_n_val(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "few", n_train=2, n_val=1, size_px=64)
    draw_dataset(tmp_path / "more", n_train=4, n_val=3, size_px=64)
    few, more = _contents(tmp_path / "few"), _contents(tmp_path / "more")
    pictures = [path for path in few if not path.endswith(".txt")]
    assert len(pictures) == 6
    assert all(few[path] == more[path] for path in pictures)


def test_lists_name_every_file_once_and_splits_are_disjoint(demo_dir: Path) -> None:
    train, val = ((demo_dir / "ImageSets" / "Main" / f"{split}.txt").read_text().split() for split in ("train", "val"))
    assert (len(train), len(val), len({*train, *val})) == (60, 6, 66)
    assert {path.stem for path in (demo_dir / "JPEGImages").iterdir()} == {*train, *val}
    assert {path.stem for path in (demo_dir / "Annotations_Part").iterdir()} == {*train, *val}


def test_mat_header_is_that_of_matlab_5(demo_dir: Path) -> None:
    for path in (demo_dir / "Annotations_Part").iterdir():
        header = path.read_bytes()[:128]
        assert header.startswith(b"MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: ")
        assert header[116:] == b"\x00" * 8 + b"\x00\x01IM"


def test_mat_structure_is_the_genuine_one(demo_dir: Path) -> None:
    for path in sorted((demo_dir / "Annotations_Part").iterdir()):
        anno = scipy.io.loadmat(path)["anno"]
        assert (anno.shape, anno.dtype.names) == ((1, 1), ("imname", "objects"))
        assert (anno[0, 0]["imname"].shape, str(anno[0, 0]["imname"][0])) == ((1,), path.stem)
        objects = anno[0, 0]["objects"]
        assert objects.shape[0] == 1
        assert objects.shape[1] >= 1
        assert objects.dtype == np.dtype([(name, "O") for name in ("class", "class_ind", "mask", "parts")])
        width, height = Image.open(path.parents[1] / "JPEGImages" / f"{path.stem}.jpg").size
        for obj in objects[0]:
            assert (obj["class"].shape, obj["class_ind"].shape, obj["class_ind"].dtype) == ((1,), (1, 1), np.uint8)
            assert int(obj["class_ind"][0, 0]) == VOC_INDEX[str(obj["class"][0])]
            assert (obj["mask"].shape, obj["mask"].dtype) == ((height, width), np.uint8)
            assert obj["parts"].dtype == np.dtype([("part_name", "O"), ("mask", "O")])
            assert obj["parts"].shape[0] == (1 if obj["parts"].shape[1] else 0)
            for part in obj["parts"].ravel():
                assert (part["part_name"].shape, part["mask"].shape, part["mask"].dtype) == ((1,), (height, width), np.uint8)


def test_a_boat_has_no_parts(demo_dir: Path) -> None:
    boats = [obj for obj in _objects(demo_dir) if obj["class"][0] == "boat"]
    assert boats
    assert all(boat["parts"].shape == (0, 0) for boat in boats)


def test_parts_are_binary_non_empty_subsets_of_their_object(demo_dir: Path) -> None:
    for obj in _objects(demo_dir):
        assert set(np.unique(obj["mask"])) == {0, 1}
        for part in obj["parts"].ravel():
            assert set(np.unique(part["mask"])) == {0, 1}
            assert not np.any(part["mask"] > obj["mask"])


def test_objects_show_visible_pixels_only(demo_dir: Path) -> None:
    for anno in _annos(demo_dir):
        assert sum(obj["mask"].astype(int) for obj in anno[0, 0]["objects"][0]).max() == 1


def test_wheels_and_windows_come_after_the_side_they_lie_on(demo_dir: Path) -> None:
    overlapping_px = 0
    for obj in _objects(demo_dir):
        names = [str(part["part_name"][0]) for part in obj["parts"].ravel()]
        side = next((k for k, name in enumerate(names) if name.endswith("side")), None)
        if side is not None:
            assert side == 0
            masks = [part["mask"] for part in obj["parts"].ravel()]
            overlapping_px += sum(int((masks[0] & mask).sum()) for mask in masks[1:])
    assert overlapping_px > 0


def test_every_fine_class_occurs_and_every_raw_part_is_mapped_once(demo_dir: Path) -> None:
    hierarchy = yaml.safe_load(HIERARCHY_PATH.read_text(encoding="utf-8"))
    rules = hierarchy["sources"]["pascal-part"]["map"]
    seen: Counter[str] = Counter()
    for obj in _objects(demo_dir):
        rule = rules[str(obj["class"][0])]
        seen[rule.get("__object__", "ignore")] += int(obj["mask"].sum())
        for part in obj["parts"].ravel():
            targets = [fine for glob, fine in rule.items() if fnmatch.fnmatchcase(str(part["part_name"][0]), glob)]
            assert len(targets) == 1, f"{obj['class'][0]} {part['part_name'][0]}: {targets}"
            seen[targets[0]] += int(part["mask"].sum())
    fine = {entry["name"] for entry in hierarchy["classes"]["fine"]} - {"background"}
    assert len(fine) == 19
    assert {name for name, count in seen.items() if count > 0} - {"ignore"} == fine


def test_a_small_share_of_the_objects_with_parts_is_uncovered(demo_dir: Path) -> None:
    object_px = uncovered_px = 0
    for obj in _objects(demo_dir):
        if obj["parts"].size:
            covered = np.any([part["mask"] for part in obj["parts"].ravel()], axis=0)
            object_px += int(obj["mask"].sum())
            uncovered_px += int((obj["mask"].astype(bool) & ~covered).sum())
    assert 0.04 < uncovered_px / object_px < 0.16
