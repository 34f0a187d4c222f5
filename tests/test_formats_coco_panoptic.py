"""COCO panoptic: published categories, segment ids in three bytes, and files that disagree with one another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import published
import pytest
from conversion import complaint, converted, keys_by_split, only, rows_of
from numpy.typing import NDArray
from PIL import Image
from raw_sets import photo

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.hierarchy_yaml import load_hierarchy

X = 255  # ignore

STUFF = {
    "textile": "92 banner, 93 blanket, 109 curtain, 141 pillow, 168 towel, 200 rug-merged",
    "building": "95 bridge, 128 house, 151 roof, 166 tent, 197 building-other-merged",
    "raw-material": "100 cardboard, 195 paper-merged",
    "furniture-stuff": "107 counter, 112 door-stuff, 130 light, 133 mirror-stuff, 156 shelf, 161 stairs, "
    "188 cabinet-merged, 189 table-merged",
    "floor": "118 floor-wood, 190 floor-other-merged",
    "plant": "119 flower, 184 tree-merged, 193 grass-merged",
    "food-stuff": "122 fruit, 196 food-other-merged",
    "ground": "125 gravel, 144 platform, 145 playingfield, 147 railroad, 149 road, 154 sand, 159 snow, 191 pavement-merged, "
    "194 dirt-merged",
    "structural": "138 net, 185 fence-merged",
    "water": "148 river, 155 sea, 178 water-other",
    "wall": "171 wall-brick, 175 wall-stone, 176 wall-tile, 177 wall-wood, 199 wall-other-merged",
    "window": "180 window-blind, 181 window-other",
    "ceiling": "186 ceiling-merged",
    "sky": "187 sky-other-merged",
    "solid": "192 mountain-merged, 198 rock-merged",
}
"""Supercategory -> ids and names of its stuff categories, from the table of the specification."""

CATEGORIES = dict(published.COCO) | {
    int(entry.split()[0]): (entry.split(" ", 1)[1], group) for group, row in STUFF.items() for entry in row.split(", ")
}
FINE_ID = {category_id: rank for rank, category_id in enumerate(sorted(CATEGORIES))}
PERSON, CAR, ROAD, SKY = 1, 3, 149, 187


# -- the preset --------------------------------------------------------------------------------------------------------


def test_preset_names_and_supercategories_are_the_published_ones() -> None:
    hierarchy = load_hierarchy("coco-panoptic-133-27")
    listed = [CATEGORIES[category_id] for category_id in sorted(CATEGORIES)]
    assert len(listed) == 133
    assert [(node.name, node.parent) for node in hierarchy.fine.nodes] == listed
    assert hierarchy.coarse.names == [*published.COCO_SIZES, *STUFF]
    assert [node.kind for node in hierarchy.fine.nodes] == ["thing"] * 80 + ["stuff"] * 53
    assert [node.kind for node in hierarchy.coarse.nodes] == ["thing"] * 12 + ["stuff"] * 15
    assert sum(name.endswith("-merged") for name in hierarchy.fine.names) == 17
    assert dict(hierarchy.source("coco-panoptic").map) == {name: name for name, _ in listed}


def test_supercategories_are_found_by_the_group_names_of_coco_stuff() -> None:
    ours, theirs = load_hierarchy("coco-panoptic-133-27").coarse, load_hierarchy("coco-stuff-171-27").coarse
    assert [ours.find(name) is not None for name in theirs.names] == [True] * 27
    assert ours.find("rawmaterial-stuff") == ours.names.index("raw-material")
    assert ours.find("food-stuff") == ours.names.index("food-stuff") != ours.find("food-things")


def test_colours_read_off_the_published_list() -> None:
    colors = {node.name: node.color for node in load_hierarchy("coco-panoptic-133-27").fine.nodes}
    wanted = {
        "person": (220, 20, 60),
        "toothbrush": (191, 162, 208),
        "banner": (255, 255, 128),
        "rug-merged": (250, 141, 255),
    }
    assert {name: colors[name] for name in wanted} == wanted


# -- fixtures ----------------------------------------------------------------------------------------------------------


def segment(segment_id: int, category_id: int, **fields: Any) -> dict[str, Any]:
    return {"id": segment_id, "category_id": category_id, "iscrowd": 0, **fields}


def id_png(path: Path, ids: NDArray[Any] | Sequence[Sequence[int]]) -> Path:
    """Write segment ids as R + 256 G + 65536 B."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [[(value % 256, value // 256 % 256, value // 65536) for value in map(int, row)] for row in ids]
    Image.fromarray(np.array(rows, np.uint8)).save(path)
    return path


def panoptic_json(records: Mapping[str, list[dict[str, Any]]], shape: tuple[int, int]) -> dict[str, Any]:
    """A panoptic JSON of the published categories; records are stem -> segments."""
    return {
        "images": [
            {"id": number, "file_name": f"{stem}.jpg", "height": shape[0], "width": shape[1]}
            for number, stem in enumerate(records, start=1)
        ],
        "annotations": [
            {"image_id": number, "file_name": f"{stem}.png", "segments_info": segments}
            for number, (stem, segments) in enumerate(records.items(), start=1)
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": group, "isthing": int(number <= 90)}
            for number, (name, group) in CATEGORIES.items()
        ],
    }


def write_json(path: Path, data: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
    return path


def panoptic_set(
    root: Path,
    ids: Sequence[Sequence[int]],
    segments: list[dict[str, Any]],
    split: str = "train",
    stem: str = "000000000400",
) -> Path:
    """annotations/panoptic_SPLIT2017.json, panoptic_SPLIT2017/*.png beside it, photos in SPLIT2017."""
    shape = (len(ids), len(ids[0]))
    photo(root / f"{split}2017" / f"{stem}.jpg", shape)
    id_png(root / "annotations" / f"panoptic_{split}2017" / f"{stem}.png", ids)
    write_json(root / "annotations" / f"panoptic_{split}2017.json", panoptic_json({stem: segments}, shape))
    return root


PNG = Path("annotations/panoptic_train2017/000000000400.png")
JSON = Path("annotations/panoptic_train2017.json")
A, B, C, D = 5, 300, 8_345_037, 16_777_215  # one byte, two, three, all of them
IDS = [[A, A, B, 0], [C, D, D, 0]]
SEGMENTS = [
    segment(C, CAR, area=1), segment(A, PERSON, area=2), segment(D, SKY, area=2), segment(B, PERSON, area=1, iscrowd=1),
]  # fmt: skip


# -- conversion --------------------------------------------------------------------------------------------------------


def test_ids_of_one_to_three_bytes_become_their_categories_and_void_is_ignored(tmp_path: Path) -> None:
    dataset = converted("coco-panoptic", panoptic_set(tmp_path / "raw", IDS, SEGMENTS), tmp_path / "out")
    row = only(dataset)
    labels = dataset.labels(row)
    person, car, sky = FINE_ID[PERSON], FINE_ID[CAR], FINE_ID[SKY]
    assert labels.fine.tolist() == [[person, person, person, X], [car, sky, sky, X]]
    groups = dataset.hierarchy.coarse.names
    names = [[None if k == X else groups[k] for k in line] for line in labels.coarse.tolist()]
    assert names == [["person", "person", "person", None], ["vehicle", "sky", "sky", None]]
    assert (row.n_objects, row.ignore_px, row.overlap_px, list(row.warnings)) == (3, 2, 0, [])
    assert dataset.instances(row) is None


def test_objects_are_numbered_but_neither_crowds_nor_stuff(tmp_path: Path) -> None:
    root = panoptic_set(tmp_path / "raw", IDS, SEGMENTS)
    dataset = converted("coco-panoptic", root, tmp_path / "out", instances=True)
    numbers = dataset.instances(only(dataset))
    assert numbers is not None
    assert numbers.tolist() == [[1, 1, 0, 0], [2, 0, 0, 0]]


def test_an_image_without_segments_is_kept_with_a_remark(tmp_path: Path) -> None:
    dataset = converted("coco-panoptic", panoptic_set(tmp_path / "raw", [[0, 0]], []), tmp_path / "out")
    assert dataset.labels(only(dataset)).fine.tolist() == [[X, X]]
    assert "ignore" in "; ".join(only(dataset).warnings)


def test_both_splits_with_the_png_folders_beside_the_photos(tmp_path: Path) -> None:
    """The layout of detectron2: SRC/panoptic_train2017 and SRC/panoptic_val2017."""
    root = tmp_path / "raw"
    for split, stem, category_id in (("train", "000000000400", CAR), ("val", "000000000139", ROAD)):
        panoptic_set(root, [[7, 0]], [segment(7, category_id)], split, stem)
        (root / "annotations" / f"panoptic_{split}2017").rename(root / f"panoptic_{split}2017")
    dataset = converted("coco-panoptic", root, tmp_path / "out")
    assert keys_by_split(dataset) == {"train": ["000000000400"], "val": ["000000000139"]}
    found = {row.split: int(dataset.labels(row).fine[0, 0]) for row in rows_of(dataset)}
    assert found == {"train": FINE_ID[CAR], "val": FINE_ID[ROAD]}


def test_pngs_are_found_by_the_name_the_json_gives_them(tmp_path: Path) -> None:
    """Panoptic Cityscapes names a PNG otherwise than its photo, and both have a folder for each city."""
    root = panoptic_set(tmp_path / "raw", [[7]], [segment(7, CAR)])
    data = json.loads((root / JSON).read_text())
    data["images"][0]["file_name"] = "aachen/a_leftImg8bit.png"
    data["annotations"][0]["file_name"] = "aachen/a_gtFine_panoptic.png"
    write_json(root / JSON, data)
    photo(root / "train2017" / "aachen" / "a_leftImg8bit.png", (1, 1))
    (root / PNG.parent / "aachen").mkdir()
    (root / PNG).rename(root / PNG.parent / "aachen" / "a_gtFine_panoptic.png")
    dataset = converted("coco-panoptic", root, tmp_path / "out")
    assert dataset.labels(only(dataset)).fine.tolist() == [[FINE_ID[CAR]]]
    assert only(dataset).key == "aachen/a_leftImg8bit"


def test_a_hierarchy_without_a_table_for_the_format_is_matched_by_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "schema: hiposeg/hierarchy@1\nname: mine\nlevels: [fine, coarse]\nclasses:\n"
        "  coarse: [{name: background, kind: background}, other]\n"
        "  fine: [{name: background, parent: background, kind: background}, {name: car, parent: other}]\n"
    )
    data = panoptic_json({"000000000400": [segment(7, CAR)]}, (1, 2))
    data["categories"] = [category for category in data["categories"] if category["id"] == CAR]
    root = panoptic_set(tmp_path / "raw", [[7, 0]], [])
    write_json(root / JSON, data)
    dataset = converted("coco-panoptic", root, tmp_path / "out", tmp_path / "mine.yaml")
    assert dataset.labels(only(dataset)).fine.tolist() == [[1, X]]  # void is ignore even where there is a background class


def test_several_processes_give_the_same_files(tmp_path: Path) -> None:
    shape, root = (2, 3), tmp_path / "raw"
    records = {f"{number:012}": [segment(number + 1, CAR)] for number in range(4)}
    for number, stem in enumerate(records):
        photo(root / "train2017" / f"{stem}.jpg", shape, seed=number)
        id_png(root / PNG.parent / f"{stem}.png", np.full(shape, number + 1))
    write_json(root / JSON, panoptic_json(records, shape))
    for workers in (1, 2):
        result = prepare("coco-panoptic", root, tmp_path / str(workers), PrepareOptions(workers=workers))
        assert result.failures == ()
    found = [{p.name: p.read_bytes() for p in (tmp_path / str(n) / "labels").rglob("*.png")} for n in (1, 2)]
    assert found[0] == found[1]


# -- files that disagree -----------------------------------------------------------------------------------------------


def test_pixels_of_a_segment_that_the_json_does_not_list_are_an_error(tmp_path: Path) -> None:
    said = complaint("coco-panoptic", panoptic_set(tmp_path, [[A, B, B, 0]], [segment(A, CAR)]))
    assert str(PNG.name) in said
    assert "300 (2 px)" in said


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (segment(A, CAR, area=3), "segment 5 (car) covers 2 px, its area says 3"),
        (segment(A, CAR, area=2.5), "2.5"), (segment(A, CAR, area=None), ""), (segment(A, CAR), ""),
        (segment(A, CAR, area=2), ""),
    ],
)  # fmt: skip
def test_an_area_that_differs_is_a_remark(listed: dict[str, Any], says: str, tmp_path: Path) -> None:
    dataset = converted("coco-panoptic", panoptic_set(tmp_path / "raw", [[A, A, 0]], [listed]), tmp_path / "out")
    assert dataset.labels(only(dataset)).fine.tolist() == [[FINE_ID[CAR], FINE_ID[CAR], X]]
    said = "; ".join(only(dataset).warnings)
    assert says in said
    assert bool(says) == bool(said)


def test_a_segment_without_a_pixel_is_a_remark(tmp_path: Path) -> None:
    segments = [segment(A, CAR), segment(9, SKY, area=4)]
    dataset = converted("coco-panoptic", panoptic_set(tmp_path / "raw", [[A, 0]], segments), tmp_path / "out")
    assert list(only(dataset).warnings) == ["segment 9 (sky-other-merged) has no pixel"]


@pytest.mark.parametrize(
    ("segments", "says"),
    [
        (None, "segments_info"), ("text", "segments_info"), ([5], "None"), ([segment(0, CAR)], "0"),
        ([segment(-1, CAR)], "-1"), ([segment(1 << 24, CAR)], "16777216"), ([segment(A, CAR), segment(A, SKY)], "5 twice"),
        ([segment(A, 91)], "91"), ([segment(A, "car")], "'car'"), ([segment(A, [3])], "[3]"),  # type: ignore[arg-type]
        ([{"id": "5", "category_id": CAR}], "'5'"), ([{"id": True, "category_id": CAR}], "True"), ([{"id": 5}], "None"),
    ],
)  # fmt: skip
def test_bad_segments_info(segments: Any, says: str, tmp_path: Path) -> None:
    said = complaint("coco-panoptic", panoptic_set(tmp_path, [[A]], segments))
    assert JSON.name in said
    assert "image 1" in said
    assert says in said


def _without_annotation(data: dict[str, Any]) -> None:
    data["annotations"].clear()


def _two_annotations(data: dict[str, Any]) -> None:
    data["annotations"] *= 2


def _no_png_name(data: dict[str, Any]) -> None:
    del data["annotations"][0]["file_name"]


def _other_png(data: dict[str, Any]) -> None:
    data["annotations"][0]["file_name"] = "000000000401.png"


def _png_outside(data: dict[str, Any]) -> None:
    data["annotations"][0]["file_name"] = "../../secret.png"


def _unknown_image(data: dict[str, Any]) -> None:
    data["annotations"][0]["image_id"] = 9


def _other_size(data: dict[str, Any]) -> None:
    data["images"][0]["height"] = 9


def _renamed_category(data: dict[str, Any]) -> None:
    data["categories"][0]["name"] = "persn"


def _no_categories(data: dict[str, Any]) -> None:
    del data["categories"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_annotation, ["image 1", "no annotation"]), (_two_annotations, ["image 1", "two annotations"]),
        (_no_png_name, ["image 1", "file_name"]), (_other_png, ["000000000401.png"]), (_png_outside, ["../../secret.png"]),
        (_unknown_image, ["image_id 9"]), (_other_size, ["4x2", "4x9"]), (_renamed_category, ["persn", "person"]),
        (_no_categories, ["categories", "panoptic JSON"]),
    ],
)  # fmt: skip
def test_bad_json(spoil: Callable[[dict[str, Any]], None], says: list[str], tmp_path: Path) -> None:
    root = panoptic_set(tmp_path, IDS, SEGMENTS)
    data = json.loads((root / JSON).read_text())
    spoil(data)
    write_json(root / JSON, data)
    said = complaint("coco-panoptic", root)
    assert [word for word in says if word not in said] == []


def _grey(path: Path) -> None:
    Image.fromarray(np.zeros((2, 4), np.uint8)).save(path)


def _rgba(path: Path) -> None:
    Image.fromarray(np.zeros((2, 4, 4), np.uint8)).save(path)


def _jpeg(path: Path) -> None:
    Image.fromarray(np.zeros((2, 4, 3), np.uint8)).save(path, "JPEG")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def _html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html></html>")


def _transposed(path: Path) -> None:
    id_png(path, np.array(IDS).T)


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_grey, "L"), (_rgba, "RGBA"), (_jpeg, "JPEG"), (_cut, "truncated"), (_html, "HTML"), (_transposed, "2x4"),
        (_gone, "no such file"),
    ],
)  # fmt: skip
def test_bad_id_png(spoil: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    root = panoptic_set(tmp_path, IDS, SEGMENTS)
    spoil(root / PNG)
    said = complaint("coco-panoptic", root)
    assert PNG.name in said
    assert says in said


def test_missing_folders(tmp_path: Path) -> None:
    assert "panoptic_*.json" in complaint("coco-panoptic", tmp_path)
    root = panoptic_set(tmp_path, IDS, SEGMENTS)
    (root / PNG.parent).rename(root / "elsewhere")
    assert "panoptic_train2017.zip" in complaint("coco-panoptic", root)


@pytest.mark.parametrize("option", [{"unlabelled": "background"}, {"variant": "things"}])
def test_options_it_does_not_have(option: dict[str, Any], tmp_path: Path) -> None:
    root = panoptic_set(tmp_path, IDS, SEGMENTS)
    assert f"--{next(iter(option))}" in complaint("coco-panoptic", root, **option)


# -- genuine files -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_genuine_images_segment_by_segment(sample_data: Callable[[str], Path], tmp_path: Path) -> None:
    """Against the arrays and the JSON read directly, with the sums of the PNG's bytes written out."""
    root = sample_data("coco_panoptic")
    data = json.loads((root / "annotations" / "panoptic_train2017.json").read_text())
    assert {c["id"]: (c["name"], c["supercategory"]) for c in data["categories"]} == CATEGORIES
    dataset = converted("coco-panoptic", root, tmp_path / "out", instances=True)
    rows = {row.key: row for row in rows_of(dataset)}
    assert len(rows) == 100
    assert [row.key for row in rows.values() if row.warnings] == []  # every area in the JSON is right
    groups = [*published.COCO_SIZES, *STUFF]
    for record in data["annotations"]:
        row = rows[Path(record["file_name"]).stem]
        pixels = np.asarray(Image.open(root / PNG.parent / record["file_name"])).astype(np.int64)
        ids = pixels[..., 0] + 256 * pixels[..., 1] + 256**2 * pixels[..., 2]
        labels, numbers = dataset.labels(row), dataset.instances(row)
        assert numbers is not None
        fine, coarse = np.full(ids.shape, X), np.full(ids.shape, X)
        numbered = []
        for entry in record["segments_info"]:
            inside = ids == entry["id"]
            fine[inside] = FINE_ID[entry["category_id"]]
            coarse[inside] = groups.index(CATEGORIES[entry["category_id"]][1])
            (number,) = np.unique(numbers[inside])
            is_object = entry["category_id"] <= 90 and not entry["iscrowd"]
            assert (number > 0) == is_object
            numbered += [int(number)] * is_object
        assert (labels.fine == fine).all()
        assert (labels.coarse == coarse).all()
        assert sorted(numbered) == list(range(1, len(numbered) + 1))
        assert not numbers[ids == 0].any()


@pytest.mark.slow
def test_genuine_set_reads_the_same_with_images_named(sample_data: Callable[[str], Path]) -> None:
    root = sample_data("coco_panoptic")
    plain, named = (
        prepare("coco-panoptic", root, None, PrepareOptions(reader=ReaderOptions(images=images)))
        for images in (None, root / "train2017")
    )
    assert plain.report["fine"] == named.report["fine"]
