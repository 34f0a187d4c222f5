"""What a valid taxonomy's author may still want to know, and the invariants that valid means."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from hiposeg_cli.hierarchy import Dag, Hierarchy, Level, Taxonomy
from hiposeg_cli.taxonomy.mirrors import with_mirrors


def findings(taxonomy: Taxonomy) -> list[str]:
    """Oddities of a valid taxonomy, in words: single-child classes, shared colours, padding, sides, unreached classes."""
    notes: list[str] = []
    below: Level | None = None
    for level in taxonomy.levels:
        notes += _level_findings(level, below)
        below = level
    if isinstance(taxonomy, Dag):
        return [*notes, *_axis_findings(taxonomy)]
    return [*notes, *_side_findings(taxonomy), *_count_findings(taxonomy), *_source_findings(taxonomy)]


def _level_findings(level: Level, below: Level | None) -> Iterator[str]:
    if below is not None:
        children = Counter(level.find(parent) for node in below.nodes for parent in node.parents)
        single = [node.name for node in level.nodes if children[node.id] == 1]
        if single:
            yield f"{level.name}: {len(single)} of {len(level)} classes have a single child ({_some(single)})"
    seen: dict[tuple[int, int, int], list[str]] = {}
    for node in level.nodes:
        seen.setdefault(node.color, []).append(node.name)
    for names in seen.values():
        if len(names) > 1:
            yield f"{level.name}: {_some(names)} share a colour; never decode by colour"
    implicit = [node.name for node in level.nodes if node.implicit]
    if implicit:
        yield f"{level.name}: {len(implicit)} classes were added for childless parents ({_some(implicit)})"


def _axis_findings(dag: Dag) -> Iterator[str]:
    for axis in dag.axes:
        names = {node.name for node in dag.coarse.nodes if node.axis == axis}
        for wrong, what in ((0, "no parent"), (2, "several parents")):
            found = [node.name for node in dag.fine.nodes if min(2, len(names & {*node.parents})) == wrong]
            if found:
                yield f"{dag.fine.name}: {len(found)} of {len(dag.fine)} classes have {what} on {axis!r} ({_some(found)})"
    if dag.projection is None:
        yield f"no `projection`: choose one of {', '.join(dag.axes)} to prepare and train with it"


def _side_findings(hierarchy: Hierarchy) -> Iterator[str]:
    for level, better in zip(hierarchy.levels, with_mirrors(hierarchy.levels), strict=True):
        found = [a.name for a, b in zip(level.nodes, better.nodes, strict=True) if a.mirror != b.mirror]
        if found:
            yield f"{level.name}: {_some(found)} name a side but no `mirror`; flipped images would confuse them"


def _count_findings(hierarchy: Hierarchy) -> Iterator[str]:
    """`cityscapes-19-7` promises 19 fine and 7 coarse classes; background may or may not be counted."""
    numbers = re.search(r"(?:-(\d+))-(\d+)$", hierarchy.name)
    if numbers:
        background = hierarchy.background is not None
        for level, number in zip(hierarchy.levels, numbers.groups(), strict=False):
            if int(number) not in (len(level), len(level) - background):
                yield f"{level.name}: the name says {number} classes, there are {len(level)}"


def _source_findings(hierarchy: Hierarchy) -> Iterator[str]:
    for name, table in hierarchy.sources.items():
        reached = {hierarchy.fine.find(str(target)) for target in _targets(table.map)}
        if "background" in (table.uncovered, table.unlabelled):
            reached.add(hierarchy.background)
        missed = [node.name for node in hierarchy.fine.nodes if node.id not in reached]
        if missed:
            yield f"source {name}: no raw label becomes {_some(missed)} ({len(missed)} of {hierarchy.n_fine} fine classes)"
        both = [str(raw_id) for raw_id in table.ignore if raw_id in table.map]
        if both:
            yield f"source {name}: raw ids {_some(both)} are both mapped and ignored"


def _targets(table: Mapping[Any, Any]) -> Iterator[str]:
    for target in table.values():
        if not isinstance(target, Mapping):
            yield str(target)
        elif set(target) != {"coarse"}:
            yield from _targets(target)


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def broken_invariants(hierarchy: Hierarchy) -> list[str]:
    """What a tree made by hand, not read from a file, does not keep of the promises of a taxonomy; none when valid."""
    broken = []
    for level in hierarchy.levels:
        if [node.id for node in level.nodes] != list(range(len(level))):
            broken.append(f"{level.name}: ids are not 0..{len(level) - 1} in order")
        spellings = Counter(spelling for node in level.nodes for spelling in {node.name, *node.aliases})
        broken += [f"{level.name}: {name!r} names several classes" for name, count in spellings.items() if count > 1]
        swap = [level.find(node.mirror or node.name) for node in level.nodes]
        if any(twin is None or swap[twin] != node_id for node_id, twin in enumerate(swap)):
            broken.append(f"{level.name}: mirroring twice is not the identity")
    for below, above in itertools.pairwise(hierarchy.levels):
        parents = [above.find(node.parent or "") for node in below.nodes]
        broken += [f"{below.name}: {below.names[k]!r} has no parent" for k, parent in enumerate(parents) if parent is None]
        childless = [node.name for node in above.nodes if node.id not in parents]
        broken += [f"{above.name}: {name!r} has no child" for name in childless]
        for node, parent in zip(below.nodes, parents, strict=True):
            twin = below.find(node.mirror or node.name)
            twin_parent = None if parent is None else above.find(above.nodes[parent].mirror or above.nodes[parent].name)
            if twin is not None and twin_parent is not None and parents[twin] != twin_parent:
                broken.append(f"{below.name}: a flip takes {node.name!r} from below its parent")
    if any(node.parents for node in hierarchy.levels[-1].nodes):
        broken.append(f"{hierarchy.levels[-1].name}: the coarsest level has parents")
    return broken
