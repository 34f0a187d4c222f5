"""DAG files: parents on several axes, the tree of one axis, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.hierarchy import ClassNode, Dag, Hierarchy, Level
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, load_hierarchy, load_taxonomy, parse_hierarchy, parse_taxonomy

DAG = """schema: hiposeg/hierarchy@1
name: parts
structure: dag
axes: [object, part_type]
projection: object
levels: [fine, coarse]
classes:
  coarse:
    - {name: wheels, axis: part_type, color: [1, 1, 1]}
    - {name: car, axis: object, aliases: [auto]}
    - {name: bus, axis: object}
    - {name: sky, axis: object}
    - {name: glass, axis: part_type}
  fine:
    - {name: car wheel, parent: [auto, wheels]}
    - {name: bus wheel, parent: [wheels, bus]}
    - {name: bus body, parent: bus}
    - {name: window, parent: [glass, car]}
sources:
  masks: {map: {1: car wheel, 2: bus wheel, 3: bus body, 4: window, 5: {coarse: car}}}
"""


def test_the_projection_is_the_tree_of_its_axis() -> None:
    tree = parse_hierarchy(DAG)
    assert isinstance(tree, Hierarchy)
    assert tree.coarse.names == ["car", "bus", "sky"]
    assert tree.fine.names == ["car wheel", "bus wheel", "bus body", "window", "sky"]
    assert tree.parent.tolist() == [0, 1, 1, 0, 2]
    assert [node.implicit for node in tree.fine.nodes] == [False, False, False, False, True]
    assert all(node.axis is None and not node.co_parents for level in tree.levels for node in level.nodes)
    assert tree.source("masks").map[5] == {"coarse": "car"}
    assert parse_hierarchy(dump_hierarchy(tree)) == tree


def test_the_dag_keeps_every_axis_and_survives_dump_and_parse() -> None:
    dag = parse_taxonomy(DAG)
    assert isinstance(dag, Dag)
    assert (dag.axes, dag.projection) == (("object", "part_type"), "object")
    assert [node.parents for node in dag.fine.nodes] == [("car", "wheels"), ("wheels", "bus"), ("bus",), ("glass", "car")]
    assert parse_taxonomy(dump_hierarchy(dag)) == dag
    assert parse_hierarchy(dump_hierarchy(dag)) == parse_hierarchy(DAG)


def test_without_a_projection_it_can_be_read_but_not_trained(tmp_path: Path) -> None:
    path = tmp_path / "parts.yaml"
    path.write_text(DAG.replace("projection: object\n", ""), encoding="utf-8")
    dag = load_taxonomy(path)
    assert isinstance(dag, Dag)
    assert dag.projection is None
    with pytest.raises(HierarchyError) as caught:
        load_hierarchy(path)
    assert str(caught.value).startswith(f"{path}: is a DAG (object, part_type)")
    assert "add `projection: object`" in str(caught.value)


def test_an_extending_file_may_choose_another_axis(tmp_path: Path) -> None:
    (tmp_path / "parts.yaml").write_text(DAG, encoding="utf-8")
    own = tmp_path / "types.yaml"
    own.write_text(
        "schema: hiposeg/hierarchy@1\nname: types\nextends: parts.yaml\nprojection: part_type\n"
        "classes: {coarse: [{name: bodies, axis: part_type}], fine: [{name: bus body, parent: [bus, bodies]}]}\n"
        "sources: {masks: {map: {4: window, 5: {coarse: glass}}}}\n",
        encoding="utf-8",
    )
    tree = load_hierarchy(own)
    assert tree.coarse.names == ["wheels", "glass", "bodies"]
    assert tree.parent.tolist() == [0, 0, 2, 1]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "projection: object",
            "projection: part_type",
            ("parts.yaml:17:", "'bus body'", "no parent on the axis"),
        ),
        ("[auto, wheels]", "[auto, bus]", ("parts.yaml:15:", "'car wheel'", "2 parents (car, bus)", "'object'")),
        ("[auto, wheels]", "[auto, car]", ("parts.yaml:15:", "same parent twice")),
        ("[auto, wheels]", "[auto, wheel]", ("parts.yaml:15:", "unknown parent 'wheel'", "did you mean 'wheels'?")),
        ("[auto, wheels]", "[]", ("parts.yaml:15:", "'car wheel' has no parent")),
        ("[auto, wheels]", "[auto, no]", ("parts.yaml:15:", '"no"')),
        ("parent: bus}", "parent: [bus, window]}", ("parts.yaml:17:", "on its own level")),
        ("axes: [object, part_type]", "axes: [object]", ("parts.yaml:9:", "'wheels'", "has axis 'part_type'", "object")),
        ("axes: [object, part_type]", "axes: []", ("parts.yaml:4:", "needs different `axes`")),
        ("axes: [object, part_type]", "axes: [object, object]", ("parts.yaml:4:", "needs different `axes`")),
        ("projection: object", "projection: objects", ("parts.yaml:5:", "did you mean 'object'?")),
        ("{name: bus, axis: object}", "{name: bus}", ("parts.yaml:11:", "'bus' has axis None")),
        ("parent: bus}", "parent: bus, axis: object}", ("parts.yaml:17:", "'bus body' has axis 'object'", "remove")),
        ("structure: dag", "structure: tree", ("parts.yaml:4:", "structure: dag")),
        (
            "{name: bus, axis: object}",
            "{name: bus, axis: object, mirror: glass}",
            ("parts.yaml:11:", "mirrors 'glass', which mirrors None"),
        ),
        ("{coarse: car}", "{coarse: glass}", ("parts.yaml:20:", "unknown coarse class 'glass'")),
    ],
)
def test_a_mistake_is_refused_with_line_and_class(old: str, new: str, expected: tuple[str, ...]) -> None:
    assert old in DAG
    with pytest.raises(HierarchyError) as caught:
        parse_hierarchy(DAG.replace(old, new), "parts.yaml")
    for part in expected:
        assert part in str(caught.value)


def test_above_the_finest_level_kin_share_an_axis() -> None:
    three = DAG.replace("[fine, coarse]", "[fine, coarse, top]").replace(
        "  coarse:", "  top: [{name: thing, axis: object}, {name: shape, axis: part_type}]\n  coarse:"
    )
    for name, parent in {"wheels": "shape", "glass": "shape", "car": "thing", "bus": "thing", "sky": "thing"}.items():
        three = three.replace(f"{{name: {name}, axis", f"{{name: {name}, parent: {parent}, axis")
    assert parse_hierarchy(three).ancestors(2).tolist() == [0, 0, 0, 0, 0]
    with pytest.raises(HierarchyError, match=r"'bus' is on axis 'object', unlike its parents \['shape'\]"):
        parse_hierarchy(three.replace("bus, parent: thing", "bus, parent: shape"))
    twins = three.replace("bus, parent: thing,", "bus, parent: thing, mirror: glass,")
    twins = twins.replace("glass, parent: shape,", "glass, parent: shape, mirror: bus,")
    with pytest.raises(HierarchyError, match="'bus' is on axis 'object', unlike its mirror 'glass'"):
        parse_hierarchy(twins)


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    """Every fine class has one parent on each of two axes, in any order; ids of the axes are mixed."""
    sizes = [draw(st.integers(1, 4)), draw(st.integers(1, 4))]
    slots = draw(st.permutations([(axis, k) for axis, size in enumerate(sizes) for k in range(size)]))
    coarse = [ClassNode(i, f"{'ab'[axis]}{k}", (axis, k, 0), axis="ab"[axis]) for i, (axis, k) in enumerate(slots)]
    fine = []
    for i in range(draw(st.integers(1, 8))):
        parents = [f"{'ab'[axis]}{draw(st.integers(0, sizes[axis] - 1))}" for axis in draw(st.permutations([0, 1]))]
        fine.append(ClassNode(i, f"f{i}", (9, i, 0), parent=parents[0], co_parents=(parents[1],)))
    levels = (Level("fine", tuple(fine)), Level("coarse", tuple(coarse)))
    return Dag("drawn", levels, ("a", "b"), draw(st.sampled_from("ab")))


@settings(max_examples=80, deadline=None)
@given(dags())
def test_a_projection_is_a_partition_that_keeps_names_order_and_edges(dag: Dag) -> None:
    tree = parse_hierarchy(dump_hierarchy(dag))
    axis = str(dag.projection)
    assert tree.coarse.names == [node.name for node in dag.coarse.nodes if node.axis == axis]
    assert tree.fine.names[: len(dag.fine)] == dag.fine.names
    for level in tree.levels:
        assert [node.id for node in level.nodes] == list(range(len(level)))
    assert sorted(k for c in range(tree.n_coarse) for k in tree.children(c)) == list(range(tree.n_fine))
    assert all(tree.children(coarse_id) for coarse_id in range(tree.n_coarse))
    for node, stated in zip(tree.fine.nodes, dag.fine.nodes, strict=False):
        assert [node.parent] == [name for name in stated.parents if name.startswith(axis)]
    assert all(node.implicit for node in tree.fine.nodes[len(dag.fine) :])


@settings(max_examples=40, deadline=None)
@given(dags())
def test_dump_and_parse_give_an_equal_dag(dag: Dag) -> None:
    assert parse_taxonomy(dump_hierarchy(dag)) == dag
    free = replace(dag, projection=None)
    assert parse_taxonomy(dump_hierarchy(free)) == free
