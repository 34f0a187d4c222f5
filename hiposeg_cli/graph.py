"""A hierarchy as a networkx graph: checks worth a human's look, and the usual graph formats."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import networkx as nx

from hiposeg_cli.hierarchy import Hierarchy

GRAPH_FORMATS = ("dot", "graphml", "json")


def node_key(level_name: str, class_name: str) -> str:
    """Graph node of a class; names may repeat across levels."""
    return f"{level_name}/{class_name}"


def to_graph(hierarchy: Hierarchy) -> Any:
    """Directed graph with one edge from each class to its children."""
    graph = nx.DiGraph(name=hierarchy.name)
    for depth in range(len(hierarchy.levels) - 1, -1, -1):
        level = hierarchy.levels[depth]
        for node in level.nodes:
            key = node_key(level.name, node.name)
            color = "#{:02x}{:02x}{:02x}".format(*node.color)
            graph.add_node(key, label=node.name, level=level.name, id=node.id, color=color, implicit=node.implicit)
            if node.parent is not None:
                graph.add_edge(node_key(hierarchy.levels[depth + 1].name, node.parent), key)
    return graph


def findings(hierarchy: Hierarchy) -> list[str]:
    """Oddities of a valid hierarchy, in words: single-child classes, shared colours, classes added by padding."""
    graph = to_graph(hierarchy)
    assert nx.is_forest(graph), "levels and single parents make a forest"
    notes = []
    for depth, level in enumerate(hierarchy.levels):
        if depth:
            single = [n.name for n in level.nodes if graph.out_degree(node_key(level.name, n.name)) == 1]
            if single:
                notes.append(f"{level.name}: {len(single)} of {len(level)} classes have a single child ({_some(single)})")
        seen: dict[tuple[int, int, int], list[str]] = {}
        for node in level.nodes:
            seen.setdefault(node.color, []).append(node.name)
        shared = [names for names in seen.values() if len(names) > 1]
        notes += [f"{level.name}: {_some(names)} share a colour; never decode by colour" for names in shared]
        implicit = [node.name for node in level.nodes if node.implicit]
        if implicit:
            notes.append(f"{level.name}: {len(implicit)} classes were added for childless parents ({_some(implicit)})")
    return notes


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def export_graph(hierarchy: Hierarchy, graph_format: str) -> str:
    """The hierarchy as Graphviz dot, GraphML or node-link JSON text."""
    graph = to_graph(hierarchy)
    if graph_format == "json":
        return json.dumps(nx.node_link_data(graph, edges="edges"), indent=1, ensure_ascii=False) + "\n"
    if graph_format == "graphml":
        buffer = BytesIO()
        nx.write_graphml(graph, buffer)
        return buffer.getvalue().decode() + "\n"
    lines = [
        f"digraph {json.dumps(hierarchy.name, ensure_ascii=False)} {{",
        "  rankdir=LR; node [shape=box, style=filled, fontname=sans];",
    ]
    for key, data in graph.nodes(data=True):
        red, green, blue = (int(data["color"][i : i + 2], 16) for i in (1, 3, 5))
        ink = "white" if 299 * red + 587 * green + 114 * blue < 128_000 else "black"
        name, label = json.dumps(key, ensure_ascii=False), json.dumps(data["label"], ensure_ascii=False)
        lines.append(f'  {name} [label={label}, fillcolor="{data["color"]}", fontcolor={ink}];')
    quoted = (f"  {json.dumps(a, ensure_ascii=False)} -> {json.dumps(b, ensure_ascii=False)};" for a, b in graph.edges)
    return "\n".join([*lines, *quoted, "}"]) + "\n"
