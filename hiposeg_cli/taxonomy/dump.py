"""Write the canonical YAML of a taxonomy: every text quoted, every id written out, nothing left to another file."""

from __future__ import annotations

import json
from typing import Any

from hiposeg_cli.hierarchy import ClassNode, Dag, Taxonomy

SCHEMA = "hiposeg/hierarchy@1"


def dump_hierarchy(taxonomy: Taxonomy) -> str:
    """Write the canonical YAML text of a taxonomy; parsing it gives an equal one."""
    lines = [f"schema: {SCHEMA}", f"name: {_quoted(taxonomy.name)}"]
    if taxonomy.doc:
        lines.append(f"doc: {_quoted(taxonomy.doc)}")
    if isinstance(taxonomy, Dag):
        lines += ["structure: dag", f"axes: {_quoted(list(taxonomy.axes))}"]
        lines += [f"projection: {_quoted(taxonomy.projection)}"] if taxonomy.projection else []
    lines.append("levels: [" + ", ".join(_quoted(level.name) for level in taxonomy.levels) + "]")
    lines.append("classes:")
    for level in reversed(taxonomy.levels):
        lines.append(f"  {_quoted(level.name)}:")
        lines += [f"    - {_dump_node(node)}" for node in level.nodes]
    if taxonomy.sources:
        lines.append("sources:")
    for name, table in taxonomy.sources.items():
        lines += [f"  {_quoted(name)}:", f"    uncovered: {table.uncovered}", f"    unlabelled: {table.unlabelled}"]
        lines += [f"    ignore: {list(table.ignore)}", "    map:" if table.map else "    map: {}"]
        lines += [f"      {_quoted(key)}: {_quoted(target)}" for key, target in table.map.items()]
    return "\n".join(lines) + "\n"


def _dump_node(node: ClassNode) -> str:
    parent = list(node.parents) if node.co_parents else node.parent
    optional = {
        "parent": parent, "axis": node.axis, "kind": node.kind, "aliases": list(node.aliases), "mirror": node.mirror,
        "implicit": node.implicit, "doc": node.doc,
    }  # fmt: skip
    given = {"id": node.id, "name": node.name, "color": list(node.color)} | {k: v for k, v in optional.items() if v}
    return _quoted(given)


def _quoted(value: Any) -> str:
    """YAML's flow style with every string quoted as in JSON: nothing in it can be retyped."""
    if isinstance(value, dict):  # JSON would turn whole-number keys into text
        return "{" + ", ".join(f"{_quoted(key)}: {_quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")  # line breaks to YAML
