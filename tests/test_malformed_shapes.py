"""Malformed inputs 22 to 26 of the format specification: polygons, run lengths and references.

Every parameter is named by its number in that list.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from malformed_check import accepts, crossed, finished, prepare, refuses, refuses_image, refuses_source
from malformed_sets import Raw, coco_data, cvat_xml, draw, panoptic_data, rewrite
from raw_sets import square

# numpy 2 warns about how pycocotools asks for its arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# -- 22 to 24: polygons ------------------------------------------------------------------------------------------------

GOOD = square(0, 0, 2, 2)
HUGE = 10**400  # JSON may hold it, a float cannot
SEGMENTATIONS: dict[str, tuple[Any, list[str]]] = {
    "22-infinity": ([[1e999, 0, 5, 5, 5, 0]], ["polygon"]),
    "22-huge": ([[HUGE, 1, 4, 4, 2, 2]], ["polygon"]),
    "23-two-points": ([[1, 1, 4, 4]], ["polygon"]),
    "23-odd": ([[1, 1, 4, 4, 2, 2, 1]], ["polygon"]),
    "23-text": ([[1, 1, 4, "4", 2, 2]], ["polygon"]),
    "23-nested": ([[[1, 1], [4, 4], [2, 2]]], ["polygon"]),
    "23-zero-area": ([[1, 1, 5, 1, 3, 1]], ["no pixel"]),
    "23-one-point-thrice": ([[1, 1, 1, 1, 1, 1]], ["no pixel"]),
    "23-empty": ([], ["no segmentation"]),
    "23-empty-polygon": ([[]], ["polygon"]),
    "23-null": (None, ["no segmentation"]),
    "23-word": ("text", ["no segmentation"]),
    "24-outside": ([square(-20, -20, -10, -10)], ["no pixel"]),
    "24-beyond": ([square(20, 20, 30, 30)], ["no pixel"]),
    "25-other-size": ({"counts": [48], "size": [8, 6]}, ["[8, 6]"]),
    "25-sum-short": ({"counts": [10, 10], "size": [6, 8]}, ["20"]),
    "25-sum-long": ({"counts": [40, 40], "size": [6, 8]}, ["80"]),
    "25-negative": ({"counts": [50, -2], "size": [6, 8]}, ["counts"]),
    "25-fractions": ({"counts": [47.5, 0.5], "size": [6, 8]}, ["counts"]),
    "25-true": ({"counts": [True, 47], "size": [6, 8]}, ["counts"]),
    "25-beyond-64-bits": ({"counts": [2**64, 48], "size": [6, 8]}, ["counts"]),
    "25-null": ({"counts": None, "size": [6, 8]}, ["counts"]),
    "25-no-counts": ({"size": [6, 8]}, ["counts"]),
    "25-no-size": ({"counts": [48]}, ["None"]),
    "25-not-ascii": ({"counts": "\u00e9\u00e9", "size": [6, 8]}, ["broken"]),
    "25-cut": ({"counts": "oooo", "size": [6, 8]}, ["broken"]),
    "25-endless": ({"counts": "o" * 100_000 + "0", "size": [6, 8]}, ["broken"]),
    "25-blank": ({"counts": "", "size": [6, 8]}, ["0"]),
    "25-string-sum": ({"counts": "`" + "0" * 30, "size": [6, 8]}, ["sum"]),
    "25-nul": ({"counts": "\0\0", "size": [6, 8]}, ["broken"]),
}


@pytest.mark.parametrize(
    ("name", "case"),
    crossed(SEGMENTATIONS, ["coco", "paco"], ["partimagenet-json"], ["23-zero-area", "25-sum-short"]),
)
def test_geometry_that_cannot_be_drawn_is_skipped_and_counted(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    segmentation, words = SEGMENTATIONS[case]
    annotation = {"id": 77, "image_id": 2, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
    text = json.dumps(dict(json.loads(raw.label.read_text()), annotations=[
        *json.loads(raw.label.read_text())["annotations"], annotation]))  # fmt: skip
    raw.label.write_text(text.replace("Infinity", "1e999"))
    report = accepts(raw, f"{raw.label.name}:2", "annotation 77", *words)
    assert labelled_px(report) == 8  # of the sound ones


def labelled_px(report: dict[str, Any]) -> int:
    return sum(sum(entry["pixels"].values()) for entry in report["coarse"] if entry["name"] != "background")


@pytest.mark.parametrize("bad", [[1, 1, 4, 4], [0, 0, 5, 0, 5, 5, 0]], ids=["23-four-numbers-first", "23-odd-first"])
@pytest.mark.parametrize("name", ["coco", "paco", "partimagenet-json"])
def test_good_polygon_behind_a_bad_one_is_kept(bad: list[float], name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    rewrite(raw.label, lambda data: data["annotations"][1].update(segmentation=[bad, GOOD]))
    report = accepts(raw, "annotation 2", "1 unusable polygon dropped")
    assert report["objects"] == 2
    assert labelled_px(report) == 8


def test_24_self_intersecting_polygon_is_drawn(tmp_path: Path) -> None:
    raw = draw("coco", tmp_path)
    rewrite(raw.label, lambda data: data["annotations"][1].update(segmentation=[[0, 0, 4, 4, 4, 0, 0, 4]]))
    assert labelled_px(accepts(raw)) == 4 + 8  # of the other image, and two triangles


def test_24_polygon_partly_outside_is_clipped_and_counted(tmp_path: Path) -> None:
    raw = draw("coco", tmp_path)
    rewrite(raw.label, lambda data: data["annotations"][1].update(segmentation=[square(-5, -5, 3, 2)]))
    assert labelled_px(accepts(raw, "outside the image", "clipped")) == 4 + 6


POINTS: dict[str, tuple[Any, list[str]]] = {
    "22-infinity": ([[1e999, 0], [5, 5], [5, 0]], ["finite"]),
    "22-far": ([[1e9, 0], [5, 5], [5, 0]], ["far outside"]),
    "23-two-points": ([[1, 1], [4, 4]], ["3 points"]),
    "23-no-points": ([], ["3 points"]),
    "23-null": (None, ["pairs"]),
    "23-odd": ([[1, 1], [4, 4], [2]], ["pairs"]),
    "23-text": ([[1, 1], [4, "4"], [2, 2]], ["pairs"]),
    "24-outside": ([[-20, -20], [-10, -20], [-10, -10]], ["no pixel"]),
}


@pytest.mark.parametrize("case", POINTS)
def test_shape_of_labelme_that_cannot_be_drawn(case: str, tmp_path: Path) -> None:
    raw = draw("labelme", tmp_path)
    points, words = POINTS[case]
    rewrite(raw.label, lambda data: data["shapes"].append({"label": "body", "points": points, "shape_type": "polygon"}))
    raw.label.write_text(raw.label.read_text().replace("Infinity", "1e999"))
    report = prepared_with_remarks(raw)
    assert any("shape 2 ('body')" in text and all(word in text for word in words) for text in report["warnings"])
    assert {entry["name"]: entry["pixels"]["train"] for entry in report["fine"]}["body"] == 0


def prepared_with_remarks(raw: Raw) -> dict[str, Any]:
    """The report of a run that says one thing or more."""
    assert prepare(raw).exit_code == 0
    return finished(raw.out)


CVAT_SHAPES = {
    "22-nan": ('<polygon label="body" points="nan,1;4,4;2,2"/>', "polygon 'body'"),
    "22-infinity": ('<polygon label="body" points="inf,1;4,4;2,2"/>', "polygon 'body'"),
    "23-two-points": ('<polygon label="body" points="1,1;4,4"/>', "polygon 'body'"),
    "23-odd": ('<polygon label="body" points="1,1;4,4;2"/>', "polygon 'body'"),
    "23-text": ('<polygon label="body" points="a,b"/>', "polygon 'body'"),
    "23-no-points": ('<polygon label="body"/>', "polygon 'body'"),
    "23-zero-area": ('<polygon label="body" points="1,1;5,1;3,1"/>', "no pixel"),
    "24-outside": ('<polygon label="body" points="-20,-20;-10,-20;-10,-10"/>', "no pixel"),
    "25-sum": ('<mask label="body" rle="2, 3" left="0" top="0" width="2" height="2"/>', "sum to 5"),
    "25-negative": ('<mask label="body" rle="5, -1" left="0" top="0" width="2" height="2"/>', "run lengths"),
    "25-fractions": ('<mask label="body" rle="2, 1.5" left="0" top="0" width="2" height="2"/>', "whole numbers"),
    "25-huge": (f'<mask label="body" rle="{10**30}, 4" left="0" top="0" width="2" height="2"/>', "sum to"),
    "25-outside": ('<mask label="body" rle="2, 2" left="7" top="0" width="2" height="2"/>', "leaves the image"),
    "25-huge-box": (
        f'<mask label="body" rle="2, 2" left="0" top="0" width="{10**9}" height="{10**9}"/>',
        "leaves the image",
    ),
    "25-no-rle": ('<mask label="body" left="0" top="0" width="2" height="2"/>', "whole numbers"),
    "22-ellipse": ('<ellipse label="body" cx="nan" cy="1" rx="2" ry="2"/>', "'nan'"),
    "22-box": ('<box label="body" xtl="inf" ytl="1" xbr="2" ybr="2"/>', "'inf'"),
}


@pytest.mark.parametrize("case", CVAT_SHAPES)
def test_shape_of_cvat_that_cannot_be_drawn(case: str, tmp_path: Path) -> None:
    raw = draw("cvat", tmp_path)
    shape, words = CVAT_SHAPES[case]
    raw.label.write_text(cvat_xml(shape))
    report = prepared_with_remarks(raw)
    assert [text for text in report["warnings"] if "body" in text and words in text], report["warnings"]
    assert {entry["name"]: entry["pixels"]["train"] for entry in report["fine"]}["body"] == 0


YOLO_ROWS = {
    "22-nan": ("1 nan 0.1 0.5 0.5 0.1 0.5", ["nan"]),
    "22-infinity": ("1 inf 0.1 0.5 0.5 0.1 0.5", ["inf"]),
    "23-word": ("1 x 0.1 0.5 0.5 0.1 0.5", ["'x'"]),
    "24-in-pixels": ("1 10 10 50 50 10 50", ["between 0 and 1"]),
    "26-no-such-class": ("7 0.1 0.1 0.5 0.5 0.1 0.5", ["class 7", "0..1"]),
    "26-negative-class": ("-1 0.1 0.1 0.5 0.5 0.1 0.5", ["class -1"]),
    "26-half-a-class": ("0.5 0.1 0.1 0.5 0.5 0.1 0.5", ["class 0.5"]),
}


@pytest.mark.parametrize("case", YOLO_ROWS)
def test_row_of_yolo_that_means_nothing(case: str, tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    row, words = YOLO_ROWS[case]
    raw.label.write_text(f"0 0.1 0.1 0.9 0.1 0.9 0.9\n{row}\n")
    refuses_image(raw, "b.txt:2", *words)


@pytest.mark.parametrize("row", ["1", "1 0.1 0.1 0.2", "1 0.1 0.1 0.5 0.5 0.3", "1 0.1 0.1 0.3 0.1 0.2 0.1"],
                         ids=["23-no-points", "23-odd", "23-odd-too", "23-zero-area"])  # fmt: skip
def test_polygon_of_yolo_that_cannot_be_drawn(row: str, tmp_path: Path) -> None:
    raw = draw("yolo-seg", tmp_path)
    raw.label.write_text(f"0 0.1 0.1 0.9 0.1 0.9 0.9\n{row}\n")
    accepts(raw, "labels/train/b.txt", "line 2", "body")


CITY_POLYGONS: dict[str, Any] = {
    "23-null": None,
    "23-empty": [],
    "23-one-point": [[1, 1]],
    "23-text": [[1, 1], [2, "a"], [3, 1]],
    "22-infinity": [[1e999, 1], [2, 2], [3, 1]],
}


@pytest.mark.parametrize(("name", "case"), crossed(CITY_POLYGONS, ["cityscapes-polygons"]))
def test_polygon_of_cityscapes_that_cannot_be_drawn(name: str, case: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    rewrite(raw.label, lambda data: data["objects"].append({"label": "sky", "polygon": CITY_POLYGONS[case]}))
    raw.label.write_text(raw.label.read_text().replace("Infinity", "1e999"))
    refuses_image(raw, raw.label.name)


# -- 26: references ----------------------------------------------------------------------------------------------------

REFERENCES: dict[str, tuple[Callable[[dict[str, Any]], object], list[str]]] = {
    "26-image-twice": (lambda data: data["images"][1].update(id=1), ["images", "id 1"]),
    "26-annotation-twice": (lambda data: data["annotations"][1].update(id=1), ["annotations", "id 1"]),
    "26-category-twice": (lambda data: data["categories"][1].update(id=1), ["categories", "id 1"]),
    "26-dangling-image": (lambda data: data["annotations"][1].update(image_id=404), ["annotation 2", "image_id 404"]),
    "26-dangling-category": (lambda data: data["annotations"][1].update(category_id=9), ["annotation 2", "category_id 9"]),
    "26-image-id-text": (lambda data: data["annotations"][1].update(image_id="2"), ["annotation 2", "image_id '2'"]),
    "26-image-id-null": (lambda data: data["annotations"][1].update(image_id=None), ["annotation 2", "image_id"]),
    "26-image-id-true": (lambda data: data["annotations"][1].update(image_id=True), ["annotation 2", "image_id"]),
    "26-category-id-list": (lambda data: data["annotations"][1].update(category_id=[1]), ["annotation 2", "category_id"]),
    "26-id-beyond-64-bits": (lambda data: data["annotations"][1].update(id=2**64), ["annotations"]),
    "26-used-category-is-not-listed": (lambda data: data["categories"].pop(0), ["category_id 1"]),
    "26-no-categories": (lambda data: data.update(categories=[]), ["categories"]),
    "26-no-images": (lambda data: data.update(images=[], annotations=[]), ["images"]),
    "26-annotation-is-text": (lambda data: data["annotations"].append("text"), ["annotations"]),
    "26-category-id-negative": (lambda data: data["categories"][1].update(id=-2), ["-2"]),
    "26-category-id-huge": (lambda data: data["categories"][1].update(id=2_000_000), ["2000000"]),
}


@pytest.mark.parametrize(
    ("name", "case"), crossed(REFERENCES, ["coco"], ["paco", "partimagenet-json"], ["26-dangling-image", "26-image-twice"])
)
def test_reference_that_leads_nowhere(case: str, name: str, tmp_path: Path) -> None:
    raw = draw(name, tmp_path)
    change, words = REFERENCES[case]
    rewrite(raw.label, change)
    refuses_source(raw, raw.label.name, *words)


SEGMENTS: dict[str, tuple[Callable[[dict[str, Any]], object], list[str]]] = {
    "26-segment-twice": (lambda record: record["segments_info"][1].update(id=7), ["segment 7", "twice"]),
    "26-dangling-category": (
        lambda record: record["segments_info"][1].update(category_id=9),
        ["segment 900", "category_id 9"],
    ),
    "26-segment-id-zero": (lambda record: record["segments_info"][1].update(id=0), ["id 0"]),
    "26-segment-id-text": (lambda record: record["segments_info"][1].update(id="900"), ["'900'"]),
    "26-no-segments": (lambda record: record.pop("segments_info"), ["segments_info"]),
    "26-segment-is-text": (lambda record: record["segments_info"].append("text"), ["segment"]),
}


@pytest.mark.parametrize("case", SEGMENTS)
def test_segment_that_means_nothing(case: str, tmp_path: Path) -> None:
    raw = draw("coco-panoptic-json", tmp_path)
    change, words = SEGMENTS[case]
    rewrite(raw.label, lambda data: change(data["annotations"][1]))
    refuses_image(raw, raw.label.name, *words)


@pytest.mark.parametrize(
    ("annotations", "words"),
    [([0, 0], ["image 1", "two annotations"]), ([0], ["image 2", "no annotation"])],
    ids=["26-image-annotated-twice", "26-image-not-annotated"],
)
def test_panoptic_annotations_of_an_image(annotations: list[int], words: list[str], tmp_path: Path) -> None:
    raw = draw("coco-panoptic-json", tmp_path)
    records = panoptic_data()["annotations"]
    rewrite(raw.label, lambda data: data.update(annotations=[records[number] for number in annotations]))
    refuses(raw, raw.label.name, *words)


@pytest.mark.parametrize("owner", [None, 404, "1", True])
def test_26_part_of_paco_without_its_object(owner: object, tmp_path: Path) -> None:
    raw = draw("paco", tmp_path)
    part = {"id": 77, "image_id": 2, "category_id": 2, "iscrowd": 0, "segmentation": [GOOD], "obj_ann_id": owner}
    rewrite(raw.label, lambda data: data["annotations"].append(part))
    accepts(raw, "annotation 77", "bench:leg", "not annotated", "skipped")


def test_26_cvat_image_twice(tmp_path: Path) -> None:
    raw = draw("cvat", tmp_path)
    raw.label.write_text(cvat_xml(name="a.jpg"))
    refuses_source(raw, "annotations.xml", "a.jpg twice")


def test_26_categories_that_two_files_name_differently(tmp_path: Path) -> None:
    raw = draw("coco", tmp_path)
    other = raw.label.with_name("instances_val2017.json")
    other.write_text(json.dumps(coco_data(names=("sky", "body", "wheel"))))
    refuses_source(raw, other.name, "category 1", "another name")
