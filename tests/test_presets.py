"""The shipped hierarchies as data: sizes, partition, mirror pairs and agreement with the published tables."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import published
import pytest

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.formats.base import ReaderOptions
from hiposeg_cli.formats.coco import Coco
from hiposeg_cli.formats.pascal_part import RAW_PARTS, PascalPart
from hiposeg_cli.hierarchy import Hierarchy, preset_paths
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, load_hierarchy, parse_hierarchy

FOLDER = Path(__file__).resolve().parents[1] / "hierarchies"
PRESETS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIZES = {
    "pascal-part-108": (108, 21),
    "pascal-part-58": (58, 21),
    "pascal-part-116": (116, 16),
    "pascal-part-201": (201, 21),
    "float-parts": (201, 21),
    "pascal-part-raw": (198, 21),
    "pascal-person-part-7-2": (7, 2),
    "pascal-person-part-7-3-2": (7, 3),
    "pascal-panoptic-parts-277-99": (277, 99),
    "pascal-panoptic-parts-96-59": (96, 59),
    "cityscapes-panoptic-parts-37-19-7": (37, 19),
    "cityscapes-panoptic-parts-23-7": (23, 7),
    "cityscapes-19-7": (19, 7),
    "coco-80-12": (80, 12),
    "coco-81-13": (81, 13),
    "coco-stuff-171-27": (171, 27),
    "coco-stuff-27-2": (27, 2),
    "coco-panoptic-133-27": (133, 27),
    "paco-458-75": (458, 75),
    "partimagenet-41-12": (41, 12),
    "ade20k-part-234-44": (234, 44),
    "sceneparse150-150-29": (150, 29),
    "mapillary-2.0-116-8": (116, 8),
    "mapillary-2.0-116-44": (116, 44),
    "mapillary-1.2-65-7": (65, 7),
    "pascal-context-59-2": (59, 2),
    "pascal-context-60-3": (60, 3),
    "lip-20-3-2": (20, 3),
    "cihp-20-3-2": (20, 3),
    "car-parts": (19, 8),
    "camvid-11-7": (11, 7),
    "ccp-59-7": (59, 7),
    "wbc-3-2": (3, 2),
    "demo": (20, 7),
}


@functools.cache
def preset(name: str) -> Hierarchy:
    return load_hierarchy(name)


def test_every_shipped_file_is_known_by_name_and_has_its_size_stated_here() -> None:
    assert sorted(preset_paths()) == PRESETS == sorted(SIZES)


@pytest.mark.parametrize("name", PRESETS)
class TestEachPreset:
    def test_loads_under_its_own_name_with_the_published_counts(self, name: str) -> None:
        hierarchy = preset(name)
        assert hierarchy.name == name
        assert (hierarchy.n_fine, hierarchy.n_coarse) == SIZES[name]

    def test_path_and_name_give_the_same_hierarchy(self, name: str) -> None:
        assert load_hierarchy(FOLDER / f"{name}.yaml") == preset(name)

    def test_written_and_read_again_is_equal(self, name: str) -> None:
        hierarchy = preset(name)
        text = dump_hierarchy(hierarchy)
        again = parse_hierarchy(text)
        assert again == hierarchy
        assert again.digest == hierarchy.digest
        assert dump_hierarchy(again) == text

    def test_is_a_partition_with_ids_in_order_and_unique_names(self, name: str) -> None:
        hierarchy = preset(name)
        for level in hierarchy.levels:
            assert [node.id for node in level.nodes] == list(range(len(level)))
            spellings = Counter(word.casefold() for node in level.nodes for word in {node.name, *node.aliases})
            assert [word for word in spellings if len({n.id for n in level.nodes if word in _spellings(n)}) > 1] == []
        children = [hierarchy.children(coarse_id) for coarse_id in range(hierarchy.n_coarse)]
        assert all(children)
        assert sorted(fine_id for group in children for fine_id in group) == list(range(hierarchy.n_fine))
        by_name = [hierarchy.coarse.names.index(node.parent or "") for node in hierarchy.fine.nodes]
        assert hierarchy.parent.tolist() == by_name

    def test_mirror_is_an_involution_that_keeps_siblings(self, name: str) -> None:
        hierarchy = preset(name)
        swap = hierarchy.fine.mirror_ids()
        assert swap[swap].tolist() == list(range(hierarchy.n_fine))
        assert hierarchy.parent[swap].tolist() == hierarchy.parent.tolist()
        sided = [node.name for node in hierarchy.fine.nodes if {"left", "right"} & set(node.name.split("_"))]
        flipped = [hierarchy.fine.names[int(swap[node.id])] for node in hierarchy.fine.nodes if node.name in sided]
        assert flipped == [_other_side(word) for word in sided]

    def test_every_source_reaches_every_fine_class(self, name: str) -> None:
        hierarchy = preset(name)
        assert hierarchy.sources
        for source, table in hierarchy.sources.items():
            reached = {hierarchy.fine.names[fine_id] for fine_id in _target_ids(table.map, hierarchy)}
            if "background" in (table.unlabelled, table.uncovered):
                reached.add("background")
            assert reached == set(hierarchy.fine.names), f"source {source}"

    def test_colours_of_fine_classes_differ(self, name: str) -> None:
        colors = preset(name).fine.colors()
        assert len(np.unique(colors, axis=0)) == len(colors)


def _spellings(node: object) -> set[str]:
    return {word.casefold() for word in (node.name, *node.aliases)}  # type: ignore[attr-defined]


def _other_side(name: str) -> str:
    swap = {"left": "right", "right": "left"}
    return "_".join(swap.get(word, word) for word in name.split("_"))


def _target_ids(table: object, hierarchy: Hierarchy) -> set[int]:
    if isinstance(table, dict):
        return set().union(*(_target_ids(target, hierarchy) for key, target in table.items() if key != "coarse"))
    found = hierarchy.fine.find(str(table))
    return set() if found is None else {found}


# -- PASCAL-Part -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(published.PART_TABLES))
class TestPascalPart:
    def test_names_ids_and_objects_are_the_published_ones(self, name: str) -> None:
        hierarchy, table = preset(name), published.PART_TABLES[name]
        assert hierarchy.fine.names == table.names
        assert hierarchy.coarse.names == ["background", *published.VOC]
        assert {node.name: node.parent for node in hierarchy.fine.nodes} == table.parents

    def test_raw_part_names_are_those_of_the_dataset(self, name: str) -> None:
        table = published.PART_TABLES[name]
        assert list(RAW_PARTS) == published.VOC
        for voc_object, parts in RAW_PARTS.items():
            assert {part + "*" if part.endswith("_") else part for part in parts} == table.raw_parts(voc_object)

    @pytest.mark.parametrize("voc_object", published.VOC)
    def test_every_raw_part_becomes_its_published_class(self, name: str, voc_object: str, tmp_path: Path) -> None:
        hierarchy, table = preset(name), published.PART_TABLES[name]
        targets = PascalPart(tmp_path, hierarchy, ReaderOptions()).targets()
        number = published.VOC.index(voc_object) + 1  # class_ind, and the coarse id as well
        found = {}
        for position, part in enumerate(RAW_PARTS[voc_object], start=1):
            found[part + "*" if part.endswith("_") else part] = targets[100 * number + position]
        wanted = {part: (table.fine[voc_object, part], number) for part in table.raw_parts(voc_object)}
        assert found == wanted
        assert targets[100 * number] == (table.fine.get((voc_object, "OBJECT")), number)

    def test_the_published_protocol_makes_uncovered_pixels_background(self, name: str, tmp_path: Path) -> None:
        hierarchy, table = preset(name), published.PART_TABLES[name]
        targets = PascalPart(tmp_path, hierarchy, ReaderOptions(uncovered="background")).targets()
        for number, voc_object in enumerate(published.VOC, start=1):
            rest = table.fine.get((voc_object, "OBJECT"))
            assert targets[100 * number] == ((0, 0) if rest is None else (rest, number))


@pytest.mark.parametrize(
    ("name", "fine_id", "class_name"),
    [
        ("pascal-part-108", 18, "boat"), ("pascal-part-108", 28, "bus_window"), ("pascal-part-108", 64, "dog_muzzle"),
        ("pascal-part-108", 72, "horse_rfho"), ("pascal-part-108", 88, "person_rfoot"), ("pascal-part-108", 99, "sofa"),
        ("pascal-part-108", 107, "tvmonitor_screen"), ("pascal-part-58", 5, "aeroplane_wheel"),
        ("pascal-part-58", 22, "car_body"), ("pascal-part-58", 45, "person_lower_arm"),
        ("pascal-part-58", 48, "person_upper_leg"), ("pascal-part-58", 55, "train"),
        ("pascal-part-58", 57, "tvmonitor_frame"),
    ],
)  # fmt: skip
def test_published_ids_read_off_by_hand(name: str, fine_id: int, class_name: str) -> None:
    assert preset(name).fine.names[fine_id] == class_name


@pytest.mark.parametrize(
    "spelling", ["airplane", "motorcycle", "diningtable", "dining_table", "potted_plant", "tv", "bycicle"]
)
def test_other_spellings_of_voc_objects_are_found(spelling: str) -> None:
    for name in published.PART_TABLES:
        assert preset(name).coarse.find(spelling) is not None


# -- Cityscapes and COCO -----------------------------------------------------------------------------------------------


def test_cityscapes_order_parents_and_label_ids() -> None:
    hierarchy = preset("cityscapes-19-7")
    assert hierarchy.fine.names == published.CITYSCAPES_NAMES
    assert hierarchy.coarse.names == published.CITYSCAPES_CATEGORIES
    assert hierarchy.parent.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 6]
    table = hierarchy.source("cityscapes")
    assert {label: hierarchy.fine.find(target) for label, target in table.map.items()} == published.CITYSCAPES_TRAIN_IDS
    assert set(table.map) | set(table.ignore) == set(range(-1, 34))
    assert not set(table.map) & set(table.ignore)


@pytest.mark.parametrize(("name", "shift"), [("coco-80-12", 0), ("coco-81-13", 1)])
def test_coco_order_and_supercategories(name: str, shift: int) -> None:
    hierarchy = preset(name)
    assert hierarchy.fine.names[shift:] == [category for category, _ in published.COCO.values()]
    assert [node.parent for node in hierarchy.fine.nodes[shift:]] == [group for _, group in published.COCO.values()]
    sizes = Counter(node.parent for node in hierarchy.fine.nodes[shift:])
    assert sizes == published.COCO_SIZES
    assert hierarchy.coarse.names[shift:] == list(published.COCO_SIZES)


def test_genuine_coco_ids_have_the_published_gaps_and_become_contiguous(sample_data: Callable[[str], Path]) -> None:
    root = sample_data("coco_instances")
    data = json.loads((root / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    ids = [category["id"] for category in data["categories"]]
    assert set(range(1, 91)) - set(ids) == published.COCO_GAPS
    assert {c["id"]: (c["name"], c["supercategory"]) for c in data["categories"]} == published.COCO
    targets = Coco(root, preset("coco-80-12"), ReaderOptions()).targets()
    assert [targets[category_id][0] for category_id in sorted(ids)] == list(range(80))


def test_car_parts_order_is_that_of_the_json(sample_data: Callable[[str], Path]) -> None:
    data = json.loads((sample_data("carparts") / "annotations.json").read_text(encoding="utf-8"))
    names = [category["name"] for category in sorted(data["categories"], key=lambda category: category["id"])]
    assert preset("car-parts").fine.names == ["background" if n == "_background_" else n for n in names]


@pytest.mark.parametrize(("folder", "name"), [("camvid", "camvid-11-7"), ("ccp", "ccp-59-7"), ("wbc", "wbc-3-2")])
def test_preset_equals_the_hierarchy_json_of_the_samples(folder: str, name: str, sample_data: Callable[[str], Path]) -> None:
    data = json.loads((sample_data(folder) / "hierarchy.json").read_text(encoding="utf-8"))
    hierarchy = preset(name)
    assert [hierarchy.fine.find(part) for part in data["parts"]] == list(range(len(data["parts"])))
    assert hierarchy.coarse.names == data["objects"]
    assert hierarchy.parent.tolist() == data["part_id_to_object_id"]


# -- round trips of odd but allowed text -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "no",
        "12:30",
        "1_000",
        "null",
        'say "hi"',
        "back\\slash",
        "a: b # c",
        "étoile",
        "\u3042",
        "\U0001f600",
        "\x7f",
        "\x85",
    ],
    ids=ascii,
)
def test_a_class_name_that_is_accepted_survives_a_round_trip(name: str) -> None:
    quoted = "".join(f"\\U{ord(char):08x}" for char in name)
    text = (
        "schema: hiposeg/hierarchy@1\nname: odd\nlevels: [fine, coarse]\nclasses:\n"
        f'  coarse: [all]\n  fine:\n    - {{name: "x{quoted}y", parent: all}}\n'
    )
    try:
        hierarchy = parse_hierarchy(text)
    except HierarchyError:  # refusing a control character is as good as keeping it
        assert not name.isprintable()
        return
    assert hierarchy.fine.names == [f"x{name}y"]
    assert parse_hierarchy(dump_hierarchy(hierarchy)) == hierarchy


def test_a_childless_class_whose_name_is_taken_on_the_level_below_is_refused() -> None:
    text = (
        "schema: hiposeg/hierarchy@1\nname: odd\nlevels: [fine, coarse]\nclasses:\n"
        "  coarse: [bird, boat]\n  fine:\n    - {name: boat, parent: bird}\n"
    )
    with pytest.raises(HierarchyError, match=r"odd\.yaml.*boat"):
        parse_hierarchy(text, "odd.yaml")
