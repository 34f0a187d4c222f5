"""Taxonomies built from what datasets and tools know: each against a table worked out by hand or another source."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiposeg_cli.builders.base import BuildOptions, build_taxonomy, render
from hiposeg_cli.builders.palette import child_colors, root_colors
from hiposeg_cli.errors import HiposegError
from hiposeg_cli.formats.mapillary_labels import LABELS
from hiposeg_cli.graph import export_graph
from hiposeg_cli.hierarchy import Hierarchy, Level
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, load_hierarchy, parse_hierarchy, parse_taxonomy
from hiposeg_cli.raw_names import by_name, match_name
from hiposeg_cli.registry import BUILDERS
from hiposeg_cli.taxonomy.checks import broken_invariants
from hiposeg_cli.taxonomy.diff import diff


def build(kind: str, path: Path, text: str | bytes | None = None, **options: Any) -> Hierarchy:
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    taxonomy = build_taxonomy(kind, path, BuildOptions(**options))
    assert isinstance(taxonomy, Hierarchy)
    assert broken_invariants(taxonomy) == []
    assert parse_hierarchy(render(taxonomy, kind)) == taxonomy
    return taxonomy


def refusal(kind: str, path: Path, text: str | bytes | None = None, **options: Any) -> str:
    with pytest.raises(HiposegError) as caught:
        build(kind, path, text, **options)
    message = str(caught.value)
    assert message.startswith((str(path), "--"))
    return message.replace(f"{path.parent}/", "")


def below(level: Level) -> dict[str | None, list[str]]:
    """Parent -> its classes on a level, in order."""
    found: dict[str | None, list[str]] = {}
    for node in level.nodes:
        found.setdefault(node.parent, []).append(node.name)
    return found


def mirrors(tree: Hierarchy) -> dict[str, str]:
    return {node.name: node.mirror for level in tree.levels for node in level.nodes if node.mirror}


# -- text and names ----------------------------------------------------------------------------------------------------

ANIMALS = """# what I drew
animal            # with fur
  cat
    head
    left paw
    right paw
  dog
    head
    tail

plant
background
"""


@pytest.mark.parametrize("text", [ANIMALS, ANIMALS.replace("  ", "\t"), ANIMALS.replace("\n", "\r\n"), "\ufeff" + ANIMALS])
def test_indented_text_by_hand(tmp_path: Path, text: str) -> None:
    tree = build("text", tmp_path / "My Animals.txt", text)
    assert tree.name == "my-animals"
    assert [level.name for level in tree.levels] == ["fine", "coarse", "level3"]
    assert tree.levels[2].names == ["animal", "plant", "background"]
    assert below(tree.coarse) == {"animal": ["cat", "dog"], "plant": ["plant"], "background": ["background"]}
    assert below(tree.fine) == {
        "cat": ["cat_head", "left paw", "right paw"], "dog": ["dog_head", "tail"], "plant": ["plant"],
        "background": ["background"],
    }  # fmt: skip
    assert mirrors(tree) == {"left paw": "right paw", "right paw": "left paw"}
    assert [node.implicit for node in tree.fine.nodes] == [False] * 5 + [True] * 2
    assert tree.background == 6
    assert tree.fine.nodes[6].color == (0, 0, 0)


def test_a_name_that_a_padded_class_takes_is_qualified_too(tmp_path: Path) -> None:
    """Childless `wheel` stands on the fine level too, where the car's wheel is."""
    tree = build("text", tmp_path / "a.txt", "car\n  wheel\nwheel\n")
    assert below(tree.fine) == {"car": ["car_wheel"], "wheel": ["wheel"]}


def test_no_mirror_leaves_sides_alone(tmp_path: Path) -> None:
    assert mirrors(build("text", tmp_path / "a.txt", ANIMALS, mirror=False)) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n\t b\n", ("a.txt:2:", "'b'", "tabs and spaces mixed")),
        ("a\n  b\n\tc\n", ("a.txt:3:", "'c'", "tabs and spaces mixed")),
        ("a\n    b\n  c\n", ("a.txt:3:", "'c'", "indented like no name above it")),
        ("  a\nb\n", ("a.txt:2:", "'b'", "indented like no name above it")),
        ("a\nb\n", ("a.txt", "one level of names only")),
        ("", ("a.txt", "one level of names only")),
        ("a\n  b\n  B\n  b\n", ("a.txt:", "'a_B' and 'a_b' share the name")),
        ("a\n  b\x07\n", ("a.txt:2:", "control characters")),
        (b"a\n  \xff\n", ("a.txt", "not UTF-8", "byte 4")),
        ("".join(" " * n + f"x{n}\n" for n in range(70)), ("a.txt:65:", "more than 64 levels deep")),
    ],
)
def test_indented_text_refused(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    message = refusal("text", tmp_path / "a.txt", text)
    for part in expected:
        assert part in message


NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5)


@st.composite
def forests(draw: st.DrawFn) -> list[tuple[str, ...]]:
    """Paths to the leaves of a ragged forest, every name once."""
    words = iter(draw(st.lists(NAMES, min_size=80, max_size=80, unique_by=str.casefold)))
    leaves: list[tuple[str, ...]] = []

    def grow(path: tuple[str, ...]) -> None:
        count = draw(st.integers(0, 3)) if len(path) < 4 else 0
        children = [next(words) for _ in range(count) if len(leaves) < 12]
        for child in children:
            grow((*path, child))
        if not children:
            leaves.append(path)

    for _ in range(draw(st.integers(1, 3))):
        grow((next(words),))
    return leaves


def paths_of(tree: Hierarchy) -> list[tuple[str, ...]]:
    """Paths from the root to each leaf, without the copies that padding adds."""
    paths = []
    for node in tree.fine.nodes:
        names = [tree.levels[depth].names[tree.ancestors(depth)[node.id]] for depth in range(len(tree.levels))]
        paths.append(tuple(dict.fromkeys(names[::-1])))
    return sorted(paths)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forests())
def test_ragged_forests_survive_text_yaml_and_graphs(tmp_path: Path, leaves: list[tuple[str, ...]]) -> None:
    lines: dict[tuple[str, ...], None] = {}
    for leaf in leaves:
        lines |= {leaf[: depth + 1]: None for depth in range(len(leaf))}
    path = tmp_path / "forest.txt"
    text = "".join("  " * (len(line) - 1) + line[-1] + "\n" for line in lines)
    if max(map(len, leaves)) < 2:
        assert "one level" in refusal("text", path, text)
        return
    tree = build("text", path, text, mirror=False)
    assert paths_of(tree) == sorted(leaves)
    assert len(tree.fine) == len(leaves)
    for kind in ("graphml", "json"):
        assert build(kind, tmp_path / f"forest.{kind}", export_graph(tree, kind)) == tree


PARTS = """# PACO, dotted and ADE names
car_(automobile):wheel
car_(automobile):left door
car_(automobile):right door
lamp--bulb
door's handle
sky
"""


def test_names_of_objects_and_parts_by_hand(tmp_path: Path) -> None:
    tree = build("names", tmp_path / "names.txt", PARTS, name="mine")
    assert tree.name == "mine"
    assert below(tree.fine) == {
        "car_(automobile)": ["car_(automobile):wheel", "car_(automobile):left door", "car_(automobile):right door"],
        "lamp": ["lamp--bulb"], "door": ["door's handle"], "sky": ["sky"],
    }  # fmt: skip
    assert mirrors(tree)["car_(automobile):left door"] == "car_(automobile):right door"
    for line in PARTS.splitlines()[1:]:  # raw labels are found by the line itself
        assert match_name(by_name(tree).map, line, "names") == line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("car:\n", ("n.txt:1:", "'car:' has no part")),
        (":wheel\n", ("n.txt:1:", "has no object")),
        ("a\n\ncar:wheel\nCAR:Wheel\n", ("n.txt:4:", "there twice, first on line 3")),
        ("car:a\nCar:b\n", ("n.txt:2:", "'Car' and 'car' share the name")),
        ("# nothing\n", ("n.txt", "holds no names")),
    ],
)
def test_names_refused(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    message = refusal("names", tmp_path / "n.txt", text)
    for part in expected:
        assert part in message


# -- tables ------------------------------------------------------------------------------------------------------------

TABLE = """fine,coarse,realm,color,mirror,id,kind,aliases
wheel,car,thing,#102030,,7,,tyre | tire
left light,car,thing,1 2 3,right light,3,,
right light,car,thing,,left light,5,,
,sky,stuff,,,9,,
"road, wet",road,stuff,"[4, 5, 6]",,0,stuff,
"""


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv_by_hand(tmp_path: Path, separator: str) -> None:
    rows = list(csv.reader(TABLE.splitlines()))
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    tree = build("csv", tmp_path / "t.csv")
    assert [level.name for level in tree.levels] == ["fine", "coarse", "realm"]
    assert tree.fine.names == ["road, wet", "left light", "right light", "wheel", "sky"]  # by id, the padded one last
    assert tree.coarse.names == ["road", "car", "sky"]
    assert below(tree.levels[1]) == {"stuff": ["road", "sky"], "thing": ["car"]}
    assert [node.color for node in tree.fine.nodes][::3] == [(4, 5, 6), (16, 32, 48)]
    assert mirrors(tree) == {"left light": "right light", "right light": "left light"}
    assert tree.fine.nodes[3].aliases == ("tyre", "tire")
    assert tree.fine.nodes[0].kind == "stuff"
    assert tree.source("masks").map == {0: "road, wet", 3: "left light", 5: "right light", 7: "wheel", 9: "sky"}
    assert tree.source("masks").ignore == (255,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("coarse,fine\na,b\n", ("t.csv:1:", "begin with the columns fine,coarse")),
        ("fine,coarse,fine\n", ("t.csv:1:", "name each column once")),
        ("", ("t.csv:1:", "columns")),
        ("fine,coarse\n", ("t.csv", "lists no classes")),
        ("fine,coarse\na,b\nc,\n", ("t.csv:3:", "'c' has no coarse")),
        ("fine,coarse\na,b,c\n", ("t.csv:2:", "3 cells for 2 columns", "in quotes")),
        ("fine,coarse\na,b\n\na,c\n", ("t.csv:4:", "'a' is there twice, first on line 2")),
        ("fine,coarse\na,b\nA,b\n", ("t.csv:3:", "share the name")),
        ("fine,coarse,color\na,b,red\n", ("t.csv:2:", "'red'", "#rrggbb")),
        ("fine,coarse,color\na,b,1 2 300\n", ("t.csv:2:", "0..255")),
        ("fine,coarse,mirror\na,b,z\n", ("t.csv:2:", "mirrors unknown 'z'")),
        ("fine,coarse,kind\na,b,stuf\n", ("t.csv:2:", "did you mean 'stuff'?")),
        ("fine,coarse,id\na,b,x\n", ("t.csv:2:", "id 'x' is no whole number")),
        ("fine,coarse,id\na,b,4\nc,b,4\n", ("t.csv:3:", "the id 4 is that of line 2 too")),
        ("fine,coarse,top\na,b,t\nc,b,u\n", ("t.csv:3:", "'b' and 'b' share the name")),
        ('fine,coarse\n"a,b\n', ("t.csv:", "is no CSV")),
    ],
)
def test_csv_refused(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    message = refusal("csv", tmp_path / "t.csv", text)
    for part in expected:
        assert part in message


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=4), min_size=1, max_size=5))
def test_csv_round_trip(tmp_path: Path, groups: dict[str, list[str]]) -> None:
    """Every table with different names gives back its rows."""
    seen: set[str] = set()
    rows: list[list[str]] = []
    for coarse, names in groups.items():
        if coarse.casefold() in seen:
            continue
        seen.add(coarse.casefold())
        for name in names:
            if name.casefold() not in {row[0].casefold() for row in rows} | {c.casefold() for c in groups}:
                rows.append([name, coarse])
        if all(row[1] != coarse for row in rows):
            rows.append(["", coarse])
    with (tmp_path / "t.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["fine", "coarse"], *rows])
    if not any(row[0] for row in rows):
        assert "level 'fine' lists no classes" in refusal("csv", tmp_path / "t.csv")
        return
    tree = build("csv", tmp_path / "t.csv", mirror=False)
    found = [["" if node.implicit else node.name, str(node.parent)] for node in tree.fine.nodes]
    assert sorted(found) == sorted(rows)


def test_cityscapes_table_gives_the_shipped_taxonomy(tmp_path: Path) -> None:
    """The official labels, as a user saves them: CSV, and JSON with other spellings of the keys."""
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "id", "trainId", "category", "color"])
        writer.writerows([label.name, label.id, label.trainId, label.category, label.color] for label in labels)
    tree = build("cityscapes", tmp_path / "labels.csv")
    shipped = load_hierarchy("cityscapes-19-7")
    assert tree.digest == shipped.digest
    assert [node.color for node in tree.fine.nodes] == [node.color for node in shipped.fine.nodes]
    assert tree.source("cityscapes").map == shipped.source("cityscapes").map
    assert sorted(tree.source("cityscapes").ignore) == sorted(shipped.source("cityscapes").ignore)
    entries = [{"id": x.id, "name": x.name, "trainID": x.trainId, "Category": x.category, "color": x.color} for x in labels]
    again = build("cityscapes", tmp_path / "labels.json", json.dumps({"labels": entries}), name="labels")
    assert (again.levels, again.sources) == (tree.levels, tree.sources)


CITY = "id,name,category,trainId\n1,road,flat,0\n2,path,flat,0\n3,car,vehicle,1\n-1,plate,vehicle,-1\n4,void,void,255\n"


def test_labels_that_share_a_train_id_are_one_class(tmp_path: Path) -> None:
    tree = build("cityscapes", tmp_path / "c.csv", CITY)
    assert below(tree.fine) == {"flat": ["road"], "vehicle": ["car"]}
    assert tree.source("cityscapes").map == {1: "road", 2: "road", 3: "car"}
    assert tree.source("cityscapes").ignore == (-1, 4)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("3,car,vehicle,1", "3,car,vehicle,2", ("the train ids are [0, 2]",)),
        ("2,path,flat,0", "2,path,nature,0", ("c.csv:3:", "'path' shares train id 0 with 'road'")),
        ("2,path", "1,path", ("c.csv:3:", "the id 1 is there twice")),
        ("2,path,flat", "2,path,", ("c.csv:3:", "a label has no category")),
        ("2,path", "two,path", ("c.csv:3:", "id 'two' is no whole number")),
        ("category", "group", ("c.csv:2:", "a label has no category")),
        (CITY, '[{"id": 1}]', ("c.csv", "a label has no category")),
        (CITY, '{"a": 1}', ("c.csv", "is no list of labels")),
        (CITY, "[1, ]", ("c.csv:1:", "broken JSON")),
    ],
)
def test_cityscapes_table_refused(tmp_path: Path, old: str, new: str, expected: tuple[str, ...]) -> None:
    message = refusal("cityscapes", tmp_path / "c.csv", CITY.replace(old, new))
    for part in expected:
        assert part in message


def test_a_python_table_is_never_run(tmp_path: Path) -> None:
    assert "never run" in refusal("cityscapes", tmp_path / "labels.py", "raise SystemExit('ran')")


# -- COCO --------------------------------------------------------------------------------------------------------------


def coco_json(categories: list[Any], annotations: list[Any] | None = None) -> str:
    return json.dumps({"images": [], "annotations": annotations or [], "categories": categories})


def test_coco_by_hand(tmp_path: Path) -> None:
    categories = [
        {"id": 9, "name": "_background_", "supercategory": ""},
        {"id": 3, "name": "left hand", "supercategory": "body", "isthing": 1, "color": [1, 2, 3]},
        {"id": 1, "name": "right hand", "supercategory": "body", "isthing": 1, "color": "#040506"},
        {"id": 2, "name": "what?", "supercategory": None, "isthing": 0},
    ]
    tree = build("coco", tmp_path / "i.json", coco_json(categories), supercategory="rest")
    assert below(tree.fine) == {"_background_": ["_background_"], "body": ["left hand", "right hand"], "rest": ["what?"]}
    assert [node.kind for node in tree.coarse.nodes] == ["background", "thing", "stuff"]
    assert [node.color for node in tree.fine.nodes[1:3]] == [(1, 2, 3), (4, 5, 6)]
    assert mirrors(tree) == {"left hand": "right hand", "right hand": "left hand"}
    assert match_name(tree.source("coco").map, "what?", "x") == "what?"
    assert match_name(tree.source("coco").map, "whats", "x") is None
    panoptic = coco_json(categories, [{"image_id": 1, "segments_info": []}])
    assert list(build("coco", tmp_path / "p.json", panoptic, supercategory="rest").sources) == ["coco-panoptic"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            coco_json([{"id": 1, "name": "cup"}, {"id": 2, "name": "fork"}]),
            ("2 categories", "'cup', 'fork'", "--supercategory"),
        ),
        (coco_json([]), ("lists no categories",)),
        ('{"images": []}', ("lists no categories",)),
        (coco_json([{"id": 1}]), ("categories[0] has no name",)),
        (coco_json([{"name": "A", "supercategory": "x"}, {"name": "a", "supercategory": "x"}]), ("share the name",)),
        (coco_json([{"name": "A", "supercategory": "x", "color": [1, 2]}]), ("three numbers",)),
        ("[]", ("c.json",)),
        ('{"categories": [}', ("c.json:1:17:", "broken JSON")),
    ],
)
def test_coco_refused(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    message = refusal("coco", tmp_path / "c.json", text)
    for part in expected:
        assert part in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "file", "preset"),
    [
        ("coco_instances", "annotations/instances_train2017.json", "coco-80-12"),
        ("coco_panoptic", "annotations/panoptic_train2017.json", "coco-panoptic-133-27"),
    ],
)
def test_genuine_coco_files_give_the_shipped_taxonomies(
    sample_data: Callable[[str], Path], sample: str, file: str, preset: str
) -> None:
    tree = build("coco", sample_data(sample) / file)
    found = diff(load_hierarchy(preset), tree)
    assert {change.what for level in found.levels for change in level.changes} <= {"color", "kind", "aliases"}
    assert not found.sources


# -- Mapillary ---------------------------------------------------------------------------------------------------------

VOID = {"void--unlabeled"}
LUMPS = {
    "construction--barrier--ambiguous", "human--person--person-group", "marking--discrete--ambiguous",
    "object--sign--ambiguous", "object--support--pole-group", "object--traffic-sign--ambiguous",
    "object--vehicle--vehicle-group", "void--unlabeled",
}  # fmt: skip


def vistas(release: str, ignored: set[str]) -> str:
    labels = [
        {"name": label.name, "readable": "x", "instances": label.instances, "evaluate": label.name not in ignored,
         "color": [k, k, 0]} for k, label in enumerate(LABELS[release])
    ]  # fmt: skip
    return json.dumps({"labels": labels, "version": release})


def test_mapillary_two_levels_are_the_published_counts(tmp_path: Path) -> None:
    tree = build("mapillary", tmp_path / "config_v2.0.json", vistas("v2.0", LUMPS))
    assert (tree.n_fine, tree.n_coarse) == (116, 8)
    groups = {name: len(children) for name, children in below(tree.fine).items()}
    assert groups == {  # section 8 of the tables, less the eight labels that are not evaluated
        "animal": 2, "construction": 27, "human": 4, "marking": 19, "marking-only": 4, "nature": 7, "object": 48, "void": 5,
    }  # fmt: skip
    table = tree.source("mapillary").map
    assert len(table) == 124
    assert {name for name, target in table.items() if target == "ignore"} == LUMPS
    assert all(target in (name, "ignore") for name, target in table.items())
    assert tree.fine.names == [label.name for label in LABELS["v2.0"] if label.name not in LUMPS]
    assert tree.fine.nodes[tree.fine.names.index("nature--sky")].kind == "stuff"
    assert tree.fine.nodes[tree.fine.names.index("object--bench")].kind == "thing"


@pytest.mark.parametrize("levels", [3, 4])
def test_mapillary_further_levels_cut_the_paths(tmp_path: Path, levels: int) -> None:
    tree = build("mapillary", tmp_path / "c.json", vistas("v2.0", LUMPS), levels=levels)
    assert len(tree.levels) == levels
    assert tree.fine.names == [label.name for label in LABELS["v2.0"] if label.name not in LUMPS]
    for depth in range(1, levels):
        for node, ancestor in zip(tree.fine.nodes, tree.ancestors(depth), strict=True):
            assert tree.levels[depth].names[ancestor] == "--".join(node.name.split("--")[: levels - depth])
    assert len(tree.levels[-1]) == 8
    if levels == 3:  # two tokens: the shipped 44 groups
        assert tree.n_coarse == 44


def test_mapillary_1_2(tmp_path: Path) -> None:
    tree = build("mapillary", tmp_path / "c.json", vistas("v1.2", VOID))
    assert (tree.n_fine, tree.n_coarse) == (65, 7)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("{}", {}, ("lacks the list 'labels'",)),
        ('{"labels": [{"name": "sky"}]}', {}, ("label 0 is named 'sky'", "a path")),
        ('{"labels": [{"name": "a--"}]}', {}, ("label 0 is named 'a--'",)),
        ('{"labels": [{"name": "a--b"}]}', {"levels": 3}, ("--levels", "2 to 2")),
        ('{"labels": [{"name": "a--b"}, {"name": "A--b"}]}', {}, ("share the name",)),
    ],
)
def test_mapillary_refused(tmp_path: Path, text: str, options: dict[str, Any], expected: tuple[str, ...]) -> None:
    message = refusal("mapillary", tmp_path / "c.json", text, **options)
    for part in expected:
        assert part in message


# -- CVAT --------------------------------------------------------------------------------------------------------------

LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
person:192,128,128:head,left hand,right hand:walking,running
dog:1,2,3:head,tail:
wheel:7,8,9::
car:4,5,6:wheel,door
sky:5,5,5
"""


def test_the_parts_of_a_voc_labelmap(tmp_path: Path) -> None:
    tree = build("cvat", tmp_path / "labelmap.txt", LABELMAP)
    assert below(tree.fine) == {
        "person": ["person_head", "left hand", "right hand"], "dog": ["dog_head", "tail"], "car": ["wheel", "door"],
        "background": ["background"], "sky": ["sky"],
    }  # fmt: skip
    assert {node.name: node.color for node in tree.coarse.nodes}["person"] == (192, 128, 128)
    assert {node.name: node.color for node in tree.fine.nodes}["wheel"] == (7, 8, 9)  # also a label of its own
    assert mirrors(tree) == {"left hand": "right hand", "right hand": "left hand"}
    assert tree.background == tree.fine.find("background")


def test_cvat_labels_as_json(tmp_path: Path) -> None:
    labels = [
        {"name": "person", "id": 1, "color": "#c08080", "type": "skeleton", "svg": "<line/>", "attributes": [],
         "sublabels": [{"name": "left eye", "color": "#010203", "attributes": [], "type": "points"}, {"name": "right eye"}]},
        {"name": "car", "color": "#040506", "attributes": [{"name": "parked", "values": ["false"]}], "parts": ["wheel"]},
        {"name": "sky", "attributes": []},
    ]  # fmt: skip
    for name, data in {"list": labels, "task": {"labels": labels}, "server": {"count": 3, "results": labels}}.items():
        tree = build("cvat", tmp_path / f"{name}.json", json.dumps(data))
        assert below(tree.fine) == {"person": ["left eye", "right eye"], "car": ["wheel"], "sky": ["sky"]}
        assert tree.fine.nodes[0].color == (1, 2, 3)
        assert [node.color for node in tree.coarse.nodes[:2]] == [(192, 128, 128), (4, 5, 6)]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labelmap.txt", "person\n", ("labelmap.txt:1:", "'person' is no label")),
        ("labelmap.txt", "a:b:c:d:e\n", ("labelmap.txt:1:", "is no label")),
        ("labelmap.txt", "a:1,2:x:\n", ("labelmap.txt:1:", "color '1,2'")),
        ("labelmap.txt", "a:1,2,3:x:\na::y:\n", ("labelmap.txt:2:", "the label 'a' is there twice")),
        ("labelmap.txt", "a:1,2,3::\n", ("one level of names only",)),
        ("l.json", "{}", ("is no list of labels",)),
        ("l.json", "[3]", ("label 0 has no name",)),
        ("l.json", '[{"name": "a", "sublabels": [{}]}]', ("a part of 'a' has no name",)),
        ("l.json", '[{"name": "a", "sublabels": 3}]', ("the parts of 'a' are no list",)),
        ("l.json", '[{"name": "a", "color": "red"}]', ("color 'red'",)),
    ],
)
def test_cvat_refused(tmp_path: Path, name: str, text: str, expected: tuple[str, ...]) -> None:
    message = refusal("cvat", tmp_path / name, text)
    for part in expected:
        assert part in message


# -- ADE20K ------------------------------------------------------------------------------------------------------------


def ade(*objects: tuple[str, Any]) -> str:
    entries = [
        {"id": k, "name": name, "name_ndx": k, "parts": {"ispartof": owner, "hasparts": [], "part_level": 0}}
        for k, (name, owner) in enumerate(objects)
    ]
    return json.dumps({"annotation": {"object": entries}})


def test_ade20k_pairs_of_object_and_part(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    first = ade(("car, auto", []), ("door", 0), ("handle", 1), ("window, pane", 0), ("window, pane", 1), ("sky", []))
    (tmp_path / "deep" / "a.json").write_text(first, encoding="utf-8")
    (tmp_path / "b.json").write_bytes(
        ade(("house", []), ("window, pane", 0), ("bank, shore", []), ("bank, building", [])).encode()
    )
    tree = build("ade20k", tmp_path)
    assert below(tree.fine) == {
        "bank, building": ["bank, building"], "bank, shore": ["bank, shore"], "house": ["house's window"], "sky": ["sky"],
        "car": ["car's door", "car's handle", "car's window"],
    }  # fmt: skip
    assert tree.source("ade20k").map["car, auto"] == {
        "door": "car's door", "handle": "car's handle", "window, pane": "car's window",
    }  # fmt: skip
    assert tree.source("ade20k").uncovered == "object-only"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", ("is not an ADE20K annotation",)),
        (ade(("a", 3)), ("is not an ADE20K annotation",)),
        (ade(("a", 1), ("b", 0)), ("is a part of itself",)),
        ('{"annotation": {"object": [{"id": 1}]}}', ("is not an ADE20K annotation",)),
        ("{", ("broken JSON",)),
    ],
)
def test_ade20k_refused(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    message = refusal("ade20k", tmp_path / "a.json")
    for part in expected:
        assert part in message
    (tmp_path / "empty").mkdir()
    assert "holds no ADE20K annotation" in refusal("ade20k", tmp_path / "empty")


@pytest.mark.slow
def test_the_taxonomy_of_genuine_ade20k_files_converts_them(sample_data: Callable[[str], Path]) -> None:
    from hiposeg_cli.formats.ade20k import Ade20k
    from hiposeg_cli.formats.base import ReaderOptions

    folder = sample_data("ade20k")
    tree = build("ade20k", folder)
    reader = Ade20k(folder / "dataset" / "ADE20K_2021_17_01", tree, ReaderOptions())
    seen = np.zeros(tree.n_fine, int)
    for item in reader.items():
        ids = reader.read(item).ids
        for raw_id, count in zip(*np.unique(ids, return_counts=True), strict=True):
            fine_id = reader.targets()[int(raw_id)][0]
            if fine_id is not None:
                seen[fine_id] += count
    assert seen.all(), [tree.fine.names[k] for k in np.flatnonzero(seen == 0)]


# -- graphs ------------------------------------------------------------------------------------------------------------

FOREIGN = """<?xml version="1.0" encoding="UTF-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="l" for="node" attr.name="label" attr.type="string"/>
  <graph edgedefault="directed">
    <node id="a"><data key="l">animal</data></node><node id="b"><data key="l">head</data></node><node id="c"/>
    <edge source="a" target="b"/>
  </graph>
</graphml>"""


def test_a_graph_of_another_program_is_read_as_a_forest(tmp_path: Path) -> None:
    assert below(build("graphml", tmp_path / "g.graphml", FOREIGN).fine) == {"animal": ["head"], "c": ["c"]}
    link = {
        "directed": True, "nodes": [{"id": "car", "color": "#010203"}, {"id": "wheel"}],
        "links": [{"source": "car", "target": "wheel"}],
    }  # fmt: skip
    tree = build("json", tmp_path / "g.json", json.dumps(link))
    assert (below(tree.fine), tree.coarse.nodes[0].color) == ({"car": ["wheel"]}, (1, 2, 3))


@pytest.mark.parametrize(
    ("edge", "expected"),
    [
        ('<edge source="b" target="a"/>', "its edges form a cycle: "),
        ('<edge source="c" target="b"/>', "'b' has 2 parents; a tree allows one"),
    ],
)
def test_graphs_refused(tmp_path: Path, edge: str, expected: str) -> None:
    message = refusal("graphml", tmp_path / "g.graphml", FOREIGN.replace("  </graph>", edge + "</graph>"))
    assert expected in message
    loose = FOREIGN.replace('edgedefault="directed"', 'edgedefault="undirected"')
    assert "without a direction" in refusal("graphml", tmp_path / "u.graphml", loose)


def test_a_dag_comes_back_from_a_graph(tmp_path: Path) -> None:
    dag = parse_taxonomy(
        "schema: hiposeg/hierarchy@1\nname: d\nstructure: dag\naxes: [o, t]\nlevels: [fine, coarse]\nclasses:\n"
        "  coarse: [{name: car, axis: o}, {name: round, axis: t}]\n  fine: [{name: wheel, parent: [round, car]}]\n"
    )
    (tmp_path / "d.graphml").write_text(export_graph(dag, "graphml"), encoding="utf-8")
    built = build_taxonomy("graphml", tmp_path / "d.graphml", BuildOptions())
    assert built == dag
    assert parse_taxonomy(render(built, "graphml")) == dag


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BUILDERS.names())
def test_every_builder_refuses_what_is_not_there_and_options_it_does_not_know(tmp_path: Path, kind: str) -> None:
    assert "no such file or folder" in refusal(kind, tmp_path / "none")
    (tmp_path / "x").write_text("", encoding="utf-8")
    honoured = BUILDERS.load(kind).honours
    for option, value in {"levels": 3, "supercategory": "x"}.items():
        if option not in honoured:
            assert refusal(kind, tmp_path / "x", **{option: value}) == f"--{option}: does not apply to {kind} - leave it out"


@pytest.mark.parametrize("kind", sorted(set(BUILDERS.names()) - {"ade20k"}))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | st.text("[]{}\",:abn1\n\t <>/-'#", max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_in_words(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / "any.txt"
    path.write_bytes(data)
    try:
        taxonomy = build_taxonomy(kind, path, BuildOptions())
    except HiposegError as error:
        assert str(path) in str(error)  # noqa: PT017 - some bytes are a taxonomy
    else:
        assert dump_hierarchy(taxonomy)


@given(st.integers(0, 400), st.lists(st.tuples(*[st.integers(0, 255)] * 3), max_size=5))
@settings(max_examples=20, deadline=None)
def test_colours_are_distinct_and_the_same_every_time(count: int, taken: list[tuple[int, int, int]]) -> None:
    roots = root_colors(count, taken)
    assert len({*roots, *taken, (0, 0, 0)}) == count + len({*taken, (0, 0, 0)})
    assert roots == root_colors(count, taken)
    used = set(taken)
    children = [color for root in roots[:20] for color in child_colors(root, 6, used)]
    assert len({*children, *taken}) == len(children) + len({*taken})


def test_an_only_child_has_its_parents_colour() -> None:
    assert child_colors((10, 20, 30), 1, set()) == [(10, 20, 30)]
