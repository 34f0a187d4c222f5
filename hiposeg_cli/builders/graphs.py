"""Taxonomies from graph files: what `hierarchy convert` wrote, or any forest that a graph editor saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hiposeg_cli.builders.base import Builder, BuildOptions, Draft
from hiposeg_cli.builders.forest import Twig, forest_draft
from hiposeg_cli.builders.tables import color_of
from hiposeg_cli.errors import DataError, HierarchyError
from hiposeg_cli.graph import from_graph, read_graphml, read_node_link
from hiposeg_cli.hierarchy import Taxonomy
from hiposeg_cli.hierarchy_yaml import SCHEMA
from hiposeg_cli.strict_json import load_json


def _graphml(path: Path, options: BuildOptions) -> Draft | Taxonomy:
    """GraphML with edges from each class to its children."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path") from None
    return _taxonomy(read_graphml(data, path), path)


def _node_link(path: Path, options: BuildOptions) -> Draft | Taxonomy:
    """Node-link JSON with edges from each class to its children."""
    return _taxonomy(read_node_link(load_json(path), path), path)


def _taxonomy(graph: Any, path: Path) -> Draft | Taxonomy:
    if graph.graph.get("schema") == SCHEMA:
        return from_graph(graph, path)
    return forest_draft(list(_roots(graph, path)), path)


def _roots(graph: Any, path: Path) -> Iterator[Twig]:
    """The trees of a graph without levels; a node is named by its label, else by its id."""
    import networkx as nx

    if not nx.is_directed_acyclic_graph(graph):
        if not graph.is_directed():
            raise HierarchyError(path, "has edges without a direction", "point each edge from a class to its part")
        ring = " -> ".join(str(edge[0]) for edge in nx.find_cycle(graph))
        raise HierarchyError(path, f"its edges form a cycle: {ring} -> {ring.split(' -> ')[0]}", "remove one edge")
    for key, count in graph.in_degree():
        if count > 1:
            raise HierarchyError(path, f"{key!r} has {count} parents; a tree allows one", "remove an edge")
    twigs = {key: Twig(str(node.get("label", key)), keys=_keys(node, path)) for key, node in graph.nodes(data=True)}
    for parent, child in graph.edges:
        twigs[parent].children.append(twigs[child])
    for key, count in graph.in_degree():
        if count == 0:
            yield twigs[key]


def _keys(node: dict[str, Any], path: Path) -> dict[str, Any]:
    color = node.get("color")
    return {"color": color_of(color, path)} if isinstance(color, str) else {}


graphml = Builder(_graphml, "a GraphML file: edges from each class to its parts")
node_link = Builder(_node_link, "node-link JSON of a graph: edges from each class to its parts")
