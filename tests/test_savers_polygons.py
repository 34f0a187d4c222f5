"""Polygons and labelme: filled again, outlines give the very pixels back, holes and specks included."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from saver_cases import DEEP, PAIR, WIDE, Ids, as_ids, label_map, prediction
from test_savers import SEEDS, SHAPES, TREES, save

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.infer.prediction import Prediction, Source
from hiposeg_cli.infer.savers.labelme import Labelme
from hiposeg_cli.infer.savers.photo import photo_name, photo_path
from hiposeg_cli.infer.savers.polygons import Polygons
from hiposeg_cli.labelmap import lift


def winding(lines: list[list[list[int]]], shape: tuple[int, int]) -> Ids:
    """How often closed lines of upright and level parts go round the middle of each pixel, clockwise on the screen."""
    turns = np.zeros(shape, dtype=np.int64)
    for line in lines:
        for (x, y), (next_x, next_y) in zip(line, [*line[1:], line[0]], strict=True):
            assert (x == next_x) != (y == next_y)
            if x == next_x:  # the line passes all pixels to its right: upwards it comes first
                turns[min(y, next_y) : max(y, next_y), x:] += 1 if next_y < y else -1
    return turns


def read_polygons(data: dict[str, Any], level: str) -> Ids:
    """The map of one level from a polygons file; no pixel in two polygons."""
    width, height = data["size"]
    back = np.full((height, width), -1)
    for entry in data["classes"]:
        if entry["level"] == level:
            for polygon in entry["polygons"]:
                turns = winding([polygon["outer"], *polygon["holes"]], back.shape)
                assert set(np.unique(turns)) <= {0, 1}
                assert (back[turns == 1] == -1).all()
                back[turns == 1] = entry["id"]
    return back


@settings(max_examples=150, deadline=None)
@given(TREES, SHAPES, SEEDS)
def test_polygons_filled_again_are_the_maps(tree: Hierarchy, shape: tuple[int, int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = prediction(tree, shape=shape, seed=seed)
        data = json.loads(save(Polygons(), said, Path(folder)).read_text(encoding="utf-8"))
    assert {entry["level"] for entry in data["classes"]} <= {level.name for level in tree.levels}
    for level, labels in zip(tree.levels, said.maps, strict=True):
        assert (read_polygons(data, level.name) == as_ids(labels)).all()
        entries = [entry for entry in data["classes"] if entry["level"] == level.name]
        assert [entry["id"] for entry in entries] == sorted(set(as_ids(labels).ravel().tolist()) - {-1})
        assert all(entry["name"] == level.nodes[entry["id"]].name for entry in entries)


def test_a_polygons_file_by_hand(tmp_path: Path) -> None:
    ids = np.array([[2, 2, 2], [2, -1, 2], [2, 2, 2]])
    maps = (label_map(PAIR.fine, ids), label_map(PAIR.coarse, np.full((3, 3), -1)))
    said = Prediction(Source(Path("/photos/x/é.jpg"), "x/é"), np.zeros((3, 3, 3), np.uint8), PAIR, maps)
    assert json.loads(save(Polygons(), said, tmp_path).read_text(encoding="utf-8")) == {
        "schema": "hiposeg/polygons@1",
        "file_name": "x/é.jpg",
        "size": [3, 3],
        "classes": [
            {
                "level": "fine",
                "id": 2,
                "name": "fine 2",
                "polygons": [
                    {"outer": [[0, 0], [3, 0], [3, 3], [0, 3]], "holes": [[[1, 2], [2, 2], [2, 1], [1, 1]]]},
                ],
            }
        ],
    }


# -- labelme -----------------------------------------------------------------------------------------------------------


def shape_to_mask(points: list[list[int]], shape: tuple[int, int]) -> Ids:
    """What labelme 5 makes of a polygon (labelme/utils/shape.py), without importing it."""
    image = Image.new("L", shape[::-1])
    assert len(points) > 2, "Polygon must have points more than 2"
    ImageDraw.Draw(image).polygon([tuple(point) for point in points], outline=1, fill=1)
    return np.array(image).astype(np.int64)


def read_labelme(path: Path, tree: Hierarchy) -> Ids:
    """The finest map of a labelme file; no pixel in two shapes, so their order does not matter."""
    data = json.loads(path.read_text(encoding="utf-8"))
    back = np.full((data["imageHeight"], data["imageWidth"]), -1)
    for shape in data["shapes"]:
        mask = shape_to_mask(shape["points"], back.shape) == 1
        assert (back[mask] == -1).all()
        back[mask] = tree.fine.names.index(shape["label"])
    return back


@settings(max_examples=150, deadline=None)
@given(TREES, SHAPES, SEEDS)
def test_labelme_shapes_drawn_by_pillow_are_the_map(tree: Hierarchy, shape: tuple[int, int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        said = prediction(tree, shape=shape, seed=seed)
        assert (read_labelme(save(Labelme(), said, Path(folder)), tree) == as_ids(said.maps[0])).all()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 13), st.integers(1, 13), st.sampled_from([0.3, 0.6, 0.8, 0.95]), SEEDS)
def test_labelme_regions_with_many_holes(height: int, width: int, share: float, seed: int) -> None:
    """Holes that touch each other, the outline or the bridge to another hole."""
    ids = np.where(np.random.default_rng(seed).random((height, width)) < share, 3, -1)
    maps = (label_map(PAIR.fine, ids), label_map(PAIR.coarse, np.where(ids < 0, -1, 0)))
    said = Prediction(Source(Path("/a.jpg"), "a"), np.zeros((height, width, 3), np.uint8), PAIR, maps)
    with tempfile.TemporaryDirectory() as folder:
        assert (read_labelme(save(Labelme(), said, Path(folder)), PAIR) == ids).all()


def test_a_labelme_file_by_hand(tmp_path: Path) -> None:
    """The keys that labelme 5 reads; the class's parent as group and flag; the photo found from the JSON's folder."""
    (tmp_path / "photos" / "x").mkdir(parents=True)
    ids = np.array([[-1, -1, -1], [-1, 4, 4]])
    maps = (label_map(PAIR.fine, ids), label_map(PAIR.coarse, np.where(ids < 0, -1, 1)))
    source = Source(tmp_path / "photos" / "x" / "b.png", "x/b")
    path = save(Labelme(), Prediction(source, np.zeros((2, 3, 3), np.uint8), PAIR, maps), tmp_path / "out")
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data.pop("version").split(".")[0] == "5"
    shape = {
        "label": "fine 4", "points": [[1, 1], [2, 1], [2, 1], [1, 1]], "group_id": 1, "shape_type": "polygon",
        "flags": {"coarse 1": True}, "description": "", "mask": None,
    }  # fmt: skip
    assert data == {
        "flags": {}, "shapes": [shape], "imagePath": "../../../photos/x/b.png", "imageData": None, "imageHeight": 2,
        "imageWidth": 3,
    }  # fmt: skip
    assert (path.parent / data["imagePath"]).resolve() == source.path


def test_labelme_files_beside_their_photos_are_prepared_to_the_same_maps(toy_yaml: Path, tmp_path: Path) -> None:
    """The way back into hiposeg: predictions corrected in labelme become training data."""
    tree = load_hierarchy(toy_yaml)
    raw = tmp_path / "raw"
    raw.mkdir()
    expected = {}
    for seed, name in enumerate("ab"):
        said = prediction(tree, shape=(24, 31), seed=seed, name=name, photo=raw / f"{name}.png")
        Image.fromarray(said.image).save(said.source.path)
        Labelme().save(said, raw / f"{name}.json")
        expected[name] = said.maps[0]
    options = PrepareOptions(hierarchy=str(toy_yaml), reader=ReaderOptions(unlabelled="ignore"))
    prepare("labelme", raw, tmp_path / "data", options)
    for name, fine in expected.items():
        for kind, labels in (("fine", fine), ("coarse", lift(fine, tree))):
            stored = np.array(Image.open(tmp_path / "data" / "labels" / kind / "train" / f"{name}.png"))
            assert (as_ids(stored) == as_ids(labels)).all()


def test_labelme_itself_opens_the_file(tmp_path: Path) -> None:
    pytest.importorskip("labelme", reason="labelme is not installed; its JSON is checked by hand above")
    from labelme import LabelFile  # type: ignore[import-not-found]

    said = prediction(DEEP, photo=tmp_path / "a.png")
    Image.fromarray(said.image).save(said.source.path)
    shapes = LabelFile(str(save(Labelme(), said, tmp_path))).shapes
    assert {shape["label"] for shape in shapes} == {DEEP.fine.names[k] for k in set(as_ids(said.maps[0]).flat) - {-1}}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labelme_shapes_are_turned_as_labelme_turns_the_photo(orientation: int, tmp_path: Path) -> None:
    """Maps follow the stored pixels, labelme the EXIF orientation: shapes would lie beside what they mean."""
    said = prediction(PAIR, shape=(6, 9), photo=tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = label_map(PAIR.fine, as_ids(said.maps[0]))  # the photo is its own label map
    Image.fromarray(shown).save(said.source.path, exif=exif)
    with Image.open(said.source.path) as photo:
        expected = np.array(ImageOps.exif_transpose(photo))
    assert (read_labelme(save(Labelme(), said, tmp_path / "out"), PAIR) == as_ids(expected)).all()


# -- names of photos ---------------------------------------------------------------------------------------------------


def test_names_of_photos_by_hand(tmp_path: Path) -> None:
    assert photo_name(Source(Path("/in/x/a.b.JPG"), "x/a.b")) == "x/a.b.JPG"
    assert photo_name(Source(Path("/in/film.mp4"), "film/000012")) == "film/000012"
    assert photo_name(Source(Path(os.fsdecode(b"/in/caf\xe9.jpg")), os.fsdecode(b"caf\xe9"))) == "caf�.jpg"
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    assert photo_path(Source(tmp_path / "link" / "a.jpg", "a"), tmp_path / "out") == "../store/a.jpg"


def test_ids_above_255_are_written_as_they_are(tmp_path: Path) -> None:
    ids = np.array([[256, 299, 255]])
    maps = tuple(label_map(level, WIDE.ancestors(depth)[ids]) for depth, level in enumerate(WIDE.levels))
    said = Prediction(Source(Path("/a.jpg"), "a"), np.zeros((1, 3, 3), np.uint8), WIDE, maps)
    data = json.loads(save(Polygons(), said, tmp_path).read_text(encoding="utf-8"))
    assert [entry["id"] for entry in data["classes"] if entry["level"] == "fine"] == [255, 256, 299]
    assert (read_labelme(save(Labelme(), said, tmp_path), WIDE) == ids).all()
