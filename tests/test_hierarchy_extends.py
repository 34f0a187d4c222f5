"""`extends`: what a file takes over from its base, what it may change, and how mistakes name both files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, load_hierarchy, load_taxonomy, parse_hierarchy

BASE = """schema: hiposeg/hierarchy@1
name: base
doc: Of the base only.
levels: [fine, coarse]
classes:
  coarse:
    - {id: 0, name: background, kind: background}
    - {id: 1, name: car, color: [9, 9, 9], aliases: [auto]}
    - {id: 2, name: sky}
  fine:
    - {id: 1, name: wheel, parent: auto, color: [1, 1, 1]}
    - {id: 0, name: background, parent: background, kind: background}
    - {id: 2, name: left, parent: car, mirror: right}
    - {id: 3, name: right, parent: car, mirror: left}
sources:
  masks: {map: {0: background, 1: wheel, 2: left, 3: right, 4: {coarse: auto}, 5: sky}, ignore: [255]}
  pascal-part: {uncovered: background, map: {car: {"w*": wheel, "l*": left, r: right, x: {coarse: car}}}}
"""
HEAD = "schema: hiposeg/hierarchy@1\nname: own\nextends: base.yaml\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    return tmp_path / "own.yaml"


def load(path: Path, text: str) -> Hierarchy:
    path.write_text(HEAD + text, encoding="utf-8")
    return load_hierarchy(path)


def refusal(path: Path, text: str) -> str:
    with pytest.raises(HierarchyError) as caught:
        load(path, text)
    return str(caught.value).replace(str(path.parent) + "/", "")


def test_without_changes_it_is_the_base_under_another_name(own: Path) -> None:
    base, same = load_hierarchy(own.parent / "base.yaml"), load(own, "")
    assert (same.name, same.doc) == ("own", "")
    assert (same.levels, same.sources, same.digest) == (base.levels, base.sources, base.digest)
    assert same.fine.names == ["background", "wheel", "left", "right", "sky"]  # the last is the padded copy


def test_classes_are_added_changed_and_removed_by_name(own: Path) -> None:
    tree = load(
        own,
        """remove: {coarse: [sky], fine: [left, right]}
classes:
  coarse: [bus]
  fine:
    - {name: WHEEL, color: [7, 7, 7], doc: round}
    - {name: seat, parent: bus}
""",
    )
    assert tree.coarse.names == ["background", "car", "bus"]
    assert [(node.name, node.parent, node.color, node.doc) for node in tree.fine.nodes[1:]] == [
        ("wheel", "car", (7, 7, 7), "round"), ("seat", "bus", tree.fine.nodes[2].color, ""),
    ]  # fmt: skip
    assert [node.id for level in tree.levels for node in level.nodes] == [0, 1, 2, 0, 1, 2]


def test_raw_labels_of_removed_classes_become_ignore(own: Path) -> None:
    tree = load(own, "remove: {coarse: [sky], fine: [left, right]}\n")
    assert tree.source("masks").map == {
        0: "background", 1: "wheel", 2: "ignore", 3: "ignore", 4: {"coarse": "auto"}, 5: "ignore",
    }  # fmt: skip
    assert tree.source("pascal-part").map == {"car": {"w*": "wheel", "l*": "ignore", "r": "ignore", "x": {"coarse": "car"}}}
    gone = load(own, "remove: {coarse: [car], fine: [wheel, left, right]}\n")
    assert gone.source("masks").map[4] == "ignore"
    assert gone.source("pascal-part").map == {"car": dict.fromkeys(["w*", "l*", "r", "x"], "ignore")}


def test_sources_are_replaced_or_added_per_format(own: Path) -> None:
    tree = load(own, "sources: {masks: {map: {9: wheel}}, coco: {map: {tyre: wheel}}}\n")
    assert dict(tree.source("masks").map) == {9: "wheel"}
    assert tree.source("masks").ignore == ()
    assert set(tree.sources) == {"masks", "coco", "pascal-part"}


def test_ids_written_in_the_file_are_kept_and_the_others_make_room(own: Path) -> None:
    tree = load(own, "classes: {fine: [{name: roof, parent: car, id: 1}]}\n")
    assert tree.fine.names == ["background", "roof", "wheel", "left", "right", "sky"]
    moved = load(own, "classes: {fine: [{name: right, id: 0}]}\n")
    assert moved.fine.names == ["right", "background", "wheel", "left", "sky"]
    assert "ids of level 'fine' are not 0..4" in refusal(own, "classes: {fine: [{name: roof, parent: car, id: 9}]}\n")


def test_a_padded_copy_goes_when_its_class_gets_children(own: Path) -> None:
    """Also when the base is a canonical file, which writes its padding out."""
    (own.parent / "base.yaml").write_text(dump_hierarchy(parse_hierarchy(BASE)), encoding="utf-8")
    tree = load(own, "classes: {fine: [{name: cloud, parent: sky}]}\n")
    assert tree.fine.names == ["background", "wheel", "left", "right", "cloud"]
    assert tree.source("masks").map[5] == {"coarse": "sky"}  # which of its parts, the raw label does not say
    assert load(own, "").fine.names[-1] == "sky"


def test_a_level_may_be_added_above(own: Path) -> None:
    tree = load(
        own,
        """levels: [fine, coarse, realm]
classes:
  realm: [thing, stuff]
  coarse: [{name: background, parent: stuff}, {name: car, parent: thing}, {name: sky, parent: stuff}]
""",
    )
    assert tree.ancestors(2).tolist() == [1, 0, 0, 0, 1]


def test_the_canonical_file_stands_alone(own: Path) -> None:
    tree = load(own, "remove: {fine: [left, right]}\n")
    text = dump_hierarchy(tree)
    assert "extends" not in text
    assert "remove" not in text
    assert parse_hierarchy(text) == tree


def test_a_preset_and_a_chain_can_be_extended(own: Path) -> None:
    own.write_text(HEAD.replace("base.yaml", "wbc-3-2"), encoding="utf-8")
    (own.parent / "third.yaml").write_text(
        HEAD.replace("base.yaml", "own.yaml") + "classes: {fine: [{name: granule, parent: cell}]}\n", encoding="utf-8"
    )
    assert load_hierarchy(own.parent / "third.yaml").fine.names == ["background", "cytoplasm", "nucleus", "granule"]


def test_files_that_extend_each_other_are_refused_with_their_path(tmp_path: Path) -> None:
    for name, base in {"a": "b", "b": "c", "c": "a"}.items():
        text = f"schema: hiposeg/hierarchy@1\nname: {name}\nextends: {base}.yaml\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(HierarchyError) as caught:
        load_taxonomy(tmp_path / "a.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/c.yaml:3: ")
    assert "a.yaml -> b.yaml -> c.yaml -> a.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("remove: {fine: [wheels]}\n", ("own.yaml:4:", "unknown fine class 'wheels'", "did you mean 'wheel'?")),
        ("remove: {fien: [wheel]}\n", ("own.yaml:4:", "unknown level 'fien'", "did you mean 'fine'?")),
        ("remove: [wheel]\n", ("own.yaml:4:", "by level")),
        ("remove: {fine: wheel}\n", ("own.yaml:4:", "must be a list")),
        ("remove: {coarse: [car]}\n", ("own.yaml:4:", "'wheel' is below it", "remove 'wheel' too")),
        ("classes: {fine: [{name: roof}]}\n", ("own.yaml:4:", "'roof' has no parent")),
        ("classes:\n  fine:\n    - {name: roof, parent: van}\n", ("own.yaml:6:", "unknown parent 'van'")),
        ("classes: {fine: [{name: wheel, mirror: left}]}\n", ("base.yaml:11)", "'wheel' mirrors 'left'")),
        ("classes: {fine: [{name: wheel, colour: [1, 1, 1]}]}\n", ("own.yaml:4:", "'colour'", "did you mean 'color'?")),
        ("classes: {fine: [{name: a, parent: car}, {name: A, parent: sky}]}\n", ("own.yaml:4:", "'A' is written twice")),
        ("classes: {fine: [{name: tyre, parent: car, aliases: [wheel]}]}\n", ("own.yaml:4:", "share the name 'wheel'")),
        ("classes: {fien: [sky]}\n", ("own.yaml:4:", "unknown level 'fien'")),
        ("classes: {fine: sky}\n", ("own.yaml:4:", "must list its classes")),
        ("sources: {masks: {map: {1: leg}}}\n", ("own.yaml:4:", "unknown fine class 'leg'")),
        ("sources: [masks]\n", ("own.yaml", "`sources` must be keys")),
        ("remove: {coarse: [background], fine: [background]}\n", ("own.yaml (inherits base.yaml:17)", "kind: background")),
    ],
)
def test_a_mistake_names_the_file_and_line_it_is_written_in(own: Path, text: str, expected: tuple[str, ...]) -> None:
    message = refusal(own, text)
    for part in expected:
        assert part in message


def test_a_base_that_is_wrong_is_refused_under_its_own_name(own: Path) -> None:
    (own.parent / "base.yaml").write_text(BASE.replace("parent: auto", "parent: bike"), encoding="utf-8")
    assert refusal(own, "").startswith("base.yaml:11: 'wheel' has unknown parent 'bike'")
    (own.parent / "base.yaml").unlink()
    assert refusal(own, "").startswith("own.yaml:3: extends 'base.yaml', which is neither a preset nor a file")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 260), st.integers(0, 12), st.text(" \n:{}[],'\"-#~ab01no", max_size=6))
def test_any_damage_to_an_extending_file_is_read_or_refused_in_words(own: Path, start: int, length: int, patch: str) -> None:
    text = """levels: [fine, coarse]
remove: {coarse: [sky], fine: [left, right]}
classes:
  coarse: [bus, {name: van, aliases: [lorry]}]
  fine: [{name: wheel, id: 0, aliases: [tyre]}, {name: seat, parent: bus}, {name: door, parent: van}]
sources: {masks: {map: {9: wheel}}}
"""
    try:
        tree = load(own, text[:start] + patch + text[start + length :])
    except HierarchyError as error:
        assert "own.yaml" in str(error)  # noqa: PT017 - some damage leaves a valid file
    else:
        assert tree.n_fine >= tree.n_coarse >= 1
