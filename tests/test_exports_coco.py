"""COCO exports: run lengths against pycocotools, panoptic PNGs against the labels, objects where they are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from export_sets import (
    COARSE,
    FINE,
    N_WIDE,
    ODD_NAMES,
    WIDE_COARSE,
    Ids,
    add_instances,
    labels_of,
    photos_of,
    toy_data,
    wide_data,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from hiposeg_cli.exports.segments import segments_of
from hiposeg_cli.labelmap import ranked

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    return toy_data(tmp_path_factory.mktemp("toy_coco"), toy_yaml)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wide_data(tmp_path_factory.mktemp("wide_coco"))


# -- segments ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_segments_agree_with_pycocotools(height: int, width: int, most: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-1, most + 1, (height, width))
    found = {segment.value: segment for segment in segments_of(values)}
    assert list(found) == sorted(set(values.ravel().tolist()) - {-1})
    for value, segment in found.items():
        rle = coco_mask.encode(np.asfortranarray(values == value, dtype=np.uint8))
        assert segment.rle == rle["counts"].decode()
        assert segment.area == coco_mask.area(rle)
        assert list(segment.box) == coco_mask.toBbox(rle).tolist()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_ranks_agree_with_unique(height: int, width: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-1, 5, (height, width)) << 33
    expected, inverse = np.unique(values, return_inverse=True)
    found, ranks = ranked(values)
    assert (found == expected).all()
    assert (ranks == inverse.reshape(values.shape)).all()


def test_a_segment_by_hand() -> None:
    # .1.   column by column: 0 0 1 1 0 1, so the runs are 2 2 1 1. Each is a letter from "0" on; from the fourth on,
    # .11   the difference to the run before the last is written instead: -1, which is "O".
    (segment,) = segments_of(np.array([[-1, 1, -1], [-1, 1, 1]]))
    assert (segment.value, segment.area, segment.box, segment.rle) == (1, 3, (1, 0, 2, 2), "221O")


# -- coco-rle ----------------------------------------------------------------------------------------------------------


def painted(coco: COCO, image: dict[str, Any], category_ids: list[int], shape: tuple[int, int]) -> Ids:
    """Annotations of some categories painted into one map, ids counted from the first category; no pixel twice."""
    back = np.full(shape, -1, np.int64)
    for annotation in coco.loadAnns(coco.getAnnIds(image["id"], catIds=category_ids)):
        mask = coco.annToMask(annotation).astype(bool)
        assert (back[mask] == -1).all()
        assert mask.sum() == annotation["area"]
        back[mask] = annotation["category_id"] - category_ids[0]
    return back


@pytest.mark.parametrize("name", ["toy", "wide"])
def test_coco_rle_is_read_back_by_pycocotools(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data = request.getfixturevalue(name)
    write(data, "coco-rle", tmp_path / "out")
    fine, coarse, photos = labels_of(data, "fine"), labels_of(data, "coarse"), photos_of(data)
    n_fine, n_coarse = (N_WIDE, 3) if name == "wide" else (7, 3)
    image_ids, annotation_ids, seen = [], [], 0
    for path in sorted((tmp_path / "out" / "annotations").iterdir()):
        split, coco = path.stem.removeprefix("instances_"), COCO(path)
        assert sorted(coco.cats) == list(range(1, 1 + n_fine + n_coarse))
        keys = sorted(key for where, key in fine if where == split)
        for image, key in zip(coco.dataset["images"], keys, strict=True):
            place = split, key
            assert Path(coco.dataset["info"]["image_root"], image["file_name"]) == photos[place]
            assert (image["height"], image["width"]) == fine[place].shape
            shape = fine[place].shape
            assert (painted(coco, image, list(range(1, 1 + n_fine)), shape) == fine[place]).all()
            first = 1 + n_fine
            assert (painted(coco, image, list(range(first, first + n_coarse)), shape) == coarse[place]).all()
            seen += 1
        image_ids += [image["id"] for image in coco.dataset["images"]]
        annotation_ids += [annotation["id"] for annotation in coco.dataset["annotations"]]
        assert all(annotation["iscrowd"] == 0 for annotation in coco.dataset["annotations"])
    assert seen == len(fine)
    assert image_ids == list(range(1, seen + 1))  # unique over the splits, so that files can be joined
    assert annotation_ids == list(range(1, len(annotation_ids) + 1))


def test_coco_rle_categories_of_both_levels(toy: Path, wide: Path, tmp_path: Path) -> None:
    write(toy, "coco-rle", tmp_path / "toy")
    categories = json.loads((tmp_path / "toy" / "annotations" / "instances_val.json").read_text())["categories"]
    assert [entry["name"] for entry in categories] == [*FINE, "background (coarse)", "car", "sky (coarse)"]
    assert categories[1]["supercategory"] == "car"
    assert categories[8] | {"color": 0} == {"id": 9, "name": "car", "supercategory": "car", "level": "coarse", "color": 0}
    write(wide, "coco-rle", tmp_path / "wide")
    categories = json.loads((tmp_path / "wide" / "annotations" / "instances_train.json").read_text())["categories"]
    names = [entry["name"] for entry in categories]
    assert names[:5] == ODD_NAMES
    assert names[-3:] == ["thing: one", "two", "c7 (coarse)"]
    assert len(set(names)) == len(names) == N_WIDE + 3


@pytest.mark.parametrize(("level", "ids"), [("fine", range(1, 8)), ("coarse", range(8, 11))])
def test_coco_rle_of_one_level_keeps_its_category_ids(level: str, ids: range, toy: Path, tmp_path: Path) -> None:
    write(toy, "coco-rle", tmp_path / "out", level=level, splits=("val",), images="copy")
    coco = COCO(tmp_path / "out" / "annotations" / "instances_val.json")
    assert sorted(coco.cats) == list(ids)
    assert {annotation["category_id"] for annotation in coco.dataset["annotations"]} <= set(ids)
    for image in coco.dataset["images"]:
        assert (tmp_path / "out" / coco.dataset["info"]["image_root"] / image["file_name"]).is_file()


# -- coco-panoptic -----------------------------------------------------------------------------------------------------


def rgb_ids(path: Path) -> Ids:
    """Segment ids of a panoptic PNG: R + 256 G + 65536 B."""
    rgb = np.array(Image.open(path))
    assert rgb.shape[2] == 3
    ids: Ids = rgb.astype(np.int64) @ np.array([1, 256, 65536])
    return ids


@pytest.mark.parametrize(("name", "level"), [("toy", "fine"), ("toy", "coarse"), ("wide", "fine"), ("wide", "coarse")])
def test_panoptic_reads_back_pixel_for_pixel(name: str, level: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data = request.getfixturevalue(name)
    write(data, "coco-panoptic", tmp_path / "out", level=level)
    expected, seen = labels_of(data, level), 0
    for path in sorted((tmp_path / "out" / "annotations").glob("*.json")):
        panoptic = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: image for image in panoptic["images"]}
        for annotation in panoptic["annotations"]:
            ids = rgb_ids(path.with_suffix("") / annotation["file_name"])
            truth = expected[path.stem.removeprefix("panoptic_"), annotation["file_name"].removesuffix(".png")]
            back = np.full(ids.shape, -1)
            for segment in annotation["segments_info"]:
                mask = ids == segment["id"]
                back[mask] = segment["category_id"] - 1
                ys, xs = np.nonzero(mask)
                box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
                assert (segment["bbox"], segment["area"], segment["iscrowd"]) == (box, mask.sum(), 0)
            assert (back == truth).all()
            assert ((ids == 0) == (truth == -1)).all()  # 0 is void
            categories = [segment["category_id"] for segment in annotation["segments_info"]]
            assert len(set(categories)) == len(categories)  # one segment a class
            image = images[annotation["image_id"]]
            assert (image["height"], image["width"]) == ids.shape
            seen += 1
    assert seen == len(expected)


def test_panoptic_categories_name_their_coarse_class(toy: Path, wide: Path, tmp_path: Path) -> None:
    exported = write(toy, "coco-panoptic", tmp_path / "toy")
    assert any("void" in text for text in exported.warnings)
    categories = json.loads((tmp_path / "toy" / "annotations" / "panoptic_val.json").read_text())["categories"]
    found = [(entry["id"], entry["name"], entry["supercategory"], entry["isthing"]) for entry in categories]
    parents = ["background", "car", "car", "car", "car", "car", "sky"]
    assert found == [(k + 1, FINE[k], parents[k], 0) for k in range(7)]
    write(toy, "coco-panoptic", tmp_path / "coarse", level="coarse")
    categories = json.loads((tmp_path / "coarse" / "annotations" / "panoptic_val.json").read_text())["categories"]
    assert [entry["name"] for entry in categories] == COARSE
    write(wide, "coco-panoptic", tmp_path / "wide")
    categories = json.loads((tmp_path / "wide" / "annotations" / "panoptic_train.json").read_text())["categories"]
    assert [entry["name"] for entry in categories[:5]] == ODD_NAMES
    assert [entry["supercategory"] for entry in categories[:3]] == WIDE_COARSE


# -- objects -----------------------------------------------------------------------------------------------------------


def test_objects_become_segments_and_annotations_of_their_own(toy_yaml: Path, tmp_path: Path) -> None:
    data = toy_data(tmp_path, toy_yaml)
    fine = labels_of(data, "fine")["val", "v"]
    numbers = np.zeros(fine.shape, np.uint16)
    numbers[:, 15:] = 300  # beyond 8 bit
    numbers[12:, :15] = 1
    add_instances(data, {("val", "v"): numbers})
    write(data, "coco-panoptic", tmp_path / "panoptic")
    panoptic = json.loads((tmp_path / "panoptic" / "annotations" / "panoptic_val.json").read_text())
    things = {entry["name"]: entry["isthing"] for entry in panoptic["categories"]}
    assert things == dict.fromkeys(["wheel", "window", "body", "left_light", "right_light"], 1) | {"background": 0, "sky": 0}
    annotation = next(entry for entry in panoptic["annotations"] if entry["file_name"] == "v.png")
    ids = rgb_ids(tmp_path / "panoptic" / "annotations" / "panoptic_val" / "v.png")
    expected = {(int(k), int(n)) for k, n in zip(fine.ravel(), numbers.ravel(), strict=True) if k >= 0}
    assert len(annotation["segments_info"]) == len(expected) > len({k for k, _ in expected})
    for segment in annotation["segments_info"]:
        mask = ids == segment["id"]
        assert len(set(numbers[mask].tolist())) == 1
        assert set(fine[mask].tolist()) == {segment["category_id"] - 1}
    write(data, "coco-rle", tmp_path / "rle", level="fine")
    coco = COCO(tmp_path / "rle" / "annotations" / "instances_val.json")
    image = next(entry for entry in coco.dataset["images"] if entry["file_name"].endswith("v.jpg"))
    pairs = set()
    for entry in coco.loadAnns(coco.getAnnIds(image["id"])):
        (number,) = set(numbers[coco.annToMask(entry).astype(bool)].tolist())
        pairs.add((entry["category_id"] - 1, number))
    assert pairs == expected


def test_panoptic_holds_more_segments_than_one_byte(toy_yaml: Path, tmp_path: Path) -> None:
    data = toy_data(tmp_path, toy_yaml)
    fine = labels_of(data, "fine")["val", "v"]
    numbers = np.arange(fine.size, dtype=np.uint16).reshape(fine.shape)
    add_instances(data, {("val", "v"): numbers})
    write(data, "coco-panoptic", tmp_path / "out", splits=("val",))
    ids = rgb_ids(tmp_path / "out" / "annotations" / "panoptic_val" / "v.png")
    panoptic = json.loads((tmp_path / "out" / "annotations" / "panoptic_val.json").read_text())
    (annotation,) = [entry for entry in panoptic["annotations"] if entry["file_name"] == "v.png"]
    categories = {segment["id"]: segment["category_id"] - 1 for segment in annotation["segments_info"]}
    assert len(categories) == (fine >= 0).sum() > 512
    assert ([categories.get(int(k), -1) for k in ids.ravel()] == fine.ravel()).all()
