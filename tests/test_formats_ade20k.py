"""ADE20K in both releases: nested codes in colours against hand-made tables, and the 150 classes of SceneParse150."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from raw_sets import ids_png, photo

from hiposeg_cli.builders.base import BuildOptions, build_taxonomy
from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.ade20k import Ade20k
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, load_hierarchy
from hiposeg_cli.store import Dataset, open_dataset

X = 255  # ignore
CODES = {
    "car, auto, automobile, machine, motorcar": 401, "house": 1276, "door": 774, "window": 3050, "wheel": 3035, "rim": 2122,
    "sky": 2420, "caf\xe9": 345,
}  # fmt: skip
CAR, HOUSE, DOOR, WINDOW, WHEEL, RIM, SKY, CAFE = CODES.values()
NAMES = {code: name for name, code in CODES.items()}

TOY = """
schema: hiposeg/hierarchy@1
name: toy-ade
levels: [fine, coarse]
classes:
  coarse: [car, house, sky, {name: background, kind: background}]
  fine:
    - {name: car door, parent: car}
    - {name: car wheel, parent: car}
    - {name: car window, parent: car}
    - {name: house door, parent: house}
    - {name: house rest, parent: house}
    - {name: sky, parent: sky}
    - {name: background, parent: background, kind: background}
sources:
  ade20k:
    UNLABELLED
    map:
      MAP
"""
NESTED = """
      car: {door: car door, wheel: {__object__: car wheel, rim: ignore}, window: car window}
      house: {door: house door, __object__: house rest}
      sky: sky
"""


def toy(tmp_path: Path, table: str = NESTED, top: str = "unlabelled: ignore") -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY.replace("UNLABELLED", top).replace("      MAP", table), encoding="utf-8")
    return path


# -- a release drawn by script -----------------------------------------------------------------------------------------


def mask_png(path: Path, codes: list[list[int]], marks: list[list[int]] | None = None) -> Path:
    """Codes as the release colours them: red 10 * (code // 256), green code % 256, blue the instance mark."""
    array = np.array(codes)
    blue = (array > 0) * 255 if marks is None else np.array(marks)
    pixels = np.stack([array // 256 * 10, array % 256, blue], axis=-1).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@dataclass
class Listed:
    """One entry of the JSON; `of` is the id of what it is a part of."""

    code: int
    level: int = 0
    of: int | None = None
    name: str | None = None


@dataclass
class Ade:
    """One image in the layout of the release; the JSON lists every code of the masks unless told otherwise."""

    seg: list[list[int]]
    parts: list[list[list[int]]] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)
    marks: list[list[int]] | None = None

    def write(self, root: Path, name: str = "ADE_train_00000001", split: str = "training") -> Path:
        stem = root / "images" / "ADE" / split / "urban" / "street" / name
        photo(stem.with_suffix(".jpg"), (len(self.seg), len(self.seg[0])))
        mask_png(stem.with_name(f"{name}_seg.png"), self.seg, self.marks)
        for level, codes in enumerate(self.parts, start=1):
            mask_png(stem.with_name(f"{name}_parts_{level}.png"), codes)
        mask_png(stem.with_name(name) / f"instance_000_{name}.png", [[0]])
        stem.with_suffix(".json").write_bytes(json.dumps(self.json(name), ensure_ascii=False).encode("latin-1"))
        return root

    def json(self, name: str) -> dict[str, Any]:
        entries = [
            {
                "id": number, "name": entry.name or NAMES[entry.code], "name_ndx": entry.code, "hypernym": [], "crop": "0",
                "parts": {
                    "part_level": entry.level, "hasparts": [], "ispartof": [] if entry.of is None else entry.of,
                },
                "polygon": {"x": [0, 1], "y": [0, 1]},
            }
            for number, entry in enumerate(self.listed)
        ]  # fmt: skip
        return {"annotation": {"filename": f"{name}.jpg", "folder": "ADE20K_2021_17_01", "object": entries}}


def street() -> Ade:
    """A car with door, window in the door, wheel and rim; a house with a door; sky; an unlabelled pixel."""
    return Ade(
        seg=[[CAR, CAR, CAR, CAR, CAR], [HOUSE, HOUSE, SKY, 0, CAR]],
        parts=[
            [[DOOR, DOOR, WHEEL, WHEEL, 0], [DOOR, 0, 0, 0, WINDOW]],
            [[0, WINDOW, 0, RIM, 0], [0, 0, 0, 0, 0]],
        ],
        listed=[
            Listed(CAR), Listed(HOUSE), Listed(SKY), Listed(DOOR, 1, 0), Listed(WINDOW, 2, 3), Listed(WHEEL, 1, 0),
            Listed(RIM, 2, 5), Listed(DOOR, 1, 1), Listed(WINDOW, 1, 0),
        ],
    )  # fmt: skip


def converted(root: Path, out: Path, hierarchy: object, **reader: Any) -> Dataset:
    result = prepare("ade20k", root, out, PrepareOptions(hierarchy=str(hierarchy), reader=ReaderOptions(**reader)))
    assert [str(error) for error in result.failures] == []
    return open_dataset(out)


def maps(dataset: Dataset) -> tuple[list[list[int]], list[list[int]]]:
    (row,) = (row for rows in dataset.rows.values() for row in rows)
    labels = dataset.labels(row)
    return labels.fine.tolist(), labels.coarse.tolist()


def complaint(format_name: str, root: Path, hierarchy: object = None, **reader: Any) -> str:
    """What is said against a source, raised or collected; any other exception fails the test."""
    options = PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))
    try:
        result = prepare(format_name, root, None, options)
    except HiposegError as error:
        return str(error)
    assert result.failures, "nothing was refused"
    return str(result.failures[0])


# -- what pairs of object and part become ------------------------------------------------------------------------------


def test_one_part_name_under_two_objects_and_parts_of_parts(tmp_path: Path) -> None:
    dataset = converted(street().write(tmp_path / "raw"), tmp_path / "out", toy(tmp_path))
    # door, window (in the door), wheel, rim (ignored, keeps its car), bare car / house door, house, sky, nothing, window
    assert maps(dataset) == (
        [[0, 2, 1, X, X], [3, 4, 5, X, 2]],
        [[0, 0, 0, 0, 0], [1, 1, 2, X, 0]],
    )
    (row,) = dataset.rows["train"]
    assert (row.key, row.n_objects, row.uncovered_px) == ("urban/street/ADE_train_00000001", 3, 2)


def test_training_and_validation_become_train_and_val(tmp_path: Path) -> None:
    root = tmp_path / "raw" / "ADE20K_2021_17_01"
    street().write(root)
    street().write(root, "ADE_val_00000007", "validation")
    for source in (root, root.parent, root / "images" / "ADE"):
        dataset = converted(source, tmp_path / f"out{len(source.parts)}", toy(tmp_path))
        assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {
            "train": ["urban/street/ADE_train_00000001"],
            "val": ["urban/street/ADE_val_00000007"],
        }


SPELLINGS = {
    "whole names": ('"car, auto, automobile, machine, motorcar"', "door", "window", "wheel"),
    "first names in capitals": ("CAR", "Door", "WINDOW", "wheel"),
    "globs": ('"car,*"', "d?or", '"win*"', "whe*"),
    "codes": ('"#401"', '"#774"', '"#3050"', '"#3035"'),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_keys_are_names_globs_or_codes(tmp_path: Path, spelling: str) -> None:
    car, door, window, wheel = SPELLINGS[spelling]
    table = f"      {car}: {{{door}: car door, {window}: car window, {wheel}: car wheel, rim: car wheel}}\n"
    table += "      house: house rest\n      sky: {__object__: sky}\n"
    dataset = converted(street().write(tmp_path / "raw"), tmp_path / "out", toy(tmp_path, table))
    assert maps(dataset) == (
        [[0, 2, 1, 1, X], [4, 4, 5, X, 2]],
        [[0, 0, 0, 0, 0], [1, 1, 2, X, 0]],
    )


def test_a_star_covers_what_is_not_listed_and_a_part_of_a_known_part_stays_that_part(tmp_path: Path) -> None:
    table = '      car: {door: car door, window: car window, "*": ignore}\n      "*": ignore\n'
    dataset = converted(street().write(tmp_path / "raw"), tmp_path / "out", toy(tmp_path, table))
    assert maps(dataset) == (
        [[0, 2, X, X, X], [X, X, X, X, 2]],
        [[0, 0, 0, 0, 0], [X, X, X, X, 0]],
    )
    table = '      car: {wheel: car wheel, "*": car door}\n      "*": {coarse: house}\n'
    dataset = converted(street().write(tmp_path / "raw"), tmp_path / "other", toy(tmp_path, table))
    assert maps(dataset) == (
        [[0, 0, 1, 1, X], [X, X, X, X, 0]],
        [[0, 0, 0, 0, 0], [1, 1, 1, X, 0]],
    )


def test_uncovered_and_unlabelled_pixels(tmp_path: Path) -> None:
    root = street().write(tmp_path / "raw")
    kept = converted(root, tmp_path / "kept", toy(tmp_path, top="unlabelled: background"))
    lost = converted(root, tmp_path / "lost", toy(tmp_path, top="uncovered: background"))
    ignored = converted(root, tmp_path / "ignored", toy(tmp_path), uncovered="ignore")
    assert [maps(data)[1][0][4] for data in (kept, lost, ignored)] == [0, 3, X]
    assert [maps(data)[0][0][4] for data in (kept, lost, ignored)] == [X, 6, X]
    assert [maps(data)[0][1][3] for data in (kept, lost, ignored)] == [6, 6, X]
    assert [maps(data)[0][1][1] for data in (kept, lost, ignored)] == [4, 4, 4]  # __object__ says what it is


def test_unknown_names_are_refused_or_ignored_on_request(tmp_path: Path) -> None:
    root = street().write(tmp_path / "raw")
    no_house = "      car: {door: car door, wheel: car wheel, window: car window}\n      sky: sky\n"
    said = complaint("ade20k", root, toy(tmp_path, no_house))
    assert re.search(r"_seg\.png.*(part of car.*'rim'|object.*'house')", said)
    ignored = converted(root, tmp_path / "out", toy(tmp_path, no_house), unknown="ignore")
    assert maps(ignored) == ([[0, 2, 1, 1, X], [X, X, 5, X, 2]], [[0, 0, 0, 0, 0], [X, X, 2, X, 0]])


def test_a_part_that_shows_on_another_object_is_left_out_and_reported(tmp_path: Path) -> None:
    ade = Ade(seg=[[CAR, SKY, 0]], parts=[[[DOOR, DOOR, DOOR]]], listed=[Listed(CAR), Listed(SKY), Listed(DOOR, 1, 0)])
    dataset = converted(ade.write(tmp_path / "raw"), tmp_path / "out", toy(tmp_path))
    assert maps(dataset) == ([[0, 5, X]], [[0, 2, X]])
    (row,) = dataset.rows["train"]
    assert sorted(row.warnings) == [
        "door on nothing: 1 px left out, it is no part of that", "door on sky: 1 px left out, it is no part of that",
    ]  # fmt: skip


def test_instances_are_numbered_by_rank_of_blue(tmp_path: Path) -> None:
    ade = Ade(
        seg=[[CAR, CAR, 0, HOUSE, CAR]], marks=[[85, 170, 0, 255, 85]], listed=[Listed(CAR), Listed(CAR), Listed(HOUSE)]
    )
    reader = Ade20k(ade.write(tmp_path / "raw"), load_hierarchy(toy(tmp_path)), ReaderOptions(instances=True))
    (item,) = reader.items()
    instances = reader.read(item).instances
    assert instances is not None
    assert instances.dtype == np.uint16
    assert instances.tolist() == [[1, 2, 0, 3, 1]]


def test_latin_1_names_and_the_folder_of_amodal_masks(tmp_path: Path) -> None:
    ade = Ade(seg=[[CAFE, SKY]], listed=[Listed(CAFE), Listed(SKY)])
    table = "      café: house rest\n      sky: sky\n"
    root = ade.write(tmp_path / "raw")
    dataset = converted(root, tmp_path / "out", toy(tmp_path, table))
    assert maps(dataset)[0] == [[4, 5]]
    for path in root.rglob("*.json"):  # and saved again as UTF-8
        path.write_text(path.read_bytes().decode("latin-1"), encoding="utf-8")
    assert maps(converted(root, tmp_path / "utf8", toy(tmp_path, table)))[0] == [[4, 5]]


def built(root: Path, path: Path) -> Path:
    path.write_text(dump_hierarchy(build_taxonomy("ade20k", root, BuildOptions(name="all-pairs"))), encoding="utf-8")
    return path


def test_a_taxonomy_built_from_the_release_reads_the_release(tmp_path: Path) -> None:
    root = street().write(tmp_path / "raw")
    dataset = converted(root, tmp_path / "out", built(root, tmp_path / "built.yaml"))
    names = dataset.hierarchy.fine.names
    fine = [["-" if value == X else names[value] for value in row] for row in maps(dataset)[0]]
    assert fine == [
        ["car's door", "car's window", "car's wheel", "car's rim", "-"], ["house's door", "-", "sky", "-", "car's window"],
    ]  # fmt: skip


@pytest.mark.slow
def test_a_taxonomy_built_from_genuine_samples_reads_them(sample_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = sample_data("ade20k") / "dataset" / "ADE20K_2021_17_01"
    dataset = converted(root, tmp_path / "out", built(root, tmp_path / "built.yaml"))
    fine, coarse = dataset.hierarchy.fine.names, dataset.hierarchy.coarse.names
    for row in dataset.rows["train"]:
        stem = root / "images" / "ADE" / "training" / row.key
        labels, objects = dataset.labels(row), direct(stem.with_name(f"{stem.name}_seg.png"))
        assert np.array_equal(labels.coarse != X, objects > 0)
        buildings = coarse.index("building")
        assert np.array_equal(labels.coarse == buildings, objects == 312)
        parts = direct(stem.with_name(f"{stem.name}_parts_1.png"))
        assert np.array_equal(labels.fine == fine.index("building's window"), (objects == 312) & (parts == WINDOW))


def test_raw_files_are_all_files_an_image_is_made_from(tmp_path: Path) -> None:
    root = street().write(tmp_path / "raw")
    reader = Ade20k(root, load_hierarchy(toy(tmp_path)), ReaderOptions())
    (item,) = reader.items()
    assert sorted(path.name.removeprefix("ADE_train_00000001") for path in reader.raw_files(item)) == [
        ".jpg", ".json", "_parts_1.png", "_parts_2.png", "_seg.png",
    ]  # fmt: skip


# -- malformed ---------------------------------------------------------------------------------------------------------


def one(root: Path, ending: str) -> Path:
    (path,) = root.rglob(f"*{ending}")
    return path


def rewrite(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = one(root, ".json")
    data = json.loads(path.read_bytes())
    change(data["annotation"])
    path.write_text(json.dumps(data), encoding="utf-8")


def set_first(**changes: Any) -> Callable[[Path], None]:
    return lambda root: rewrite(root, lambda annotation: annotation["object"][0].update(changes))


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no photo": (lambda root: one(root, ".jpg").unlink(), ["_seg.png", "without ADE_train_00000001.jpg"]),
    "no JSON": (lambda root: one(root, ".json").unlink(), ["_seg.png", "without ADE_train_00000001.json"]),
    "no masks": (lambda root: one(root, "_seg.png").unlink(), ["no training or validation"]),
    "parts missing": (lambda root: one(root, "parts_2.png").unlink(), ["_parts_2.png", "no such file", "lists such parts"]),
    "grey mask": (lambda root: ids_png(one(root, "_seg.png"), np.zeros((2, 5), np.uint8)), ["_seg.png", "L picture", "RGB"]),
    "coloured picture": (lambda root: photo(one(root, "_seg.png"), (2, 5)), ["_seg.png", "multiples of 10"]),
    "JPEG mask": (lambda root: shutil.copy(one(root, ".jpg"), one(root, "_seg.png")), ["_seg.png", "JPEG"]),
    "cut mask": (lambda root: cut(one(root, "_seg.png"), -12), ["_seg.png", "truncated"]),
    "empty mask": (lambda root: cut(one(root, "parts_1.png"), 0), ["_parts_1.png", "empty file"]),
    "parts of another size": (
        lambda root: mask_png(one(root, "parts_1.png"), [[DOOR]]), ["_parts_1.png", "(1, 1)", "(2, 5)"]
    ),
    "mask of another size": (
        lambda root: [mask_png(path, [[0, 0]]) for path in root.rglob("*00000001_*.png")], ["labels are 2x1", "5x2"]
    ),
    "cut JSON": (lambda root: cut(one(root, ".json"), -5), [".json:1:", "broken JSON"]),
    "JSON of something else": (lambda root: one(root, ".json").write_text("[]"), [".json", "not an ADE20K annotation"]),
    "no code": (set_first(name_ndx=None), [".json", "not an ADE20K annotation"]),
    "no level": (set_first(parts={}), [".json", "not an ADE20K annotation", "ispartof"]),
    "name is no text": (set_first(name=7), [".json", "not an ADE20K annotation"]),
    "two names": (set_first(name_ndx=HOUSE), [".json", "code 1276", "'house'"]),
    "code without a name": (
        lambda root: rewrite(root, lambda annotation: annotation["object"].pop(2)), ["_seg.png", "code 2420", ".json"]
    ),
    "deep JSON": (lambda root: one(root, ".json").write_text("[" * 10_000), [".json"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_files_are_refused_in_words(tmp_path: Path, name: str) -> None:
    spoil, says = BROKEN[name]
    root = street().write(tmp_path / "raw")
    spoil(root)
    said = complaint("ade20k", root, toy(tmp_path))
    for words in says:
        assert words in said


def test_circular_parts_and_owners_that_are_not_listed_are_survived(tmp_path: Path) -> None:
    ade = street()
    ade.listed[3].of, ade.listed[4].of, ade.listed[7].of = 4, 3, 99
    dataset = converted(ade.write(tmp_path / "raw"), tmp_path / "out", toy(tmp_path))
    assert maps(dataset)[0] == [[X, 2, 1, X, X], [4, 4, 5, X, 2]]  # the car has a window, but neither has a door


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("      401: sky\n", ["401", '"#401"']),
        ("      car: {774: car door}\n", ["774", '"#774"']),
        ('      car: {"*": {rim: ignore}}\n', ['"*"', "cannot have parts"]),
        (
            '      car: {door: car door, "d*": ignore, wheel: ignore, window: ignore, "?oor": ignore}\n      "*": ignore\n',
            [],
        ),
        ('      "c*": ignore\n      "*motorcar": sky\n      "*": ignore\n', ["matches both"]),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, table: str, says: list[str]) -> None:
    said = complaint("ade20k", street().write(tmp_path / "raw"), toy(tmp_path, table))
    for words in says:
        assert words in said


def test_a_code_beats_a_name_and_a_name_beats_globs(tmp_path: Path) -> None:
    table = (
        '      car: {door: car door, "d*": car wheel, "*oor": ignore, window: car wheel, "#3050": car window, "*": ignore}\n'
    )
    dataset = converted(street().write(tmp_path / "raw"), tmp_path / "out", toy(tmp_path, table + '      "*": ignore\n'))
    assert maps(dataset)[0] == [[0, 2, X, X, X], [X, X, X, X, 2]]


def test_the_other_release_is_recognised(tmp_path: Path) -> None:
    said = complaint("ade20k", scenes(tmp_path / "scenes", [[1]]))
    assert "150-class release" in said
    assert "sceneparse150" in said
    said = complaint("sceneparse150", street().write(tmp_path / "full"))
    assert "full release" in said
    assert "ade20k" in said
    (tmp_path / "void").mkdir()
    assert "images/ADE" in complaint("ade20k", tmp_path / "void")


# -- the genuine samples -----------------------------------------------------------------------------------------------

# code of the object mask, then of the part mask -> class of ADE20K-Part-234, as read in ade20kpart234_mapping.json
PAIRS = {
    (401, 320): "car's bumper", (401, 774): "car's door", (401, 1213): "car's headlight", (401, 1439): "car's license plate",
    (401, 3035): "car's wheel", (401, 3050): "car's window", (401, 3057): "car's window", (401, 1564): "car's mirror",
    (2836, 1279): "traffic light's housing", (2928, 1439): "van's license plate", (2928, 3050): "van's window",
    (2928, 3057): "van's window",
}  # fmt: skip
OBJECTS = {401: "car", 1563: "minibike", 1831: "person", 2836: "traffic light", 2880: "truck", 2928: "van"}


def direct(path: Path) -> NDArray[np.int64]:
    pixels = np.asarray(Image.open(path)).astype(np.int64)
    return pixels[..., 0] // 10 * 256 + pixels[..., 1]


@pytest.mark.slow
def test_genuine_samples_equal_a_direct_decoding(sample_data: Callable[[str], Path], tmp_path: Path) -> None:
    root = sample_data("ade20k") / "dataset" / "ADE20K_2021_17_01"
    dataset = converted(root, tmp_path / "out", "ade20k-part-234-44")
    fine_ids, coarse_ids = dataset.hierarchy.fine.names, dataset.hierarchy.coarse.names
    assert len(dataset.rows["train"]) == 3
    for row in dataset.rows["train"]:
        stem = root / "images" / "ADE" / "training" / row.key
        objects = direct(stem.with_name(f"{stem.name}_seg.png"))
        fine, coarse = np.full(objects.shape, X), np.full(objects.shape, X)
        for code, name in OBJECTS.items():
            coarse[objects == code] = coarse_ids.index(name)
        for level in (1, 2):
            path = stem.with_name(f"{stem.name}_parts_{level}.png")
            if path.exists():
                parts = direct(path)
                for (code, part), name in PAIRS.items():
                    fine[(objects == code) & (parts == part)] = fine_ids.index(name)
        labels = dataset.labels(row)
        assert np.array_equal(labels.fine, fine)
        assert np.array_equal(labels.coarse, coarse)
    found = {fine_ids[int(key)] for row in dataset.rows["train"] for key in row.fine_counts}
    assert found == set(PAIRS.values())
    (warned,) = (row for row in dataset.rows["train"] if row.warnings)
    assert (warned.key[-8:], warned.warnings[0]) == (
        "00016964", "metal shutters on alarm: 331 px left out, it is no part of that",
    )  # fmt: skip


@pytest.mark.slow
def test_genuine_instances_are_the_visible_masks_of_the_objects(sample_data: Callable[[str], Path]) -> None:
    root = sample_data("ade20k") / "dataset" / "ADE20K_2021_17_01"
    reader = Ade20k(root, load_hierarchy("ade20k-part-234-44"), ReaderOptions(instances=True))
    item = next(item for item in reader.items() if item.key.endswith("00016900"))
    label = reader.read(item)
    assert label.instances is not None
    masks = sorted((item.image_path.with_suffix("")).glob("instance_*.png"))
    data = json.loads(item.image_path.with_suffix(".json").read_bytes())
    levels = {entry["instance_mask"].split("/")[1]: entry["parts"]["part_level"] for entry in data["annotation"]["object"]}
    visible = {(np.asarray(Image.open(path)) == 255).tobytes() for path in masks if levels[path.name] == 0}
    assert int(label.instances.max()) == label.n_objects == 34 == len(visible)
    assert {(label.instances == number).tobytes() for number in range(1, 35)} == visible


# -- SceneParse150 -----------------------------------------------------------------------------------------------------


def scenes(root: Path, ids: list[list[int]], split: str = "training", name: str = "ADE_train_00000001") -> Path:
    photo(root / "images" / split / f"{name}.jpg", (len(ids), len(ids[0])))
    ids_png(root / "annotations" / split / f"{name}.png", ids)
    return root


def test_scene_ids_are_one_more_than_classes_and_0_is_ignored(tmp_path: Path) -> None:
    root = scenes(tmp_path / "raw" / "ADEChallengeData2016", [[0, 1, 2], [150, 21, 13]])
    scenes(root, [[1]], "validation", "ADE_val_00000001")
    photo(root / "images" / "training" / "unlabelled.jpg", (2, 2))
    for source in (root, root.parent):
        out = tmp_path / f"out{len(source.parts)}"
        prepare("sceneparse150", source, out, PrepareOptions())
        dataset = open_dataset(out)
        assert {split: [row.key for row in rows] for split, rows in dataset.rows.items()} == {
            "train": ["ADE_train_00000001"], "val": ["ADE_val_00000001"],
        }  # fmt: skip
        labels = dataset.labels(dataset.rows["train"][0])
        names = [*dataset.hierarchy.fine.names, *["ignored"] * 106]
        assert [[names[value] for value in row] for row in labels.fine.tolist()] == [
            ["ignored", "wall", "building"], ["flag", "car", "person"],
        ]  # fmt: skip


SCENES_BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "reduced once": (lambda root: scenes(root, [[255, 0, 149]]), ["00000001.png", "255", "reduce_zero_label"]),
    "reduced twice": (lambda root: scenes(root, [[254, 3]]), ["00000001.png", "254", "reduce_zero_label"]),
    "unknown id": (lambda root: scenes(root, [[151, 1]]), ["00000001.png", "151 (1 px)"]),
    "colours": (lambda root: mask_png(one(root, "1.png"), [[401, 401]]), ["00000001.png", "RGB picture"]),
    "no photo": (lambda root: one(root, ".jpg").unlink(), ["00000001.png", "has no image"]),
    "no annotations": (lambda root: one(root, ".png").unlink(), ["annotations/training", "holds no *.png"]),
    "no splits": (lambda root: shutil.rmtree(root / "annotations" / "training"), ["no folder training or validation"]),
    "no images": (lambda root: shutil.rmtree(root / "images"), ["images/training", "no such folder"]),
    "nothing": (lambda root: shutil.rmtree(root / "annotations"), ["no label folder", "ADEChallengeData2016"]),
    "another size": (lambda root: ids_png(one(root, "1.png"), [[1]]), ["labels are 1x1", "2x1"]),
    "bare ignore": (lambda root: scenes(root, [[0, 0]]), ["every pixel is ignore"]),
}


@pytest.mark.parametrize("name", SCENES_BROKEN)
def test_malformed_scenes_are_refused_in_words(tmp_path: Path, name: str) -> None:
    spoil, says = SCENES_BROKEN[name]
    root = scenes(tmp_path / "raw", [[1, 2]])
    spoil(root)
    said = complaint("sceneparse150", root)
    for words in says:
        assert words in said


# -- the presets against tables typed from the publications ------------------------------------------------------------

# In id order, as in register_ade_part_234.py; (N) marks the novel objects.
PART_234 = """
person: arm, back, foot, gaze, hand, head, leg, neck, torso
door: door frame, handle, knob, panel
clock: face, frame
toilet: bowl, cistern, lid
cabinet: door, drawer, front, shelf, side, skirt, top
sink: bowl, faucet, pedestal, tap, top
lamp: arm, base, canopy, column, cord, highlight, light source, shade, tube
sconce: arm, backplate, highlight, light source, shade
chair: apron, arm, back, base, leg, seat, seat cushion, skirt, stretcher
chest of drawers: apron, door, drawer, front, leg
chandelier: arm, bulb, canopy, chain, cord, highlight, light source, shade
bed: footboard, headboard, leg, side rail
table: apron, drawer, leg, shelf, top, wheel
armchair: apron, arm, back, back pillow, leg, seat, seat base, seat cushion
ottoman (N): back, leg, seat
shelf: door, drawer, front, shelf
swivel chair (N): back, base, seat, wheel
fan (N): blade, canopy, tube
coffee table: leg, top
stool (N): leg, seat
sofa: arm, back, back pillow, leg, seat base, seat cushion, skirt
computer: computer case, keyboard, monitor, mouse
desk (N): apron, door, drawer, leg, shelf, top
wardrobe: door, drawer, front, leg, mirror, top
car: bumper, door, headlight, hood, license plate, logo, mirror, wheel, window, wiper
bus (N): bumper, door, headlight, license plate, logo, mirror, wheel, window, wiper
oven (N): button panel, door, drawer, top
cooking stove: burner, button panel, door, drawer, oven, stove
microwave: button panel, door, front, side, top, window
refrigerator: button panel, door, drawer, side
kitchen island (N): door, drawer, front, side, top
dishwasher: button panel, handle, skirt
bookcase: door, drawer, front, side
television receiver: base, buttons, frame, keys, screen, speaker
glass: base, bowl, opening, stem
pool table: bed, leg, pocket
van (N): bumper, door, headlight, license plate, logo, mirror, taillight, wheel, window, wiper
airplane: door, fuselage, landing gear, propeller, stabilizer, turbine engine, wing
truck (N): bumper, door, headlight, license plate, logo, mirror, wheel, window
minibike: license plate, mirror, seat, wheel
washer: button panel, door, front, side
bench (N): arm, back, leg, seat
traffic light: housing, pole
light: aperture, canopy, diffusor, highlight, light source, shade
"""


def part_rows() -> dict[str, list[str]]:
    rows = (line.split(": ") for line in PART_234.strip().splitlines())
    return {name: parts.split(", ") for name, parts in rows}


def test_part_234_names_order_and_objects_are_the_published_ones() -> None:
    hierarchy, rows = load_hierarchy("ade20k-part-234-44"), part_rows()
    wanted = [(name.removesuffix(" (N)"), part) for name, parts in rows.items() for part in parts]
    assert (len(wanted), len(rows), sum(name.endswith("(N)") for name in rows)) == (234, 44, 11)
    assert hierarchy.fine.names == [f"{name}'s {part}" for name, part in wanted]
    assert [node.parent for node in hierarchy.fine.nodes] == [name for name, _ in wanted]
    assert hierarchy.coarse.names == sorted({name for name, _ in wanted})
    novel = sorted(name.removesuffix(" (N)") for name in rows if name.endswith("(N)"))
    assert ", ".join(novel) in " ".join(hierarchy.doc.split())
    masks = hierarchy.source("masks")
    assert {raw: hierarchy.fine.find(name) for raw, name in masks.map.items()} == {number: number for number in range(234)}


def test_part_234_codes_are_the_published_ones() -> None:
    hierarchy = load_hierarchy("ade20k-part-234-44")
    table = dict(hierarchy.source("ade20k").map)
    assert table.pop("*") == "ignore"
    assert len(table) == 46  # doors and wardrobes have two codes
    assert all(parts["*"] == "ignore" for parts in table.values())
    # lists of codes in the published mapping, by the class they become
    several: dict[str, dict[str, str]] = {
        "person": {"arm": "1428 2117", "foot": "1429 2118", "leg": "1431 2120", "hand": "1430 2119"},
        "door": {"panel": "774 1746 1748"}, "cabinet": {"door": "774 783"}, "stool": {"leg": "1433 1804"},
        "car": {"window": "3050 3057"}, "bus": {"window": "3050 3057"}, "van": {"window": "3050 3057"},
        "truck": {"window": "3050 3057"}, "oven": {"button panel": "339 341 342 2250"},
        "cooking stove": {"button panel": "341 2250"}, "microwave": {"button panel": "339 341 342 2250"},
        "dishwasher": {"button panel": "341 342"}, "pool table": {"pocket": "625 2374"},
        "washer": {"button panel": "341 342 2250"},
    }  # fmt: skip
    found: dict[str, dict[str, str]] = {}
    for parts in table.values():
        codes: dict[str, list[int]] = {}
        for key, target in parts.items():
            if key != "*":
                codes.setdefault(target, []).append(int(key[1:]))
        for target, numbers in codes.items():
            if len(numbers) > 1:
                name, part = target.split("'s ")
                found.setdefault(name, {})[part] = " ".join(map(str, sorted(numbers)))
    wanted = {
        name: {p: " ".join(map(str, sorted(map(int, c.split())))) for p, c in e.items()} for name, e in several.items()
    }
    assert found == wanted
    single = {
        ("#783", "#774"): "door's panel", ("#774", "#1380"): "door's knob", ("#2985", "#1564"): "wardrobe's mirror",
        ("#533", "#1564"): "wardrobe's mirror", ("#1831", "#1086"): "person's gaze",
        ("#491", "#1031"): "chest of drawers's front", ("#1098", "#2566"): "glass's stem",
        ("#2598", "#1708"): "cooking stove's oven", ("#1451", "#733"): "light's diffusor",
    }  # fmt: skip
    assert {pair: table[pair[0]][pair[1]] for pair in single} == single


# Atigh et al., ADE20K_hierarchy_v3.json, first two levels, with the names of objectInfo150 in place of theirs.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "artifact": {
        "construction": "wall, building, house, skyscraper, tower",
        "column_kinds": "grandstand, column, pole",
        "area": "fireplace, booth",
        "construction_surface": "ceiling, floor",
        "on_surface": "painting, windowpane, mirror",
        "barrier": "door, screen door, fence, railing, bar, bannister",
        "shelter": "hovel, tent, canopy, awning",
        "general_way": "path, road, sidewalk, runway, dirt track, bridge, conveyer belt, stairway, stairs, escalator, step",
        "platform": "stage, pier, fountain, swimming pool",
    },
    "earth": {
        "body_of_water": "sea, river, waterfall, lake, water",
        "nature": "sky, earth, land, rock, sand, mountain, hill, field",
        "organism": "tree, palm, plant, grass, flower, person, animal",
        "food": "food",
    },
    "house_furniture": {
        "cloth_material": "curtain, rug, blanket, towel, apparel, pillow, cushion",
        "big_furniture": "refrigerator, washer, dishwasher, stove, oven, microwave, hood",
        "container": "box, case, basket, bag, tray, ashcan, vase, barrel, pot, glass, bottle",
        "sitting": "seat, chair, armchair, swivel chair, sofa, bench, ottoman, stool",
        "shelf_furniture": "wardrobe, chest of drawers, bookcase, shelf, buffet, cabinet, kitchen island",
        "plumbing": "sink, toilet, shower, bathtub, tank",
        "sleeping": "cradle, bed",
        "table_surface": "countertop, table, desk, counter, pool table, coffee table, base",
    },
    "general_entertain": {
        "art_creation": "sculpture, book",
        "entertainment": "television, ball, arcade machine, plaything",
    },
    "vehicle": {
        "wheeled_vehicle": "car, truck, van, bus, minibike, bicycle",
        "non_wheeled_vehicle": "boat, ship, airplane",
    },
    "general_device": {
        "source_of_illumination": "lamp, streetlight, light, sconce, chandelier",
        "screen_kinds": "monitor, crt screen, blind, screen, computer",
        "device": "fan, radiator, plate",
        "communication": "signboard, poster, traffic light, bulletin board, flag, clock, trade name",
    },
}
# objectInfo150: the 35 classes whose Stuff flag is 1
STUFF = (
    "wall, building, sky, floor, ceiling, road, grass, sidewalk, earth, mountain, water, house, sea, rug, field, sand, "
    "skyscraper, grandstand, path, runway, stairway, river, bridge, hill, hovel, tower, dirt track, land, escalator, stage, "
    "conveyer belt, swimming pool, waterfall, pier, lake"
)


def test_scene_groups_list_exactly_their_classes() -> None:
    hierarchy = load_hierarchy("sceneparse150-150-29")
    assert [level.name for level in hierarchy.levels] == ["fine", "coarse", "top"]
    assert hierarchy.levels[2].names == list(GROUPS)
    top_sizes = Counter(hierarchy.levels[2].names[number] for number in hierarchy.ancestors(2))
    assert top_sizes == {
        "artifact": 40, "earth": 21, "house_furniture": 54, "general_entertain": 6, "vehicle": 9, "general_device": 20,
    }  # fmt: skip
    assert hierarchy.coarse.names == [group for groups in GROUPS.values() for group in groups]
    for top, groups in GROUPS.items():
        for group, names in groups.items():
            members = hierarchy.children(hierarchy.coarse.names.index(group))
            assert sorted(hierarchy.fine.names[number] for number in members) == sorted(names.split(", ")), group
            assert hierarchy.coarse.nodes[hierarchy.coarse.names.index(group)].parent == top
    assert {node.name for node in hierarchy.fine.nodes if node.kind == "stuff"} == set(STUFF.split(", "))
    assert Counter(node.kind for node in hierarchy.fine.nodes) == {"thing": 115, "stuff": 35}


@pytest.mark.parametrize(
    ("scene_id", "name"),
    [
        (1, "wall"), (4, "floor"), (9, "windowpane"), (12, "sidewalk"), (13, "person"), (21, "car"), (41, "base"),
        (45, "chest of drawers"), (59, "screen door"), (60, "stairway"), (64, "blind"), (90, "television receiver"),
        (95, "land"), (122, "step"), (131, "screen"), (142, "crt screen"), (148, "glass"), (150, "flag"),
    ],
)  # fmt: skip
def test_scene_ids_read_off_object_info_150(scene_id: int, name: str) -> None:
    hierarchy = load_hierarchy("sceneparse150-150-29")
    table = hierarchy.source("sceneparse150")
    assert (set(table.map), table.ignore) == (set(range(1, 151)), (0,))
    assert hierarchy.fine.find(table.map[scene_id]) == hierarchy.fine.find(name) == scene_id - 1
