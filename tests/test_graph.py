"""The hierarchy as a graph: its edges are the parents, and each export parses back with every class."""

from __future__ import annotations

import io
import json
import re

import networkx as nx
import pytest
from drawn import hierarchies
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.graph import (
    GRAPH_FORMATS,
    export_graph,
    findings,
    from_graph,
    node_key,
    read_graphml,
    read_node_link,
    to_graph,
)
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level, fold
from hiposeg_cli.hierarchy_yaml import parse_hierarchy, parse_taxonomy

STREET = parse_hierarchy("""
schema: hiposeg/hierarchy@1
name: street
levels: [fine, coarse, realm]
classes:
  realm: [{name: ground, color: [1, 2, 3]}, {name: object, color: [255, 254, 0]}]
  coarse:
    - {name: flat, parent: ground, color: [9, 9, 9]}
    - {name: vehicle, parent: object, color: [9, 9, 9]}
    - {name: pole, parent: object, color: [8, 8, 8]}
  fine:
    - {name: road, parent: flat, color: [1, 0, 0]}
    - {name: walk, parent: flat, color: [2, 0, 0]}
    - {name: car, parent: vehicle, color: [3, 0, 0]}
""")
WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=6).filter(str.isprintable)


@st.composite
def trees(draw: st.DrawFn) -> Hierarchy:
    n_coarse, n_fine = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    names = draw(st.lists(WORDS, min_size=n_coarse + n_fine, max_size=n_coarse + n_fine, unique_by=fold))
    coarse = [ClassNode(k, name, (k, 0, 0)) for k, name in enumerate(names[:n_coarse])]
    fine = [
        ClassNode(k, name, (0, k, 0), parent=draw(st.sampled_from(names[:n_coarse])))
        for k, name in enumerate(names[n_coarse:])
    ]
    return Hierarchy(draw(WORDS), (Level("fine", tuple(fine)), Level("coarse", tuple(coarse))))


def _edges(tree: Hierarchy) -> set[tuple[str, str]]:
    (fine, coarse) = tree.levels
    return {(node_key(coarse.name, node.parent or ""), node_key(fine.name, node.name)) for node in fine.nodes}


def _keys(tree: Hierarchy) -> set[str]:
    return {node_key(level.name, node.name) for level in tree.levels for node in level.nodes}


def _read_dot(text: str) -> tuple[set[str], set[tuple[str, str]]]:
    """Nodes and edges of our dot dialect: every name is a quoted string with backslash escapes."""
    string = r'("(?:[^"\\]|\\.)*")'
    nodes = {json.loads(name) for name in re.findall(rf"^  {string} \[", text, re.MULTILINE)}
    edges = re.findall(rf"^  {string} -> {string};$", text, re.MULTILINE)
    return nodes, {(json.loads(a), json.loads(b)) for a, b in edges}


def test_graph_by_hand() -> None:
    graph = to_graph(STREET)
    assert set(graph.edges) == {
        ("realm/ground", "coarse/flat"), ("realm/object", "coarse/vehicle"), ("realm/object", "coarse/pole"),
        ("coarse/flat", "fine/road"), ("coarse/flat", "fine/walk"), ("coarse/vehicle", "fine/car"),
        ("coarse/pole", "fine/pole"),
    }  # fmt: skip
    assert graph.nodes["realm/object"] == {
        "label": "object", "level": "realm", "id": 1, "color": "#fffe00", "implicit": False,
    }  # fmt: skip
    assert [key for key, data in graph.nodes(data=True) if data["implicit"]] == ["fine/pole"]


@settings(max_examples=40, deadline=None)
@given(trees())
def test_edges_are_the_parents(tree: Hierarchy) -> None:
    graph = to_graph(tree)
    assert set(graph.edges) == _edges(tree)
    assert set(graph.nodes) == _keys(tree)
    assert nx.is_forest(graph)


@settings(max_examples=40, deadline=None)
@given(trees())
def test_json_parses_back(tree: Hierarchy) -> None:
    graph = nx.node_link_graph(json.loads(export_graph(tree, "json")), name="key", edges="edges")
    assert (set(graph.nodes), set(graph.edges)) == (_keys(tree), _edges(tree))
    assert [data["id"] for _, data in graph.nodes(data=True)] == [n.id for level in tree.levels[::-1] for n in level.nodes]
    assert graph.graph["name"] == tree.name


@settings(max_examples=40, deadline=None)
@given(trees())
def test_graphml_parses_back(tree: Hierarchy) -> None:
    graph = nx.read_graphml(io.BytesIO(export_graph(tree, "graphml").encode()))
    assert (set(graph.nodes), set(graph.edges)) == (_keys(tree), _edges(tree))
    for level in tree.levels:
        for node in level.nodes:
            assert graph.nodes[node_key(level.name, node.name)]["id"] == node.id


@settings(max_examples=40, deadline=None)
@given(trees())
def test_dot_parses_back(tree: Hierarchy) -> None:
    assert _read_dot(export_graph(tree, "dot")) == (_keys(tree), _edges(tree))


@settings(max_examples=60, deadline=None)
@given(hierarchies())
def test_a_taxonomy_survives_json_and_graphml(tree: Hierarchy) -> None:
    link = read_node_link(json.loads(export_graph(tree, "json")), "tree.json")
    assert from_graph(link, "tree.json") == tree
    xml = read_graphml(export_graph(tree, "graphml").encode(), "tree.graphml")
    assert from_graph(xml, "tree.graphml") == tree


def test_a_dag_survives_json_and_graphml_with_the_order_of_its_parents() -> None:
    dag = parse_taxonomy("""
schema: hiposeg/hierarchy@1
name: parts
structure: dag
axes: [object, type]
projection: object
levels: [fine, coarse]
classes:
  coarse: [{name: car, axis: object}, {name: wheels, axis: type}, {name: bus, axis: object}]
  fine: [{name: wheel, parent: [wheels, car]}, {name: tyre, parent: [bus, wheels]}, {name: roof, parent: bus}]
sources: {masks: {map: {1: wheel, 2: {coarse: car}}}}
""")
    graph = to_graph(dag)
    assert set(graph.in_edges("fine/tyre")) == {("coarse/bus", "fine/tyre"), ("coarse/wheels", "fine/tyre")}
    assert from_graph(read_node_link(json.loads(export_graph(dag, "json")), "x"), "x") == dag
    assert from_graph(read_graphml(export_graph(dag, "graphml").encode(), "x"), "x") == dag


def test_changing_a_graph_changes_the_taxonomy() -> None:
    graph = to_graph(STREET)
    graph.remove_edge("coarse/flat", "fine/walk")
    graph.add_edge("coarse/vehicle", "fine/walk")
    moved = from_graph(graph, "street.graphml")
    assert isinstance(moved, Hierarchy)
    assert moved.parent.tolist() == [0, 1, 1, 2]
    graph.add_edge("coarse/flat", "fine/walk")
    with pytest.raises(HierarchyError, match=r"street\.graphml: 'walk' has 2 parents; a tree allows one"):
        from_graph(graph, "street.graphml")


HOSTILE = """<?xml version="1.0"?><!DOCTYPE g [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="directed"><node id="&b;"/></graph></graphml>"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('<?xml version="1.0" encoding="odd"?><a/>', "odd"),
        ("", "is no GraphML file"),
        ("<graphml", "is no GraphML file"),
        (HOSTILE, "EntitiesForbidden"),
        ("<a/>", "GraphML"),
    ],
)
def test_broken_and_hostile_graphml_is_refused(text: str, words: str) -> None:
    with pytest.raises(HierarchyError) as caught:
        read_graphml(text.encode(), "tree.graphml")
    assert str(caught.value).startswith("tree.graphml: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "data", [None, 3, {}, {"nodes": []}, {"nodes": [3]}, {"nodes": [{}], "edges": [{}]}, {"nodes": [{"id": None}]}]
)
def test_json_that_is_no_graph_is_refused(data: object) -> None:
    with pytest.raises(HierarchyError, match=r"tree\.json: is no node-link JSON of a graph"):
        read_node_link(data, "tree.json")


@pytest.mark.parametrize("key", ["level", "id", "color", "label"])
def test_a_taxonomy_graph_with_a_class_that_lacks_something_is_refused(key: str) -> None:
    graph = to_graph(STREET)
    del graph.nodes["fine/car"][key]
    with pytest.raises(HierarchyError, match="is a damaged graph"):
        from_graph(graph, "x")


@settings(max_examples=40, deadline=None)
@given(trees())
def test_mermaid_parses_back(tree: Hierarchy) -> None:
    text = export_graph(tree, "mermaid")
    assert text.splitlines()[0] == "flowchart LR"
    label = dict(re.findall(r'^  (n\d+)\["(.*)"\]$', text, re.MULTILINE))
    words = {key: re.sub(r"#(\d+);", lambda match: chr(int(match[1])), value) for key, value in label.items()}
    assert sorted(words.values()) == sorted(node.name for level in tree.levels for node in level.nodes)
    edges = {(words[a], words[b]) for a, b in re.findall(r"^  (n\d+) --> (n\d+)$", text, re.MULTILINE)}
    assert edges == {(str(node.parent), node.name) for node in tree.fine.nodes}


def test_level_and_class_names_with_slashes_do_not_collide() -> None:
    coarse = Level("a", (ClassNode(0, "b/c", (1, 1, 1)),))
    fine = Level("a/b", (ClassNode(0, "c", (2, 2, 2), parent="b/c"),))
    tree = Hierarchy("slashes", (fine, coarse))
    assert len(to_graph(tree).nodes) == 2
    assert from_graph(to_graph(tree), "x") == tree


def test_dot_by_hand() -> None:
    lines = export_graph(STREET, "dot").splitlines()
    assert lines[0] == 'digraph "street" {'
    assert lines[-1] == "}"
    assert '  "realm/object" [label="object", fillcolor="#fffe00", fontcolor=black];' in lines
    assert '  "realm/ground" [label="ground", fillcolor="#010203", fontcolor=white];' in lines
    assert '  "coarse/pole" -> "fine/pole";' in lines


def test_dot_keeps_a_hierarchy_name_with_accents() -> None:
    """Graphviz knows no \\u escapes and would print them as they stand."""
    tree = Hierarchy("stra\u00dfe", STREET.levels)
    assert export_graph(tree, "dot").startswith('digraph "stra\u00dfe" {')


@pytest.mark.parametrize("graph_format", GRAPH_FORMATS)
def test_exports_are_repeatable(graph_format: str) -> None:
    again = Hierarchy(STREET.name, STREET.levels)
    assert export_graph(STREET, graph_format) == export_graph(again, graph_format)


def test_findings_name_single_children_shared_colours_and_padding() -> None:
    assert findings(STREET) == [
        "fine: 1 classes were added for childless parents (pole)",
        "coarse: 2 of 3 classes have a single child (vehicle, pole)",
        "coarse: flat, vehicle share a colour; never decode by colour",
        "realm: 1 of 2 classes have a single child (ground)",
    ]


def test_a_full_tree_with_own_colours_has_no_findings() -> None:
    coarse = Level("coarse", (ClassNode(0, "a", (1, 1, 1)),))
    fine = Level("fine", (ClassNode(0, "b", (2, 2, 2), parent="a"), ClassNode(1, "c", (3, 3, 3), parent="a")))
    assert findings(Hierarchy("toy", (fine, coarse))) == []


def test_long_lists_in_findings_are_cut() -> None:
    coarse = Level("coarse", tuple(ClassNode(k, f"c{k}", (k, 1, 1)) for k in range(9)))
    fine = Level("fine", tuple(ClassNode(k, f"f{k}", (k, 2, 2), parent=f"c{k}") for k in range(9)))
    (note,) = findings(Hierarchy("toy", (fine, coarse)))
    assert note == "coarse: 9 of 9 classes have a single child (c0, c1, c2, c3, c4, c5 and 3 more)"
