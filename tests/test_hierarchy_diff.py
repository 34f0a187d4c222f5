"""Differences of two taxonomies: named by class and level, none between equals."""

from __future__ import annotations

from dataclasses import replace

from drawn import hierarchies
from hypothesis import given, settings

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import parse_hierarchy, parse_taxonomy
from hiposeg_cli.taxonomy.diff import Change, diff

OLD = """schema: hiposeg/hierarchy@1
name: toy
levels: [fine, coarse]
classes:
  coarse: [{name: car, color: [1, 1, 1]}, {name: plane}, {name: sky}]
  fine:
    - {name: wheel, parent: car, color: [2, 2, 2]}
    - {name: wing, parent: plane}
    - {name: tail, parent: plane}
    - {name: sky, parent: sky}
sources: {masks: {map: {1: wheel}}, coco: {map: {wheel: wheel}}}
"""
OTHER = """schema: hiposeg/hierarchy@1
name: other
levels: [part, coarse]
classes:
  coarse: [{name: car, color: [1, 1, 9]}, {name: aircraft, aliases: [Plane]}, {name: sky}]
  fine:
    - {name: wheel, parent: sky, color: [2, 2, 2], aliases: [tyre]}
    - {name: wing, parent: aircraft}
    - {name: door, parent: car}
    - {name: sky, parent: sky, kind: stuff}
sources: {masks: {map: {1: wing}}, cvat: {map: {wheel: wheel}}}
""".replace("  fine:", "  part:")


def test_each_kind_of_difference_is_named_once() -> None:
    found = diff(parse_hierarchy(OLD), parse_hierarchy(OTHER))
    assert found
    fine, coarse = found.levels
    assert (fine.old, fine.new, coarse.old, coarse.new) == ("fine", "part", "coarse", "coarse")
    assert coarse.changes == (
        Change("car", "color", (1, 1, 1), (1, 1, 9)),
        Change("plane", "renamed", "plane", "aircraft"),
        Change("aircraft", "aliases", (), ("Plane",)),
    )
    assert fine.changes == (  # wing stays below plane, which has another name now
        Change("tail", "removed", old="plane"),
        Change("door", "added", new="car"),
        Change("wheel", "moved", "car", "sky"),
        Change("wheel", "aliases", (), ("tyre",)),
        Change("sky", "kind", None, "stuff"),
    )
    assert found.sources == (Change("masks", "changed"), Change("coco", "removed"), Change("cvat", "added"))
    assert [change.words() for change in fine.changes[:3]] == [
        "removed tail (below plane)", "added door (below car)", "wheel: moved car -> sky",
    ]  # fmt: skip


def with_changes(text: str, *changes: tuple[str, str]) -> Hierarchy:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_hierarchy(text)


def test_changed_ids_are_named() -> None:
    names = ["wheel", "tail", "wing", "sky"]
    swapped = with_changes(OLD, *((f"- {{name: {name},", f"- {{id: {names.index(name)}, name: {name},") for name in names))
    found = [change for change in diff(parse_hierarchy(OLD), swapped).levels[0].changes if change.what == "id"]
    assert found == [Change("wing", "id", 1, 2), Change("tail", "id", 2, 1)]


def test_a_level_that_only_one_has_counts() -> None:
    three = with_changes(
        OLD,
        ("coarse]", "coarse, top]"),
        ("  coarse: [{name: car,", "  top: [all]\n  coarse: [{name: car, parent: all,"),
        ("{name: plane}", "{name: plane, parent: all}"),
        ("{name: sky}", "{name: sky, parent: all}"),
    )
    top = diff(parse_hierarchy(OLD), three).levels[2]
    assert (top.old, top.new, top.changes) == (None, "top", (Change("all", "added"),))


def test_a_dag_differs_from_its_projection() -> None:
    text = OLD.replace("levels:", "structure: dag\naxes: [object]\nprojection: object\nlevels:")
    for name in ("car", "plane", "sky"):
        text = text.replace(f"{{name: {name}}}", f"{{name: {name}, axis: object}}").replace(
            f"{{name: {name}, color", f"{{name: {name}, axis: object, color"
        )
    found = diff(parse_taxonomy(text), parse_hierarchy(text))
    assert [change.what for change in found.structure] == ["structure", "axes", "projection"]
    assert {change.what for change in found.levels[1].changes} == {"axis"}
    assert not found.levels[0]


@settings(max_examples=50, deadline=None)
@given(hierarchies())
def test_nothing_differs_from_itself_under_another_name(tree: Hierarchy) -> None:
    assert not diff(tree, replace(tree, name="other", doc="other"))
    assert diff(tree, tree).as_json()["equal"]


@settings(max_examples=50, deadline=None)
@given(hierarchies(), hierarchies())
def test_the_difference_backwards_adds_what_was_removed(old: Hierarchy, new: Hierarchy) -> None:
    there, back = diff(old, new), diff(new, old)
    assert bool(there) == bool(back)
    for a, b in zip(there.levels, back.levels, strict=True):
        assert (a.old, a.new) == (b.new, b.old)
        removed = {change.name for change in a.changes if change.what == "removed"}
        assert len(removed) == len([change for change in b.changes if change.what == "added"])
    if old.digest != new.digest:
        assert there
