"""What makes levels a tree: parents by their own names, one axis of a DAG, copies that pad ragged branches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hiposeg_cli.errors import HierarchyError
from hiposeg_cli.hierarchy import ClassNode, Hierarchy, Level, Taxonomy

Refuse = Callable[[Level, ClassNode, list[str]], HierarchyError]


def canonical_parents(levels: Sequence[Level]) -> list[Level]:
    """Replace aliases in `parent` by the class's own name; every parent is known to exist."""
    result = []
    for level, above in zip(levels, [*levels[1:], None], strict=True):
        nodes = [node if above is None else _canonical(node, above) for node in level.nodes]
        result.append(Level(level.name, tuple(nodes)))
    return result


def _canonical(node: ClassNode, above: Level) -> ClassNode:
    names = [above.names[above.find(parent) or 0] for parent in node.parents]
    return replace(node, parent=names[0], co_parents=tuple(names[1:]))


def padded(levels: Sequence[Level]) -> list[Level]:
    """Give every class without children an implicit copy of itself on the level below, from the top down."""
    result = list(levels)
    for position in range(len(result) - 2, -1, -1):
        below, above = result[position], result[position + 1]
        parents = {above.find(node.parent or "") for node in below.nodes}
        childless = [node for node in above.nodes if node.id not in parents]
        for node in childless:
            # A copy mirrors its twin's copy; where the twin has children instead, the pair is refused later.
            twin = node.mirror if node.mirror in [other.name for other in childless] else None
            below = _with(below, replace(node, mirror=twin))
        result[position] = below
    return canonical_parents(result)


def _with(level: Level, node: ClassNode) -> Level:
    copy = replace(node, id=len(level), parent=node.name, aliases=(), implicit=True)
    return Level(level.name, (*level.nodes, copy))


def projected(levels: Sequence[Level], axis: str, refuse: Refuse) -> list[Level]:
    """The levels of one axis of a DAG: other axes' classes are left out, ids keep their order without gaps.

    Args:
        refuse: makes the error for a class without exactly one parent on the axis, given the parents it has there.
    """
    kept = [levels[0], *(_on_axis(level, axis) for level in levels[1:])]
    result = []
    for level, above in zip(kept, [*kept[1:], None], strict=True):
        nodes: list[ClassNode] = []
        for node in level.nodes:
            parents = [name for name in node.parents if above is not None and above.find(name) is not None]
            if above is not None and len(parents) != 1:
                raise refuse(level, node, parents)
            parent = parents[0] if above is not None else None
            nodes.append(replace(node, id=len(nodes), parent=parent, co_parents=(), axis=None))
        result.append(Level(level.name, tuple(nodes)))
    return result


def _on_axis(level: Level, axis: str) -> Level:
    nodes = [node for node in level.nodes if node.axis == axis]
    return Level(level.name, tuple(replace(node, id=position) for position, node in enumerate(nodes)))


def tree_of(taxonomy: Taxonomy, where: object) -> Hierarchy:
    """The tree that label maps use: a tree itself, or a DAG's projection. Raises HierarchyError when it chooses no axis."""
    if isinstance(taxonomy, Hierarchy):
        return taxonomy
    if taxonomy.projection is None:
        raise HierarchyError(
            where, f"is a DAG ({', '.join(taxonomy.axes)}) that chooses no axis as the tree of the label maps",
            f"add `projection: {taxonomy.axes[0]}` to the file",
        )  # fmt: skip

    def refuse(level: Level, node: ClassNode, parents: list[str]) -> HierarchyError:
        return HierarchyError(where, one_parent(level, node, parents, str(taxonomy.projection)), "give it one")

    levels = padded(projected(taxonomy.levels, taxonomy.projection, refuse))
    return Hierarchy(taxonomy.name, tuple(levels), taxonomy.sources, taxonomy.doc)


def one_parent(level: Level, node: ClassNode, parents: Sequence[str], axis: str) -> str:
    """Say that a class has no parent, or several, on the axis that was chosen."""
    found = f"{len(parents)} parents ({', '.join(parents)})" if parents else "no parent"
    return f"{level.name} class {node.name!r} has {found} on the axis {axis!r}, whose tree needs one"
