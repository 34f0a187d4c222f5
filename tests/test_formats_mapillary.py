"""Mapillary Vistas 1.2 and 2.0: palette indices, the config of the release, instances, and the presets' counts."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from raw_sets import ids_png, photo

from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.mapillary import Mapillary
from hiposeg_cli.formats.mapillary_labels import LABELS
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.store import Dataset, open_dataset

X = 255  # ignore
BIRD, AMBIGUOUS_BARRIER, ROAD, INDIVIDUAL, CAR, UNLABELED = 0, 2, 21, 30, 108, 123  # ids of release 2.0


def vistas(root: Path, ids: list[list[int]], *, release: str = "v2.0", split: str = "training", key: str = "a_-1") -> Path:
    """One image; a release of "" lays the labels out as the first release did."""
    photo(root / split / "images" / f"{key}.jpg", (len(ids), len(ids[0])))
    ids_png(root / split / release / "labels" / f"{key}.png", ids, palette=True)
    return root


def config(path: Path, names: list[str]) -> Path:
    labels = [{"name": name, "readable": name, "instances": False, "evaluate": True, "color": [0, 0, 0]} for name in names]
    text = json.dumps({"labels": labels, "version": "1", "mapping": "public", "folder_structure": "{split}/{content}"})
    path.write_text(text, encoding="utf-8")
    return path


def names_of(release: str) -> list[str]:
    return [label.name for label in LABELS[release]]


def converted(root: Path, out: Path, hierarchy: object = None, **reader: Any) -> Dataset:
    options = PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))
    result = prepare("mapillary", root, out, options)
    assert [str(error) for error in result.failures] == []
    return open_dataset(out)


def named(dataset: Dataset, split: str = "train") -> tuple[list[list[str]], list[list[str]]]:
    labels = dataset.labels(dataset.rows[split][0])
    levels = zip((dataset.hierarchy.fine.names, dataset.hierarchy.coarse.names), (labels.fine, labels.coarse), strict=True)
    fine, coarse = ([["-" if v == X else names[v] for v in row] for row in ids.tolist()] for names, ids in levels)
    return fine, coarse


def complaint(root: Path, hierarchy: object = None, **reader: Any) -> str:
    options = PrepareOptions(hierarchy=str(hierarchy) if hierarchy else None, reader=ReaderOptions(**reader))
    try:
        result = prepare("mapillary", root, None, options)
    except HiposegError as error:
        return str(error)
    assert result.failures, "nothing was refused"
    return str(result.failures[0])


# -- reading -----------------------------------------------------------------------------------------------------------


def test_palette_indices_become_evaluated_classes_under_their_tokens(tmp_path: Path) -> None:
    root = vistas(tmp_path / "raw", [[BIRD, ROAD, AMBIGUOUS_BARRIER], [INDIVIDUAL, 55, 122]])
    vistas(root, [[CAR, UNLABELED]], split="validation", key="b")
    config(root / "config_v2.0.json", names_of("v2.0"))
    dataset = converted(root, tmp_path / "out")
    assert dataset.hierarchy.name == "mapillary-2.0-116-8"
    assert named(dataset) == (
        [
            ["animal--bird", "construction--flat--road", "-"],
            ["human--person--individual", "marking-only--continuous--dashed", "void--static"],
        ],
        [["animal", "construction", "-"], ["human", "marking-only", "void"]],
    )
    assert named(dataset, "val") == ([["object--vehicle--car", "-"]], [["object", "-"]])


def test_colours_of_the_palette_mean_nothing(tmp_path: Path) -> None:
    root = vistas(tmp_path / "raw", [[45, 35]])  # zebra and dashed line are both white in the release
    path = root / "training" / "v2.0" / "labels" / "a_-1.png"
    image = Image.fromarray(np.array([[45, 35]], np.uint8))
    image.putpalette([255] * 768)
    image.save(path)
    fine, _ = named(converted(root, tmp_path / "out"))
    assert fine == [["marking--discrete--crosswalk-zebra", "marking--continuous--dashed"]]


@pytest.mark.parametrize("release", ["v1.2", ""])
@pytest.mark.parametrize("config_name", ["config_v1.2.json", "config.json"])
def test_release_1_2_in_both_layouts(tmp_path: Path, release: str, config_name: str) -> None:
    root = vistas(tmp_path / "raw", [[0, 13, 19, 55, 65]], release=release)
    config(root / config_name, names_of("v1.2"))
    dataset = converted(root, tmp_path / "out", variant="v1.2")
    assert dataset.hierarchy.name == "mapillary-1.2-65-7"
    assert named(dataset) == (
        [["animal--bird", "construction--flat--road", "human--person", "object--vehicle--car", "-"]],
        [["animal", "construction", "human", "object", "-"]],
    )


def test_two_releases_side_by_side(tmp_path: Path) -> None:
    root = vistas(tmp_path / "raw", [[108]])
    vistas(root, [[55]], release="v1.2")
    assert named(converted(root, tmp_path / "new"))[0] == [["object--vehicle--car"]]
    assert named(converted(root, tmp_path / "old", variant="v1.2"))[0] == [["object--vehicle--car"]]


def test_a_hierarchy_may_use_globs_of_label_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "schema: hiposeg/hierarchy@1\nname: mine\nlevels: [fine, coarse]\nclasses:\n  coarse: [moves, stays]\n  fine:\n"
        "    - {name: vehicle, parent: moves}\n    - {name: human, parent: moves}\n    - {name: flat, parent: stays}\n"
        'sources:\n  mapillary:\n    map: {"object--vehicle--*": vehicle, "human--*": human,\n'
        '      "construction--flat--*": flat, "construction--[bs]*": ignore, "[!hco]*": ignore, "object--[!v]*": ignore}\n'
    )
    dataset = converted(vistas(tmp_path / "raw", [[CAR, INDIVIDUAL, 24, 61]]), tmp_path / "out", path)
    assert named(dataset) == ([["vehicle", "human", "flat", "-"]], [["moves", "moves", "stays", "-"]])


# -- instances ---------------------------------------------------------------------------------------------------------


def instances(root: Path, numbers: list[list[int]], release: str = "v2.0") -> Path:
    return ids_png(root / "training" / release / "instances" / "a_-1.png", np.array(numbers, np.uint16))


@pytest.mark.parametrize(("release", "car"), [("v2.0", 108), ("v1.2", 55)])
def test_instances_are_label_times_256_plus_number_and_start_at_1_here(tmp_path: Path, release: str, car: int) -> None:
    sky = names_of(release).index("nature--sky")
    root = vistas(tmp_path / "raw", [[0, 0, car, car, sky]], release=release)
    instances(root, [[0, 1, car * 256, car * 256 + 7, sky * 256]], release)
    hierarchy = load_hierarchy(str(Mapillary.default_hierarchy[release]))
    reader = Mapillary(root, hierarchy, ReaderOptions(variant=release, instances=True))
    (item,) = reader.items()
    label = reader.read(item)
    assert label.instances is not None
    assert label.instances.dtype == np.uint16
    assert label.instances.tolist() == [[1, 2, car * 256 + 1, car * 256 + 8, 0]]  # birds have label 0; sky has no objects
    assert [path.parent.name for path in reader.raw_files(item)] == ["images", "labels", "instances"]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([[CAR * 256, ROAD * 256 + 1]], ["instances/a_-1.png", "disagrees", "1 pixels"]),
        ([[CAR * 256]], ["instances/a_-1.png", "(1, 1)", "(1, 2)"]),
        (None, ["instances/a_-1.png", "no such file"]),
    ],
)
def test_instances_that_do_not_fit_the_labels(tmp_path: Path, numbers: list[list[int]] | None, says: list[str]) -> None:
    root = vistas(tmp_path / "raw", [[CAR, CAR]])
    if numbers:
        instances(root, numbers)
    said = complaint(root, instances=True)
    for words in says:
        assert words in said


# -- malformed ---------------------------------------------------------------------------------------------------------


def renamed(root: Path, label_id: int, name: str) -> Path:
    names = names_of("v2.0")
    names[label_id] = name
    return config(root / "config_v2.0.json", names)


def one(root: Path, ending: str) -> Path:
    (path,) = root.rglob(f"*{ending}")
    return path


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "another name": (
        lambda root: renamed(root, 77, "object--hole"), ["config_v2.0.json", "label 77", "object--hole", "object--pothole"]
    ),
    "a name missing": (
        lambda root: config(root / "config_v2.0.json", names_of("v2.0")[:-1]), ["config_v2.0.json", "123 labels", "124"]
    ),
    "the other config": (
        lambda root: config(root / "config_v2.0.json", names_of("v1.2")), ["label 2", "construction--barrier--curb"]
    ),
    "config without labels": (lambda root: (root / "config_v2.0.json").write_text("{}"), ["config_v2.0.json", "'labels'"]),
    "config with names only": (
        lambda root: (root / "config_v2.0.json").write_text('{"labels": ["bird"]}'), ["config_v2.0.json", "'labels'"]
    ),
    "config of something else": (lambda root: (root / "config_v2.0.json").write_text("[]"), ["config_v2.0.json"]),
    "broken config": (lambda root: (root / "config_v2.0.json").write_text('{"labels": ['), ["config_v2.0.json:1:"]),
    "id beyond the list": (lambda root: vistas(root, [[124, 21]]), ["a_-1.png", "124 (1 px)"]),
    "instances as labels": (
        lambda root: ids_png(one(root, "1.png"), np.full((1, 2), 108 * 256, np.uint16)), ["a_-1.png", "27648 (2 px)"]
    ),
    "colours": (lambda root: photo(one(root, "1.png"), (1, 2)), ["a_-1.png", "RGB picture"]),
    "no photo": (lambda root: one(root, ".jpg").unlink(), ["a_-1.png", "has no image"]),
    "no photos": (lambda root: shutil.rmtree(root / "training" / "images"), ["training/images", "no such folder"]),
    "empty labels": (lambda root: one(root, "1.png").unlink(), ["v2.0/labels", "holds no *.png"]),
    "cut labels": (
        lambda root: one(root, "1.png").write_bytes(one(root, "1.png").read_bytes()[:-12]), ["a_-1.png", "truncated"]
    ),
    "another size": (lambda root: ids_png(one(root, "1.png"), [[21]]), ["labels are 1x1", "2x1"]),
    "only 1.2": (
        lambda root: (root / "training" / "v2.0").rename(root / "training" / "v1.2"), ["labels of v1.2", "--variant v1.2"]
    ),
    "the first layout": (
        lambda root: (root / "training" / "v2.0" / "labels").rename(root / "training" / "labels"), ["--variant v1.2"]
    ),
    "nothing": (lambda root: shutil.rmtree(root / "training"), ["training/v2.0/labels", "validation/"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_malformed_files_are_refused_in_words(tmp_path: Path, name: str) -> None:
    spoil, says = BROKEN[name]
    root = vistas(tmp_path / "raw", [[21, 108]])
    spoil(root)
    said = complaint(root)
    for words in says:
        assert words in said


def test_a_preset_of_the_other_release_is_refused(tmp_path: Path) -> None:
    root = vistas(tmp_path / "raw", [[21]])
    said = complaint(root, "mapillary-1.2-65-7")
    assert "Mapillary Vistas v2.0" in said
    assert "unknown label" in said
    vistas(root, [[21]], release="v1.2")
    assert "human--person" in complaint(root, "mapillary-2.0-116-8", variant="v1.2")


def test_an_unknown_release_names_the_known_ones(tmp_path: Path) -> None:
    assert "v1.2" in complaint(vistas(tmp_path / "raw", [[21]]), "mapillary-2.0-116-8", variant="v1.3")


# -- the published tables ----------------------------------------------------------------------------------------------

# label list of config_v2.0.json: first and last id of each token, and of each pair of tokens that has more below it
TOKENS = {
    "animal": (0, 1), "construction": (2, 29), "human": (30, 34), "marking": (35, 54), "marking-only": (55, 58),
    "nature": (59, 65), "object": (66, 117), "void": (118, 123),
}  # fmt: skip
PAIRS = {
    "construction--barrier": (2, 12), "construction--flat": (13, 25), "construction--structure": (26, 29),
    "human--person": (30, 31), "human--rider": (32, 34), "marking--continuous": (35, 37), "marking--discrete": (38, 54),
    "marking-only--continuous": (55, 55), "marking-only--discrete": (56, 58), "object--sign": (78, 83),
    "object--support": (85, 88), "object--traffic-light": (90, 95), "object--traffic-sign": (96, 103),
    "object--vehicle": (105, 116),
}  # fmt: skip
NOT_EVALUATED = {2, 31, 38, 79, 86, 96, 115, 123}
EVALUATED = [label_id for label_id in range(124) if label_id not in NOT_EVALUATED]


def inside(ranges: dict[str, tuple[int, int]], label_id: int) -> str | None:
    return next((name for name, (first, last) in ranges.items() if first <= label_id <= last), None)


def test_labels_of_2_0_lie_in_the_published_ranges() -> None:
    names = names_of("v2.0")
    assert len(names) == len(set(names)) == 124
    assert [name.split("--")[0] for name in names] == [inside(TOKENS, label_id) for label_id in range(124)]
    pairs = ["--".join(name.split("--")[:2]) if name.count("--") > 1 else None for name in names]
    assert pairs == [inside(PAIRS, label_id) for label_id in range(124)]
    numbered = {label_id for label_id, label in enumerate(LABELS["v2.0"]) if label.instances}
    assert (len(numbered), len(numbered - NOT_EVALUATED), numbered & NOT_EVALUATED) == (72, 70, {79, 96})


@pytest.mark.parametrize(
    ("label_id", "name"),
    [
        (1, "animal--ground-animal"), (2, "construction--barrier--ambiguous"), (12, "construction--barrier--wall"),
        (31, "human--person--person-group"), (38, "marking--discrete--ambiguous"), (39, "marking--discrete--arrow--left"),
        (58, "marking-only--discrete--text"), (79, "object--sign--ambiguous"), (84, "object--street-light"),
        (86, "object--support--pole-group"), (89, "object--traffic-cone"), (96, "object--traffic-sign--ambiguous"),
        (104, "object--trash-can"), (108, "object--vehicle--car"), (115, "object--vehicle--vehicle-group"),
        (117, "object--water-valve"), (120, "void--ego-vehicle"), (123, "void--unlabeled"),
    ],
)  # fmt: skip
def test_labels_of_2_0_read_off_the_config(label_id: int, name: str) -> None:
    assert names_of("v2.0")[label_id] == name


@pytest.mark.parametrize(
    ("label_id", "name"),
    [
        (0, "animal--bird"), (2, "construction--barrier--curb"), (13, "construction--flat--road"), (19, "human--person"),
        (23, "marking--crosswalk-zebra"), (24, "marking--general"), (27, "nature--sky"), (35, "object--billboard"),
        (48, "object--traffic-light"), (51, "object--trash-can"), (55, "object--vehicle--car"),
        (62, "object--vehicle--wheeled-slow"), (63, "void--car-mount"), (64, "void--ego-vehicle"), (65, "void--unlabeled"),
    ],
)  # fmt: skip
def test_labels_of_1_2_read_off_the_config(label_id: int, name: str) -> None:
    assert names_of("v1.2")[label_id] == name
    assert (len(LABELS["v1.2"]), sum(label.instances for label in LABELS["v1.2"])) == (66, 37)


@pytest.mark.parametrize("name", ["mapillary-2.0-116-8", "mapillary-2.0-116-44"])
def test_presets_of_2_0_hold_the_evaluated_labels_in_order(name: str) -> None:
    hierarchy, names = load_hierarchy(name), names_of("v2.0")
    assert hierarchy.fine.names == [names[label_id] for label_id in EVALUATED]
    table = hierarchy.source("mapillary").map
    assert table == {names[k]: "ignore" if k in NOT_EVALUATED else names[k] for k in range(124)}
    kinds = Counter(node.kind for node in hierarchy.fine.nodes)
    assert kinds == {"thing": 70, "stuff": 46}


def test_coarse_classes_of_2_0_are_the_meta_levels() -> None:
    short, long = load_hierarchy("mapillary-2.0-116-8"), load_hierarchy("mapillary-2.0-116-44")
    assert short.coarse.names == long.levels[2].names == list(TOKENS)
    top = [inside(TOKENS, label_id) for label_id in EVALUATED]
    assert [node.parent for node in short.fine.nodes] == top
    assert [long.levels[2].names[number] for number in long.ancestors(2)] == top
    sizes = Counter(node.parent for node in short.fine.nodes)
    assert list(sizes.values()) == [2, 27, 4, 19, 4, 7, 48, 5]
    middle = [inside(PAIRS, label_id) or names_of("v2.0")[label_id] for label_id in EVALUATED]
    assert [node.parent for node in long.fine.nodes] == middle
    assert len(set(middle)) == len(PAIRS) + 30 == 44


def test_preset_of_1_2_holds_all_labels_but_unlabeled() -> None:
    hierarchy, names = load_hierarchy("mapillary-1.2-65-7"), names_of("v1.2")
    assert hierarchy.fine.names == names[:65]
    assert hierarchy.source("mapillary").map == {name: name for name in names[:65]} | {"void--unlabeled": "ignore"}
    sizes = Counter(node.parent for node in hierarchy.fine.nodes)
    assert sizes == {"animal": 2, "construction": 17, "human": 4, "marking": 2, "nature": 7, "object": 31, "void": 2}


@pytest.mark.parametrize(
    ("name", "label", "color"),
    [
        ("mapillary-2.0-116-8", "construction--flat--road", (128, 64, 128)),
        ("mapillary-2.0-116-8", "object--vehicle--car", (0, 0, 142)),
        ("mapillary-2.0-116-8", "human--person--individual", (220, 20, 60)),
        ("mapillary-2.0-116-44", "nature--sky", (70, 130, 180)),
        ("mapillary-1.2-65-7", "marking--crosswalk-zebra", (200, 128, 128)),
        ("mapillary-1.2-65-7", "nature--water", (0, 170, 30)),
    ],
)
def test_colours_are_published_ones_where_they_are_unique(name: str, label: str, color: tuple[int, int, int]) -> None:
    fine = load_hierarchy(name).fine
    assert fine.nodes[fine.names.index(label)].color == color
