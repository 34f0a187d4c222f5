"""labelme files: what each shape covers, worked out by hand or drawn again on a whole canvas, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion import complaint, converted, keys_by_split, only
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from raw_sets import photo

from hiposeg_cli.convert import PrepareOptions, open_reader
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.labelme import draw
from hiposeg_cli.store import Dataset

X = 255  # ignore
SIZE = (6, 8)  # height, width
WHEEL, WINDOW, BODY, SKY = 1, 2, 3, 6  # fine ids of the toy hierarchy
CAR = 1
TWO_CARS = """
schema: hiposeg/hierarchy@1
name: two
levels: [fine, coarse]
classes:
  coarse: [{name: background, kind: background}, {name: car, aliases: [auto]}, bus]
  fine:
    - {name: background, parent: background, kind: background}
    - {name: car_wheel, parent: car}
    - {name: car_door, parent: car}
    - {name: bus_wheel, parent: bus}
"""


def shape(label: str, points: Sequence[Sequence[float]], kind: str | None = "polygon", **extra: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **extra}


def rectangle(label: str, left: float, top: float, right: float, bottom: float, **extra: Any) -> dict[str, Any]:
    """Covers columns left..right and rows top..bottom, both inclusive, as labelme draws it."""
    return shape(label, [[left, top], [right, bottom]], "rectangle", **extra)


def labelme_file(path: Path, shapes: Any, size: tuple[int, int] = SIZE, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{path.stem}.jpg", "imageData": None,
        "imageHeight": size[0], "imageWidth": size[1],
    }  # fmt: skip
    path.write_text(json.dumps({**data, **fields}), encoding="utf-8")
    return path


def labelme_set(root: Path, shapes: Any, size: tuple[int, int] = SIZE, **fields: Any) -> Path:
    photo(root / "a.jpg", size)
    labelme_file(root / "a.json", shapes, size, **fields)
    return root


def maps(dataset: Dataset) -> tuple[list[list[int]], list[list[int]]]:
    labels = dataset.labels(only(dataset))
    return labels.fine.tolist(), labels.coarse.tolist()


def filled(size: tuple[int, int], *boxes: tuple[int, int, int, int, int]) -> list[list[int]]:
    """Zeros with boxes (value, left, top, right, bottom), inclusive, one over another."""
    array = np.zeros(size, int)
    for value, left, top, right, bottom in boxes:
        array[top : bottom + 1, left : right + 1] = value
    return array.tolist()


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_shapes_are_painted_in_list_order_and_a_part_over_its_object_is_no_conflict(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [
        rectangle("car", 0, 1, 5, 5),
        rectangle("body", 1, 1, 4, 4),
        rectangle("wheel", 3, 3, 5, 5),
        rectangle("sky", 0, 0, 7, 1),
    ]
    dataset = converted("labelme", labelme_set(tmp_path / "raw", shapes), tmp_path / "out", toy_yaml)
    fine, coarse = maps(dataset)
    assert coarse == filled(SIZE, (CAR, 0, 1, 5, 5), (2, 0, 0, 7, 1))
    assert fine == filled(SIZE, (X, 0, 1, 5, 5), (BODY, 1, 1, 4, 4), (WHEEL, 3, 3, 5, 5), (SKY, 0, 0, 7, 1))
    row = only(dataset)
    assert row.n_objects == 4
    assert row.overlap_px == 6  # sky over the first row of the car
    assert row.part_overlap_px == 4  # wheel over body
    assert row.coarse_only_px == fine[1].count(X) + sum(line.count(X) for line in fine[2:])
    assert row.warnings == []


def test_an_object_drawn_after_its_parts_hides_them_as_in_the_tool_and_that_is_said(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [rectangle("wheel", 1, 1, 2, 2), rectangle("car", 0, 0, 4, 1), rectangle("body", 0, 0, 0, 1)]
    dataset = converted("labelme", labelme_set(tmp_path / "raw", shapes), tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled(SIZE, (WHEEL, 1, 1, 2, 2), (X, 0, 0, 4, 1), (BODY, 0, 0, 0, 1))
    (warning,) = only(dataset).warnings
    assert "2 px of parts lie under a later shape of their object" in warning


def mask_shape(label: str, mask: Sequence[Sequence[int]], left: int, top: int, **extra: Any) -> dict[str, Any]:
    array = np.array(mask, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array * 255).save(buffer, "PNG")
    corners = [[left, top], [left + array.shape[1] - 1, top + array.shape[0] - 1]]
    return shape(label, corners, "mask", mask=base64.b64encode(buffer.getvalue()).decode(), **extra)


@pytest.mark.parametrize(
    ("entry", "covers"),
    [
        (shape("wheel", [[1, 1], [4, 1], [4, 3], [1, 3]]), ["........", ".####...", ".####...", ".####...", "........"]),
        (shape("wheel", [[1, 1], [4, 1], [4, 3], [1, 3]], None),
         ["........", ".####...", ".####...", ".####...", "........"]),
        (shape("wheel", [[1.9, 0.2], [4.9, 0.2], [4.9, 1.7], [1.9, 1.7]], "oriented_rectangle"),
         [".####...", ".####...", "........", "........", "........"]),
        (shape("wheel", [[5, 3], [2.5, 1]], "rectangle"), ["........", "..####..", "..####..", "..####..", "........"]),
        (shape("wheel", [[4, 2], [4, 4]], "circle"), ["...###..", "..#####.", "..#####.", "..#####.", "...###.."]),
        (mask_shape("wheel", [[0, 1, 1], [1, 1, 0]], 5, 3), ["........", "........", "........", "......##", ".....##."]),
        (shape("wheel", [[3, 2]], "point"), ["########"] * 5),
    ],
    ids=["polygon", "no type", "oriented", "rectangle", "circle", "mask", "point"],
)  # fmt: skip
def test_each_kind_of_shape_by_hand(entry: dict[str, Any], covers: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [entry], (5, 8))
    fine, _ = maps(converted("labelme", root, tmp_path / "out", toy_yaml))
    assert ["".join("#" if value == WHEEL else "." for value in line) for line in fine] == covers


def test_a_line_has_the_width_that_labelme_gives_it() -> None:
    for points, kind in (([[5, 20], [35, 20]], "line"), ([[5, 20], [20, 20], [35, 20]], "linestrip")):
        drawn = draw(shape("wheel", points, kind), (40, 40))
        full = np.zeros((40, 40), bool)
        full[drawn.window.box] = drawn.mask
        assert full[:, 20].sum() == 10
        assert full[20].sum() == 31
        assert not full[:, 36:].any()


def on_a_whole_canvas(size: tuple[int, int], points: list[list[float]], kind: str) -> NDArray[np.bool_]:
    """What labelme 6.3 draws, written again from its rules: the whole picture, whole coordinates cut off by Pillow."""
    image = Image.new("L", (size[1], size[0]))
    pen, xy = ImageDraw.Draw(image), [tuple(point) for point in points]
    if kind == "circle":
        (x, y), (edge_x, edge_y) = xy
        r = math.sqrt((x - edge_x) ** 2 + (y - edge_y) ** 2)
        pen.ellipse(((x - r, y - r), (x + r, y + r)), outline=1, fill=1)
    elif kind == "point":
        ((x, y),) = xy
        pen.ellipse(((x - 5, y - 5), (x + 5, y + 5)), outline=1, fill=1)
    elif kind == "rectangle":
        xs, ys = sorted(x for x, _ in xy), sorted(y for _, y in xy)
        pen.rectangle(((xs[0], ys[0]), (xs[1], ys[1])), outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        pen.line(xy, fill=1, width=10)
    else:
        pen.polygon(xy, outline=1, fill=1)
    return np.asarray(image).astype(bool)


@pytest.mark.parametrize("kind", ["polygon", "rectangle", "oriented_rectangle", "circle", "line", "linestrip", "point"])
def test_a_shape_drawn_in_a_window_equals_the_shape_drawn_on_the_whole_picture(kind: str) -> None:
    rng = random.Random(kind)
    counts = {"rectangle": 2, "circle": 2, "line": 2, "point": 1, "oriented_rectangle": 4}
    for _ in range(400):
        size = rng.randint(1, 60), rng.randint(1, 80)
        reach = rng.choice((1.0, 1.0, 1.6))
        n_points = counts.get(kind) or rng.randint(3 if kind == "polygon" else 1, 8)
        points = [[rng.uniform(1 - reach, reach) * side for side in (size[1], size[0])] for _ in range(n_points)]
        if rng.random() < 0.5:
            points = [[float(round(2 * value) / 2) for value in point] for point in points]
        drawn = draw(shape("wheel", points, kind), size)
        found = np.zeros(size, bool)
        found[drawn.window.box] = drawn.mask
        assert (found == on_a_whole_canvas(size, points, kind)).all(), (size, points)


def test_embedded_photo_is_ignored_and_a_byte_order_mark_is_skipped(tmp_path: Path, toy_yaml: Path) -> None:
    other = base64.b64encode(b"not the photo").decode()
    root = labelme_set(tmp_path / "raw", [rectangle("sky", 0, 0, 7, 5)], imageData=other)
    path = root / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert maps(converted("labelme", root, tmp_path / "out", toy_yaml))[0] == filled(SIZE, (SKY, 0, 0, 7, 5))


def test_a_file_without_shapes_is_background_or_ignored(tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [])
    assert maps(converted("labelme", root, tmp_path / "out", toy_yaml))[0] == filled(SIZE)
    dataset = converted("labelme", root, tmp_path / "none", toy_yaml, unlabelled="ignore")
    assert maps(dataset)[1] == filled(SIZE, (X, 0, 0, 7, 5))


# -- what labels mean --------------------------------------------------------------------------------------------------


@pytest.fixture
def two_cars(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(TWO_CARS, encoding="utf-8")
    return path


def test_a_part_is_looked_up_under_the_object_of_its_group_and_object_colon_part_is_a_name(
    tmp_path: Path, two_cars: Path
) -> None:
    shapes = [
        rectangle("bus", 0, 0, 3, 1, group_id=1), rectangle("wheel", 0, 1, 0, 1, group_id=1),
        rectangle("auto", 0, 2, 3, 3, group_id=2), rectangle("wheel", 0, 3, 0, 3, group_id=2),
        rectangle("car:door", 0, 5, 1, 5, group_id=3), rectangle("wheel", 3, 5, 3, 5, group_id=3),
        rectangle("CAR_WHEEL", 7, 5, 7, 5),
    ]  # fmt: skip
    dataset = converted("labelme", labelme_set(tmp_path / "raw", shapes), tmp_path / "out", two_cars)
    fine, coarse = maps(dataset)
    assert fine == filled(
        SIZE, (X, 0, 0, 3, 1), (3, 0, 1, 0, 1), (X, 0, 2, 3, 3), (1, 0, 3, 0, 3), (2, 0, 5, 1, 5), (1, 3, 5, 3, 5),
        (1, 7, 5, 7, 5),
    )  # fmt: skip
    assert coarse == filled(
        SIZE, (2, 0, 0, 3, 1), (1, 0, 2, 3, 3), (1, 0, 5, 1, 5), (1, 3, 5, 3, 5), (1, 7, 5, 7, 5)
    )  # fmt: skip
    assert only(dataset).n_objects == 4


def test_a_part_whose_group_has_two_owners_is_refused(tmp_path: Path, two_cars: Path) -> None:
    shapes = [rectangle(label, 0, 0, 3, 1, group_id=4) for label in ("bus", "car", "wheel")]
    said = complaint("labelme", labelme_set(tmp_path / "raw", shapes), two_cars)
    assert "'wheel' could belong to 'bus' and 'car' of group 4" in said


def test_reserved_names_need_no_entry(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [
        rectangle("sky", 0, 0, 7, 5), rectangle("__ignore__", 0, 0, 1, 1), rectangle("_background_", 4, 0, 5, 1)
    ]  # fmt: skip
    fine, coarse = maps(converted("labelme", labelme_set(tmp_path / "raw", shapes), tmp_path / "out", toy_yaml))
    assert fine == filled(SIZE, (SKY, 0, 0, 7, 5), (X, 0, 0, 1, 1), (0, 4, 0, 5, 1))
    assert coarse == filled(SIZE, (2, 0, 0, 7, 5), (X, 0, 0, 1, 1), (0, 4, 0, 5, 1))


def test_a_source_table_may_list_parts_by_object(tmp_path: Path, toy_yaml: Path) -> None:
    table = (
        '  labelme:\n    unlabelled: ignore\n    map: {car: {"wheel_*": wheel, mirror: ignore}, lorry: {coarse: car}, '
        "heaven: {__object__: sky}}\n"
    )
    hierarchy = tmp_path / "toy.yaml"
    hierarchy.write_text(toy_yaml.read_text(encoding="utf-8") + table, encoding="utf-8")
    shapes = [
        rectangle("car:wheel_3", 0, 0, 0, 0), rectangle("car:mirror", 1, 0, 1, 0), rectangle("car", 2, 0, 2, 0),
        rectangle("lorry", 3, 0, 3, 0), rectangle("heaven", 4, 0, 4, 0), rectangle("_background_", 5, 0, 5, 0),
    ]  # fmt: skip
    root = labelme_set(tmp_path / "raw", shapes, (1, 7))
    fine, coarse = maps(converted("labelme", root, tmp_path / "out", hierarchy))
    assert fine == [[WHEEL, X, X, X, SKY, 0, X]]
    assert coarse == [[CAR, CAR, CAR, CAR, 2, 0, X]]
    labelme_file(root / "a.json", [rectangle("wheel", 0, 0, 0, 0)], (1, 7))
    assert "unknown label (hierarchy 'toy') 'wheel'" in complaint("labelme", root, hierarchy)


def test_an_unknown_label_is_refused_with_a_suggestion_or_ignored_and_counted(tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [rectangle("sky", 0, 0, 7, 5), rectangle("wheels", 0, 0, 2, 1)])
    said = complaint("labelme", root, toy_yaml)
    assert "a.json" in said
    assert "'wheels'" in said
    assert "did you mean 'wheel'" in said
    assert "--unknown ignore" in said
    dataset = converted("labelme", root, tmp_path / "out", toy_yaml, unknown="ignore")
    assert maps(dataset)[1] == filled(SIZE, (2, 0, 0, 7, 5), (X, 0, 0, 2, 1))
    assert "6 px of unknown labels ignored" in only(dataset).warnings


def test_pieces_and_parts_of_one_group_are_one_object(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [
        rectangle("car", 0, 0, 1, 1, group_id=7), rectangle("car", 4, 0, 5, 1, group_id=7),
        rectangle("wheel", 5, 1, 5, 1, group_id=7), rectangle("car", 0, 3, 1, 3), rectangle("car", 4, 3, 5, 3),
        rectangle("sky", 7, 0, 7, 0, group_id=7), rectangle("_background_", 0, 0, 0, 0), rectangle("__ignore__", 4, 3, 4, 3),
    ]  # fmt: skip
    root = labelme_set(tmp_path / "raw", shapes)
    reader = open_reader("labelme", root, PrepareOptions(str(toy_yaml), ReaderOptions(instances=True)))
    (item,) = reader.items()
    label = pickle.loads(pickle.dumps(reader)).read(item)
    assert label.n_objects == 4
    assert label.instances is not None
    assert label.instances.dtype == np.uint16
    assert label.instances.tolist() == filled(
        SIZE, (1, 0, 0, 1, 1), (1, 4, 0, 5, 1), (2, 0, 3, 1, 3), (3, 4, 3, 5, 3), (4, 7, 0, 7, 0), (0, 0, 0, 0, 0),
        (0, 4, 3, 4, 3),
    )  # fmt: skip


# -- folders and photos ------------------------------------------------------------------------------------------------


def test_split_folders_and_folders_within_them(tmp_path: Path, toy_yaml: Path) -> None:
    root = tmp_path / "raw"
    for place in ("train/a", "Validation/day 1/b", "test/c", "d", "other/e"):
        photo(root / f"{place}.png", SIZE)
        name = place.rsplit("/", 1)[-1]
        labelme_file(root / f"{place}.json", [rectangle("sky", 0, 0, 7, 5)], imagePath=f"{name}.png")
    photo(root / "train" / "not annotated.jpg", SIZE)
    dataset = converted("labelme", root, tmp_path / "out", toy_yaml)
    assert keys_by_split(dataset) == {"test": ["c"], "train": ["a", "d", "other/e"], "val": ["day%201/b"]}


def test_the_photo_may_have_another_name_than_the_file(tmp_path: Path, toy_yaml: Path) -> None:
    photo(tmp_path / "raw" / "photos" / "p.jpg", SIZE)
    labelme_file(tmp_path / "raw" / "a.json", [rectangle("sky", 0, 0, 7, 5)], imagePath="photos/p.jpg")
    dataset = converted("labelme", tmp_path / "raw", tmp_path / "out", toy_yaml)
    assert only(dataset).image_path == "photos/p.jpg"
    assert only(dataset).key == "a"


@pytest.mark.parametrize(
    "named", ["..\\photos\\a.jpg", "../photos/a.jpg", "/home/x/a.jpg", "C:\\x\\a.jpg", "\\\\host\\a.jpg"]
)
def test_an_image_path_that_leads_elsewhere_is_followed_only_below_images(
    named: str, tmp_path: Path, toy_yaml: Path
) -> None:
    root = labelme_set(tmp_path / "raw", [rectangle("sky", 0, 0, 7, 5)], imagePath=named)
    said = complaint("labelme", root, toy_yaml)
    assert "a.json" in said
    assert "leaves its folder" in said
    assert "--images" in said
    (tmp_path / "photos").mkdir()
    (root / "a.jpg").rename(tmp_path / "photos" / "a.jpg")
    dataset = converted("labelme", root, tmp_path / "out", toy_yaml, images=tmp_path / "photos")
    assert maps(dataset)[0] == filled(SIZE, (SKY, 0, 0, 7, 5))
    (root / "a.json").rename(root / "b.json")
    dataset = converted("labelme", root, tmp_path / "renamed", toy_yaml, images=tmp_path / "photos")
    assert only(dataset).key == "b"


def test_photos_that_are_missing_or_not_the_one_named(tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [], imagePath="b.jpg")
    assert "names the photo b.jpg, but lies beside a.jpg" in complaint("labelme", root, toy_yaml)
    (root / "a.jpg").unlink()
    assert "its photo b.jpg is missing" in complaint("labelme", root, toy_yaml)
    labelme_file(root / "a.json", [], imageData="aGk=")
    assert "imageData" in complaint("labelme", root, toy_yaml)
    labelme_file(root / "a.json", [], imagePath=None)
    assert "imagePath is None" in complaint("labelme", root, toy_yaml)
    assert "no such folder" in complaint("labelme", root, toy_yaml, images=tmp_path / "nowhere")
    for folder in ("x", "y"):
        photo(tmp_path / "photos" / folder / "p.jpg", SIZE)
    labelme_file(root / "a.json", [], imagePath="p.jpg")
    assert "p.jpg is in several folders" in complaint("labelme", root, toy_yaml, images=tmp_path / "photos")
    (root / "a.json").unlink()
    assert "holds no *.json" in complaint("labelme", root, toy_yaml)


def test_a_stem_with_two_photos_is_refused(tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [])
    photo(root / "a.png", SIZE)
    assert "same stem" in complaint("labelme", root, toy_yaml)


@pytest.mark.parametrize("fields", [{"imageHeight": 8, "imageWidth": 6}, {"imageWidth": 9}, {"imageHeight": 7}])
def test_another_size_than_recorded(fields: dict[str, int], tmp_path: Path, toy_yaml: Path) -> None:
    said = complaint("labelme", labelme_set(tmp_path / "raw", [], **fields), toy_yaml)
    assert "image" in said
    assert "a.jpg is 8x6" in said


def test_sizes_that_are_not_stated_or_no_numbers(tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [], imageHeight=None, imageWidth=None)
    assert maps(converted("labelme", root, tmp_path / "out", toy_yaml))[0] == filled(SIZE)
    labelme_file(root / "a.json", [], imageHeight="6")
    assert "imageHeight and imageWidth are '6' and 8" in complaint("labelme", root, toy_yaml)


def turned_photo(path: Path, size: tuple[int, int], orientation: int) -> None:
    image = Image.new("RGB", (size[1], size[0]))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


def test_a_photo_that_labelme_has_turned_is_refused(tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [])
    turned_photo(root / "a.jpg", SIZE, 3)
    said = complaint("labelme", root, toy_yaml)
    assert "EXIF orientation 3" in said
    assert "labelme applies" in said
    turned_photo(root / "a.jpg", SIZE, 6)  # stored 8x6, shown 6x8: the recorded 8x6 proves that it was not turned
    assert maps(converted("labelme", root, tmp_path / "out", toy_yaml))[0] == filled(SIZE)
    labelme_file(root / "a.json", [], (8, 6))
    assert "turned upright" in complaint("labelme", root, toy_yaml)


# -- malformed files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", ["is an empty file"]),
        (b'{"shapes": [', ["broken JSON", ":1:13"]),
        (b'{"shapes": [],\n}', ["broken JSON", "a.json:"]),
        ('{"shapes": []}'.encode("utf-16"), ["UTF-16"]),
        (b'{"shapes": [], "imagePath": "\xff"}', ["not UTF-8"]),
        (b'{"shapes": [{"label": "sky", "points": [[NaN, 1]]}]}', ["NaN"]),
        (b'{"shapes": [], "shapes": []}', ["'shapes' twice"]),
        (b"[" * 200_000, ["nested too deeply"]),
        (b"[]", ["lacks the list 'shapes'"]),
        (b'{"images": [], "annotations": []}', ["lacks the list 'shapes'", "Move others out"]),
        (b'{"shapes": {}}', ["lacks the list 'shapes'"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["Git LFS pointer"]),
    ],
    ids=["empty", "cut", "comma", "utf-16", "latin-1", "nan", "repeated", "deep", "list", "coco", "mapping", "lfs"],
)
def test_broken_files(text: bytes, says: list[str], tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [])
    (root / "a.json").write_bytes(text)
    said = complaint("labelme", root, toy_yaml)
    assert all(part in said for part in ["a.json", *says]), said


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("sky", "shape 1 has no label"),
        ({"points": []}, "shape 1 has no label"),
        ({"label": 3, "points": []}, "shape 1 has no label"),
        (shape("sky", [[0, 0]], "point", group_id="1"), "shape 1 ('sky') has group_id '1'"),
        (shape("sky", [[0, 0]], "cuboid"), "unknown shape_type 'cuboid'"),
        (shape("sky", [[0, 0]], "poligon"), "did you mean 'polygon'"),
    ],
)
def test_entries_that_are_no_shapes(entry: Any, says: str, tmp_path: Path, toy_yaml: Path) -> None:
    assert says in complaint("labelme", labelme_set(tmp_path / "raw", [entry]), toy_yaml)


GOOD = rectangle("sky", 0, 0, 7, 5)
PNG = mask_shape("car", [[1, 1]], 0, 0)["mask"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (shape("car", [[0, 0], [3, 3]]), "needs 3 points or more, it has 2"),
        (shape("car", []), "needs 3 points"),
        (shape("car", None), "not [x, y] pairs"),
        (shape("car", [[0, 0], [3], [3, 3]]), "not [x, y] pairs"),
        (shape("car", [[0, 0], ["3", 1], [3, 3]]), "not [x, y] pairs"),
        (shape("car", [[0, 0], [True, 1], [3, 3]]), "not [x, y] pairs"),
        (shape("car", [[0, 0], [3, 0], [3, 3]], "rectangle"), "needs 2 points, it has 3"),
        (shape("car", [[0, 0]], "circle"), "needs 2 points, it has 1"),
        (shape("car", [[0, 0], [1, 1]], "point"), "needs 1 point, it has 2"),
        (shape("car", [[0, 0], [3, 0], [3, 3]], "oriented_rectangle"), "needs 4 points"),
        (shape("car", [[0, 0], [3, 0], [1e300, 3]]), "not finite, or far outside"),
        (shape("car", [[0, 0], [3, 3]], "mask"), "has no mask"),
        (shape("car", [[0, 0], [3, 3]], "mask", mask="###"), "no PNG in base64"),
        (shape("car", [[0, 0], [3, 3]], "mask", mask=base64.b64encode(b"GIF89a").decode()), "no PNG in base64"),
        (shape("car", [[0, 0], [3, 3]], "mask", mask=PNG), "its mask is 2x1, its box 4x4"),
        (shape("car", [[7, 0], [8, 0]], "mask", mask=PNG), "(7, 0)..(8, 0) leaves the image"),
        (shape("car", [[-1, 0], [0, 0]], "mask", mask=PNG), "leaves the image"),
        (shape("car", [[1, 0], [0, 0]], "mask", mask=PNG), "leaves the image"),
    ],
)
def test_a_shape_that_cannot_be_drawn_is_skipped_and_said(
    bad: dict[str, Any], says: str, tmp_path: Path, toy_yaml: Path
) -> None:
    dataset = converted("labelme", labelme_set(tmp_path / "raw", [GOOD, bad]), tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled(SIZE, (SKY, 0, 0, 7, 5))
    (warning,) = only(dataset).warnings
    assert "shape 2 ('car')" in warning
    assert says in warning
    assert "skipped" in warning


def test_infinity_written_as_a_huge_number_is_skipped(tmp_path: Path, toy_yaml: Path) -> None:
    root = labelme_set(tmp_path / "raw", [GOOD, shape("car", [[0, 0], [3, 0], [77, 3]])])
    path = root / "a.json"
    path.write_text(path.read_text(encoding="utf-8").replace("77", "1e999"), encoding="utf-8")
    assert "not finite" in only(converted("labelme", root, tmp_path / "out", toy_yaml)).warnings[0]


def test_shapes_partly_and_wholly_outside_the_image_are_clipped_and_counted(tmp_path: Path, toy_yaml: Path) -> None:
    shapes = [rectangle("sky", -4, -4, 1, 1), rectangle("sky", 6, 4, 12, 12), rectangle("sky", 20, 20, 25, 25)]
    dataset = converted("labelme", labelme_set(tmp_path / "raw", shapes), tmp_path / "out", toy_yaml)
    assert maps(dataset)[0] == filled(SIZE, (SKY, 0, 0, 1, 1), (SKY, 6, 4, 7, 5))
    assert sorted(only(dataset).warnings) == [
        "3 shapes reach outside the image; clipped", "shape 3 ('sky') covers no pixel"
    ]  # fmt: skip
