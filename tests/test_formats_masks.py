"""Folders of label PNGs: coarse maps beside the fine ones, colours in place of ids, and ids of another numbering."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversion import complaint, converted, only
from numpy.typing import NDArray
from PIL import Image
from raw_sets import ids_png, masks_set, photo, png_chunk

from hiposeg_cli.convert import PrepareOptions, open_reader, prepare
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.store import Dataset

X = 255
CAR, SKY = 1, 2  # coarse ids of the toy hierarchy; raw id 7 is a car without a part, 255 is ignored
FINE = np.array([[0, 1, 2, 6], [7, 255, 255, 255], [255, 3, 6, 0]], np.uint8)
COARSE = np.array([[0, 1, 255, 2], [1, 1, 2, 0], [255, 255, 2, 255]], np.uint8)


def maps(dataset: Dataset) -> tuple[list[list[int]], list[list[int]]]:
    labels = dataset.labels(only(dataset))
    return labels.fine.tolist(), labels.coarse.tolist()


# -- coarse maps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "labels", "coarse"),
    [
        ("train/images", "train/labels", "train/coarse"),
        ("train/images", "train/labels", "train/labels_coarse"),
        ("images/train", "labels/train", "labels_coarse/train"),
        ("img_dir/train", "ann_dir/train", "ann_dir_coarse/train"),
        ("images/train", "labels/train", "coarse/train"),
        ("images", "masks", "masks_coarse"),
        ("images", "labels", "coarse"),
    ],
)
@pytest.mark.parametrize("wide", [False, True], ids=["8 bits", "16 bits"])
def test_a_coarse_map_fills_in_where_the_fine_label_is_ignored(
    images: str, labels: str, coarse: str, wide: bool, tmp_path: Path, toy_yaml: Path
) -> None:
    root = tmp_path / "raw"
    photo(root / images / "in" / "a.jpg", FINE.shape)
    ids_png(root / labels / "in" / "a.png", FINE)
    given: NDArray[Any] = np.where(COARSE == 255, 65535, COARSE.astype(np.uint16)) if wide else COARSE
    ids_png(root / coarse / "in" / "a.png", given)
    dataset = converted("masks", root, tmp_path / "out", toy_yaml)
    fine, found = maps(dataset)
    assert fine == [[0, 1, 2, 6], [X, X, X, X], [X, 3, 6, 0]]
    assert found == [[0, CAR, CAR, SKY], [CAR, CAR, SKY, 0], [X, CAR, SKY, 0]]
    assert only(dataset).coarse_only_px == 4
    assert only(dataset).ignore_px == 1


def coarse_set(root: Path, fine: NDArray[Any], coarse: NDArray[Any]) -> Path:
    masks_set(root, {"a": fine})
    ids_png(root / "train" / "labels_coarse" / "a.png", coarse)
    return root


def test_a_coarse_map_beside_16_bit_ids_and_colours(tmp_path: Path, toy_yaml: Path) -> None:
    root = coarse_set(tmp_path / "raw", FINE.astype(np.uint16), COARSE)
    assert maps(converted("masks", root, tmp_path / "out", toy_yaml))[1][1] == [CAR, CAR, SKY, 0]
    hierarchy = coloured_hierarchy(tmp_path, toy_yaml, '"#000000": background, "#ffffff": ignore, "#ff0000": wheel')
    pixels = np.zeros((1, 3, 3), np.uint8)
    pixels[0, 1:] = [[255, 0, 0], [255, 255, 255]]
    root = coloured_set(tmp_path / "coloured", pixels)
    ids_png(root / "labels_coarse" / "a.png", np.array([[255, 1, 2]], np.uint8))
    fine, coarse = maps(converted("masks", root, tmp_path / "coloured_out", hierarchy))
    assert (fine, coarse) == ([[0, 1, X]], [[0, CAR, SKY]])


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ((0, 1), SKY, "disagrees with a.png on 1 px, the first at (1, 0): 'sky', but the fine label belongs to 'car'"),
        ((0, 0), CAR, "'car', but the fine label belongs to 'background'"),
        ((1, 0), SKY, "at (0, 1): 'sky', but the fine label belongs to 'car'"),
        ((1, 1), 3, "coarse ids unknown to the hierarchy: 3 (1 px)"),
        ((0, 1), 254, "coarse ids unknown to the hierarchy: 254 (1 px) - use ids 0..2 of the level 'coarse', and 255"),
    ],
)
def test_a_coarse_map_that_contradicts_the_fine_one(
    place: tuple[int, int], value: int, says: str, tmp_path: Path, toy_yaml: Path
) -> None:
    coarse = COARSE.copy()
    coarse[place] = value
    said = complaint("masks", coarse_set(tmp_path / "raw", FINE, coarse), toy_yaml)
    assert "labels_coarse/a.png" in said
    assert says in said


def test_disagreement_is_counted(tmp_path: Path, toy_yaml: Path) -> None:
    root = coarse_set(tmp_path / "raw", np.full((3, 4), 1, np.uint8), np.full((3, 4), SKY, np.uint8))
    assert "on 12 px" in complaint("masks", root, toy_yaml)


def test_coarse_maps_of_another_size_or_missing(tmp_path: Path, toy_yaml: Path) -> None:
    root = coarse_set(tmp_path / "raw", FINE, COARSE.T.copy())
    assert "is 3x4, but the fine labels are 4x3" in complaint("masks", root, toy_yaml)
    (root / "train" / "labels_coarse" / "a.png").unlink()
    said = complaint("masks", root, toy_yaml)
    assert "labels/a.png: has no coarse labels in" in said


def test_unknown_ids_stay_unknown_beside_a_coarse_map(tmp_path: Path, toy_yaml: Path) -> None:
    fine = FINE.copy()
    fine[1, 1] = 9
    root = coarse_set(tmp_path / "raw", fine, COARSE)
    assert "unknown to the hierarchy: 9 (1 px)" in complaint("masks", root, toy_yaml)
    dataset = converted("masks", root, tmp_path / "out", toy_yaml, unknown="ignore")
    assert maps(dataset)[1][1] == [CAR, X, SKY, 0]
    assert only(dataset).warnings == ["1 px of unknown labels ignored"]


def test_the_coarse_file_is_watched_for_changes_and_found_by_workers(tmp_path: Path, toy_yaml: Path) -> None:
    root = coarse_set(tmp_path / "raw", FINE, COARSE)
    reader = open_reader("masks", root, PrepareOptions(str(toy_yaml)))
    (item,) = reader.items()
    assert root / "train" / "labels_coarse" / "a.png" in reader.raw_files(item)
    sent = pickle.loads(pickle.dumps(reader))
    assert (sent.read(item).ids == reader.read(item).ids).all()


# -- colours -----------------------------------------------------------------------------------------------------------

COLOURS = '"#000000": background, "#FF0000": wheel, "#00ff80": {coarse: car}, "#0a0b0c": sky, "#ffffff": ignore'
PIXELS = np.array(
    [[[0, 0, 0], [255, 0, 0], [0, 255, 128]], [[10, 11, 12], [255, 255, 255], [255, 0, 0]]], np.uint8
)  # fmt: skip


def coloured_hierarchy(folder: Path, toy_yaml: Path, entries: str, rest: str = "") -> Path:
    path = folder / "coloured.yaml"
    head = toy_yaml.read_text(encoding="utf-8").split("sources:")[0]
    path.write_text(f"{head}sources:\n  masks:\n    map: {{{entries}}}\n{rest}", encoding="utf-8")
    return path


def coloured_set(root: Path, pixels: NDArray[np.uint8], mode: str = "RGB") -> Path:
    photo(root / "images" / "a.jpg", pixels.shape[:2])
    (root / "labels").mkdir(parents=True)
    image = Image.fromarray(pixels)
    image = image.quantize(16, dither=Image.Dither.NONE) if mode == "P" else image.convert(mode)
    image.save(root / "labels" / "a.png")
    return root


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_looked_up_exactly(mode: str, tmp_path: Path, toy_yaml: Path) -> None:
    root = coloured_set(tmp_path / "raw", PIXELS, mode)
    dataset = converted("masks", root, tmp_path / "out", coloured_hierarchy(tmp_path, toy_yaml, COLOURS))
    assert maps(dataset) == ([[0, 1, X], [6, X, 1]], [[0, CAR, CAR], [SKY, X, CAR]])


def test_unknown_colours_are_listed_with_their_pixels_or_ignored(tmp_path: Path, toy_yaml: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = [255, 0, 1]
    pixels[2] = [1, 2, 3]
    root, hierarchy = coloured_set(tmp_path / "raw", pixels), coloured_hierarchy(tmp_path, toy_yaml, COLOURS)
    said = complaint("masks", root, hierarchy)
    assert "a.png" in said
    assert "colours unknown to the hierarchy: #ff0001 (8 px), #010203 (4 px)" in said
    dataset = converted("masks", root, tmp_path / "out", hierarchy, unknown="ignore")
    assert maps(dataset)[1] == [[X] * 4] * 3 + [[0] * 4]
    assert only(dataset).warnings == ["12 px of unknown labels ignored"]


def test_many_unknown_colours_are_summed_up(tmp_path: Path, toy_yaml: Path) -> None:
    pixels = np.arange(3 * 64, dtype=np.uint8).reshape(8, 8, 3)
    said = complaint("masks", coloured_set(tmp_path / "raw", pixels), coloured_hierarchy(tmp_path, toy_yaml, COLOURS))
    assert "and 59 more" in said
    assert "smoothed or resized" in said


def test_random_colours_against_a_dictionary(tmp_path: Path, toy_yaml: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice(1 << 24, 40, replace=False)
    targets = ["background", "wheel", "window", "body", "sky", "ignore"]
    chosen = {int(code): targets[place % 6] for place, code in enumerate(codes)}
    entries = ", ".join(f'"#{code:06x}": {target}' for code, target in chosen.items())
    picked = rng.choice(codes, (30, 20))
    pixels = np.stack([picked >> 16, picked >> 8 & 255, picked & 255], axis=-1).astype(np.uint8)
    root = coloured_set(tmp_path / "raw", pixels)
    fine, _ = maps(converted("masks", root, tmp_path / "out", coloured_hierarchy(tmp_path, toy_yaml, entries)))
    ids = {"background": 0, "wheel": 1, "window": 2, "body": 3, "sky": 6, "ignore": X}
    assert fine == [[ids[chosen[int(code)]] for code in line] for line in picked]


def test_pictures_that_are_not_certain_colours(tmp_path: Path, toy_yaml: Path) -> None:
    root, hierarchy = coloured_set(tmp_path / "raw", PIXELS), coloured_hierarchy(tmp_path, toy_yaml, COLOURS)
    path = root / "labels" / "a.png"
    transparent = Image.fromarray(PIXELS).convert("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 254))
    transparent.save(path)
    assert "transparent in places" in complaint("masks", root, hierarchy)
    Image.fromarray(PIXELS).convert("L").save(path)
    assert "is a L picture, but the map lists colours" in complaint("masks", root, hierarchy)
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)  # 16-bit RGB, which Pillow would cut to 8 bits
    rows = zlib.compress(b"".join(b"\0" + line.astype(">u2").tobytes() for line in PIXELS))
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, body) for kind, body in chunks))
    assert "has 16 bits a colour" in complaint("masks", root, hierarchy)
    Image.fromarray(PIXELS).save(path, "JPEG")
    assert "labels are JPEG" in complaint("masks", root, hierarchy)
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:-12])
    assert "truncated" in complaint("masks", root, hierarchy)


@pytest.mark.parametrize(
    ("entries", "rest", "says"),
    [
        ('"#000000": background, 1: wheel', "", "the map's key 1 is no colour"),
        ('"#000000": background, "#ff00": wheel', "", "the map's key '#ff00' is no colour"),
        ('"#00aa00": background, "#00AA00": wheel', "", "the colour #00aa00 twice"),
        ('"#000000": background', "    ignore: [255]\n", "`ignore` lists ids, but the map's keys are colours"),
    ],
)
def test_colour_tables_that_cannot_be_used(entries: str, rest: str, says: str, tmp_path: Path, toy_yaml: Path) -> None:
    root = coloured_set(tmp_path / "raw", PIXELS)
    assert says in complaint("masks", root, coloured_hierarchy(tmp_path, toy_yaml, entries, rest))


def test_coloured_pngs_without_a_colour_table_are_refused(tmp_path: Path, toy_yaml: Path) -> None:
    assert "coloured visualisation" in complaint("masks", coloured_set(tmp_path / "raw", PIXELS), toy_yaml)


# -- other numberings --------------------------------------------------------------------------------------------------

STREET = """
schema: hiposeg/hierarchy@1
name: street
levels: [fine, coarse]
classes:
  coarse: [flat, vehicle]
  fine:
    - {name: road, parent: flat}
    - {name: path, parent: flat}
    - {name: car, parent: vehicle}
sources:
  masks: {map: MAP, ignore: IGNORE}
"""
LABEL_IDS = "{7: road, 8: path, 26: car}"
FROM_0, FROM_1 = "{0: road, 1: path, 2: car}", "{1: road, 2: path, 3: car}"


@pytest.mark.parametrize(
    ("table", "ignore", "ids", "says"),
    [
        (LABEL_IDS, "[0]", [0, 1, 2, 255], "its ids fit the classes of the hierarchy (0..2 and 255): are they train ids"),
        (LABEL_IDS, "[255]", [1, 2, 255], "its ids fit the classes of the hierarchy (0..2): are they train ids"),
        (LABEL_IDS, "[0]", [7, 2], ""),  # id 2 may be any class that was forgotten
        (FROM_0, "[255]", [1, 3, 255], "its ids end at 3 and leave 0 out, the map's run from 0 to 2: does it count from 1?"),
        (FROM_0, "[255]", [0, 3], ""),  # four classes from 0, or something else
        (FROM_0, "[255]", [1, 4], ""),
        (FROM_1, "[255]", [0, 1], "its ids start at 0 and end before 3, the map's run from 1: does it count from 0"),
        (FROM_1, "[255]", [0], "or is 0 unlabelled?"),
        (FROM_1, "[255]", [0, 3], ""),
        (FROM_1, "[]", [1, 255], ""),
    ],
)
def test_another_numbering_is_named_where_it_can_be_shown(
    table: str, ignore: str, ids: list[int], says: str, tmp_path: Path
) -> None:
    hierarchy = tmp_path / "street.yaml"
    hierarchy.write_text(STREET.replace("MAP", table).replace("IGNORE", ignore), encoding="utf-8")
    root = masks_set(tmp_path / "raw", {"a": np.array([ids], np.uint8)})
    said = complaint("masks", root, hierarchy)
    assert "label ids unknown to the hierarchy: " in said
    assert "px)" in said
    assert "ignore" in said
    assert ("?" in said) == bool(says)
    assert says in said


def test_ids_of_another_source_are_recognised(tmp_path: Path) -> None:
    root = masks_set(tmp_path / "raw", {"a": np.array([[7, 8, 0]], np.uint8)})
    other = "  cityscapes: {map: {7: road, 8: path, 26: car}, ignore: [0, -1]}\n"
    hierarchy = tmp_path / "street.yaml"
    hierarchy.write_text(STREET.replace("MAP", FROM_0).replace("IGNORE", "[]") + other, encoding="utf-8")
    assert "known to the source 'cityscapes': is it data for the format cityscapes?" in complaint("masks", root, hierarchy)


def test_unknown_16_bit_ids_are_explained_too(tmp_path: Path) -> None:
    hierarchy = tmp_path / "street.yaml"
    hierarchy.write_text(STREET.replace("MAP", FROM_0).replace("IGNORE", "[65535]"), encoding="utf-8")
    root = masks_set(tmp_path / "raw", {"a": np.array([[1, 3, 65535]], np.uint16)})
    assert "does it count from 1?" in complaint("masks", root, hierarchy)


def test_checking_without_writing_reads_coarse_maps_too(tmp_path: Path, toy_yaml: Path) -> None:
    root = coarse_set(tmp_path / "raw", FINE, COARSE)
    options = PrepareOptions(str(toy_yaml), ReaderOptions())
    coarse = prepare("masks", root, None, options).report["coarse"]
    assert {entry["name"]: entry["pixels"]["train"] for entry in coarse} == {"background": 3, "car": 5, "sky": 3}
