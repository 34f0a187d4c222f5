"""Remarks on valid taxonomies, the invariants of all, and which classes change sides in a flip."""

from __future__ import annotations

from dataclasses import replace

import pytest
from drawn import hierarchies
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level
from hiposeg_cli.hierarchy_yaml import parse_hierarchy, parse_taxonomy
from hiposeg_cli.taxonomy.checks import broken_invariants, findings
from hiposeg_cli.taxonomy.mirrors import other_side, with_mirrors


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("left_arm", "right_arm"),
        ("upper right arm", "upper left arm"),
        ("rightmirror", "leftmirror"),
        ("LeftArm", "RightArm"),
        ("handLeft", "handRight"),
        ("LEFT", "RIGHT"),
        ("arm.L", "arm.R"),
        ("l_arm", "r_arm"),
        ("R_ARM", "L_ARM"),
        ("left-to-right", "right-to-left"),
        ("car:left door", "car:right door"),
        ("light", None),
        ("bright", None),
        ("lwing", None),
        ("copyright", None),
        ("arm", None),
        ("2l", "2r"),
    ],
)
def test_the_other_side_of_a_name(name: str, twin: str | None) -> None:
    assert other_side(name) == twin
    if twin is not None:
        assert other_side(twin) == name


def tree(*classes: tuple[str, str], coarse: str = "") -> Hierarchy:
    """A tree of (fine, coarse) pairs without a mirror."""
    names = list(dict.fromkeys(coarse.split() or [parent for _, parent in classes]))
    fine = tuple(ClassNode(k, name, (k, 1, 1), parent=parent) for k, (name, parent) in enumerate(classes))
    above = tuple(ClassNode(k, name, (k, 2, 2)) for k, name in enumerate(names))
    return Hierarchy("drawn", (Level("fine", fine), Level("coarse", above)))


def pairs(hierarchy: Hierarchy) -> dict[str, str]:
    return {n.name: n.mirror for level in with_mirrors(hierarchy.levels) for n in level.nodes if n.mirror}


def test_sides_are_paired_where_parents_allow() -> None:
    both = {"left ear": "right ear", "right ear": "left ear"}
    assert pairs(tree(("left ear", "head"), ("right ear", "head"), ("nose", "head"))) == both
    assert pairs(tree(("left ear", "cat"), ("right ear", "dog"))) == {}
    assert pairs(tree(("left ear", "head"), ("nose", "head"))) == {}


def test_coarse_sides_need_a_twin_for_every_child() -> None:
    arms = [("left hand", "left arm"), ("right hand", "right arm")]
    assert pairs(tree(*arms)) == {
        "left hand": "right hand", "right hand": "left hand", "left arm": "right arm", "right arm": "left arm",
    }  # fmt: skip
    assert pairs(tree(*arms, ("ring", "left arm"))) == {}


def test_stated_mirrors_stay() -> None:
    toy = tree(("left ear", "head"), ("right ear", "head"), ("l", "head"), ("x", "head"))
    nodes = [replace(n, mirror={"l": "x", "x": "l"}.get(n.name)) for n in toy.fine.nodes]
    stated = replace(toy, levels=(Level("fine", tuple(nodes)), toy.coarse))
    assert pairs(stated) == {"left ear": "right ear", "right ear": "left ear", "l": "x", "x": "l"}


SIDED = st.sampled_from(["left a", "right a", "left b", "right b", "a", "b", "left c", "c"])
PARENTS = st.sampled_from(["left p", "right p", "q"])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(SIDED, PARENTS), min_size=1, max_size=8, unique_by=lambda pair: pair[0]))
def test_pairing_never_breaks_a_flip(classes: list[tuple[str, str]]) -> None:
    paired = replace(tree(*classes), levels=tuple(with_mirrors(tree(*classes).levels)))
    assert broken_invariants(paired) == []
    assert with_mirrors(paired.levels) == list(paired.levels)


@settings(max_examples=60, deadline=None)
@given(hierarchies())
def test_drawn_taxonomies_keep_every_invariant(drawn: Hierarchy) -> None:
    assert broken_invariants(drawn) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda n: replace(n, id=n.id + 1), "fine: ids are not 0..2 in order"),
        (lambda n: replace(n, parent="nobody"), "fine: 'a' has no parent"),
        (lambda n: replace(n, name="c"), "fine: 'c' names several classes"),
        (lambda n: replace(n, mirror="b"), "fine: mirroring twice is not the identity"),
        (lambda n: replace(n, parent="q"), "coarse: 'p' has no child"),
    ],
)
def test_each_broken_invariant_is_named(change: object, expected: str) -> None:
    good = tree(("a", "p"), ("b", "q"), ("c", "q"))
    nodes = good.fine.nodes
    bad = replace(good, levels=(Level("fine", (change(nodes[0]), *nodes[1:])), good.coarse))  # type: ignore[operator]
    assert broken_invariants(good) == []
    assert expected in broken_invariants(bad)


def test_a_flip_that_changes_parents_and_a_coarsest_class_with_a_parent_are_named() -> None:
    good = tree(("a", "p"), ("b", "q"))
    swap = {"a": "b", "b": "a"}
    fine = Level("fine", tuple(replace(n, mirror=swap[n.name]) for n in good.fine.nodes))
    assert "fine: a flip takes 'a' from below its parent" in broken_invariants(replace(good, levels=(fine, good.coarse)))
    top = Level("coarse", tuple(replace(n, parent="x") for n in good.coarse.nodes))
    assert "coarse: the coarsest level has parents" in broken_invariants(replace(good, levels=(good.fine, top)))


TOY = """schema: hiposeg/hierarchy@1
name: toy-3-1
levels: [fine, coarse]
classes:
  coarse: [{name: car}, {name: sky}]
  fine: [{name: left door, parent: car}, {name: right door, parent: car}, {name: sky, parent: sky}]
sources:
  masks: {map: {1: left door, 2: {coarse: car}, 3: ignore}, ignore: [2, 255]}
  coco: {map: {car: {left: left door, right: right door}, sky: sky}}
"""


def test_remarks_by_hand() -> None:
    assert findings(parse_hierarchy(TOY)) == [
        "coarse: 1 of 2 classes have a single child (sky)",
        "fine: left door, right door name a side but no `mirror`; flipped images would confuse them",
        "coarse: the name says 1 classes, there are 2",
        "source masks: no raw label becomes right door, sky (2 of 3 fine classes)",
        "source masks: raw ids 2 are both mapped and ignored",
    ]


def test_the_name_may_leave_the_background_out() -> None:
    text = TOY.replace("toy-3-1", "toy-2-1").replace("{name: sky, parent", "{name: sky, kind: background, parent")
    assert not any("the name says" in note for note in findings(parse_hierarchy(text)))


def test_remarks_on_a_dag() -> None:
    text = TOY.replace("levels:", "structure: dag\naxes: [object, type]\nlevels:").replace("- {name: sky}", "")
    axes = "[{name: car, axis: object}, {name: sky, axis: object}, {name: door, axis: type}]"
    text = text.replace("[{name: car}, {name: sky}]", axes)
    text = text.replace("right door, parent: car", "right door, parent: [car, sky, door]")
    assert findings(parse_taxonomy(text)) == [
        "coarse: 1 of 3 classes have a single child (door)",
        "fine: 1 of 3 classes have several parents on 'object' (right door)",
        "fine: 2 of 3 classes have no parent on 'type' (left door, sky)",
        "no `projection`: choose one of object, type to prepare and train with it",
    ]
