"""The hierarchy as a graph: its edges are the parents, and each export parses back with every class."""

from __future__ import annotations

import io
import json
import re

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli.graph import GRAPH_FORMATS, export_graph, findings, node_key, to_graph
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level, fold
from hiposeg_cli.hierarchy_yaml import parse_hierarchy

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
    graph = nx.node_link_graph(json.loads(export_graph(tree, "json")), edges="edges")
    assert (set(graph.nodes), set(graph.edges)) == (_keys(tree), _edges(tree))
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
