"""A taxonomy as a networkx graph and back, and the usual graph formats."""

from __future__ import annotations

import json
import re
from io import BytesIO
from typing import Any

import networkx as nx

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.hierarchy import Dag, Taxonomy
from hiposeg_cli.hierarchy_yaml import SCHEMA, read_document
from hiposeg_cli.taxonomy.checks import findings
from hiposeg_cli.taxonomy.document import as_document

__all__ = [
    "GRAPH_FORMATS", "export_graph", "findings", "from_graph", "node_key", "read_graphml", "read_node_link", "to_graph",
]  # fmt: skip

GRAPH_FORMATS = ("dot", "graphml", "json", "mermaid")
_TEXTS_OF_LISTS = ("aliases", "axes", "levels", "sources")  # GraphML has no lists: they travel as JSON text
_ABOUT = ("schema", "name", "doc", "levels", "structure", "axes", "projection")
_OPTIONAL = ("kind", "aliases", "mirror", "doc", "axis")


def node_key(level_name: str, class_name: str) -> str:
    """Graph node of a class; names may repeat across levels."""
    return f"{level_name.replace('%', '%25').replace('/', '%2F')}/{class_name}"


def to_graph(taxonomy: Taxonomy) -> Any:
    """Directed graph with one edge from each class to its children; `from_graph` gives an equal taxonomy back."""
    graph = nx.DiGraph(name=taxonomy.name, schema=SCHEMA, levels=[level.name for level in taxonomy.levels])
    about: dict[str, Any] = {"doc": taxonomy.doc}
    about["sources"] = {name: vars(table) | {"map": _pairs(table.map)} for name, table in taxonomy.sources.items()}
    if isinstance(taxonomy, Dag):
        about |= {"structure": "dag", "axes": list(taxonomy.axes), "projection": taxonomy.projection}
    graph.graph.update({key: value for key, value in about.items() if value})
    for depth in range(len(taxonomy.levels) - 1, -1, -1):
        level = taxonomy.levels[depth]
        for node in level.nodes:
            key = node_key(level.name, node.name)
            color = "#{:02x}{:02x}{:02x}".format(*node.color)
            extra = {name: getattr(node, name) for name in _OPTIONAL if getattr(node, name)}
            graph.add_node(key, label=node.name, level=level.name, id=node.id, color=color, implicit=node.implicit, **extra)
            for order, parent in enumerate(node.parents):
                graph.add_edge(node_key(taxonomy.levels[depth + 1].name, parent), key, **({"order": order} if order else {}))
    return graph


def _pairs(table: Any) -> list[list[Any]]:
    """A map as pairs, since JSON would turn whole-number keys into text."""
    nested = {key: {"map": _pairs(to)} for key, to in table.items() if isinstance(to, dict) and set(to) != {"coarse"}}
    return [[key, to] for key, to in (table | nested).items()]


def _unpaired(pairs: Any) -> dict[Any, Any]:
    return {key: _unpaired(to["map"]) if isinstance(to, dict) and set(to) == {"map"} else to for key, to in pairs}


def from_graph(graph: Any, where: object) -> Taxonomy:
    """The taxonomy of a graph that `to_graph` made, perhaps changed since. Raises HierarchyError."""
    about = graph.graph
    if about.get("schema") != SCHEMA:
        raise HierarchyError(where, f"is no graph of a taxonomy (its schema is {about.get('schema')!r})", f"use {SCHEMA}")
    try:
        classes: dict[str, list[Any]] = {name: [] for name in about["levels"]}
        for key, node in graph.nodes(data=True):
            edges = sorted(graph.in_edges(key, data=True), key=lambda edge: edge[2].get("order", 0))
            color = [int(part, 16) for part in re.findall("[0-9a-fA-F]{2}", node["color"])]
            item = {"id": node["id"], "name": node["label"], "color": color, "implicit": node["implicit"]}
            item |= {name: node[name] for name in _OPTIONAL if name in node}
            parents = [graph.nodes[edge[0]]["label"] for edge in edges]
            if parents:
                item["parent"] = parents[0] if len(parents) == 1 else parents
            classes[node["level"]].append(item)
        data = {
            key: about[key] for key in ("schema", "name", "doc", "levels", "structure", "axes", "projection") if key in about
        }
        sources = {name: table | {"map": _unpaired(table["map"])} for name, table in about.get("sources", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HierarchyError(where, f"is a damaged graph of a taxonomy ({error!r})", "export it again") from None
    return read_document(as_document(data | {"classes": classes, "sources": sources}), where)


def export_graph(taxonomy: Taxonomy, graph_format: str) -> str:
    """The taxonomy as Graphviz dot, GraphML, node-link JSON or mermaid text."""
    graph = to_graph(taxonomy)
    writers = {"json": _json, "graphml": _graphml, "dot": _dot, "mermaid": _mermaid}
    return writers[graph_format](graph)


def _json(graph: Any) -> str:
    return json.dumps(nx.node_link_data(graph, name="key", edges="edges"), indent=1, ensure_ascii=False) + "\n"


def _graphml(graph: Any) -> str:
    for record in (graph.graph, *(node for _, node in graph.nodes(data=True))):
        record.update({key: json.dumps(record[key], ensure_ascii=False) for key in _TEXTS_OF_LISTS if key in record})
    buffer = BytesIO()
    nx.write_graphml(graph, buffer)
    return buffer.getvalue().decode() + "\n"


def read_node_link(data: Any, where: object) -> Any:
    """The graph of node-link JSON, as this module or networkx writes it. Raises HierarchyError."""
    try:
        key = "key" if "key" in data["nodes"][0] else "id"
        edges = "edges" if "edges" in data else "links"
        return _simple(nx.node_link_graph(data, directed=True, multigraph=False, name=key, edges=edges))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, nx.NetworkXError) as error:
        raise HierarchyError(where, f"is no node-link JSON of a graph ({error!r})", "export it again") from None


def read_graphml(data: bytes, where: object) -> Any:
    """The graph of a GraphML file. Raises HierarchyError for broken or hostile XML."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        fromstring(data)
        graph = nx.read_graphml(BytesIO(data))
        for record in (graph.graph, *(node for _, node in graph.nodes(data=True))):
            record.update({key: json.loads(record[key]) for key in _TEXTS_OF_LISTS if isinstance(record.get(key), str)})
    except (ParseError, DefusedXmlException, nx.NetworkXError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise HierarchyError(where, f"is no GraphML file ({error})", "export it again") from None
    return _simple(graph)


def _simple(graph: Any) -> Any:
    """The graph without parallel edges."""
    return nx.DiGraph(graph) if graph.is_directed() else nx.Graph(graph)


def _dot(graph: Any) -> str:
    lines = [
        f"digraph {json.dumps(graph.name, ensure_ascii=False)} {{",
        "  rankdir=LR; node [shape=box, style=filled, fontname=sans];",
    ]
    for key, data in graph.nodes(data=True):
        name, label = json.dumps(key, ensure_ascii=False), json.dumps(data["label"], ensure_ascii=False)
        lines.append(f'  {name} [label={label}, fillcolor="{data["color"]}", fontcolor={_ink(data["color"])}];')
    quoted = (f"  {json.dumps(a, ensure_ascii=False)} -> {json.dumps(b, ensure_ascii=False)};" for a, b in graph.edges)
    return "\n".join([*lines, *quoted, "}"]) + "\n"


def _mermaid(graph: Any) -> str:
    names = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for key, data in graph.nodes(data=True):
        label = "".join(char if char.isalnum() or char in " _-" else f"#{ord(char)};" for char in data["label"])
        lines.append(f'  {names[key]}["{label}"]')
        lines.append(f"  style {names[key]} fill:{data['color']},color:{_ink(data['color'])}")
    return "\n".join([*lines, *(f"  {names[a]} --> {names[b]}" for a, b in graph.edges)]) + "\n"


def _ink(color: str) -> str:
    """Black or white, whichever is read on a colour."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "white" if 299 * red + 587 * green + 114 * blue < 128_000 else "black"
