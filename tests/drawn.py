"""Strategies that draw taxonomies: any names, levels, colours, aliases, mirrors and source tables."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from hiposeg_cli.hierarchy import KINDS, ClassNode, Hierarchy, Level, SourceTable, fold

WORDS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=8).filter(
    lambda word: word.strip() and word.isprintable()
)
COLORS = st.tuples(*[st.integers(0, 255)] * 3)


@st.composite
def hierarchies(draw: st.DrawFn) -> Hierarchy:
    """Two or three levels, every class with a child; any names, colours, kinds, aliases, mirrors and a source table."""
    depth = draw(st.integers(2, 3))
    level_names = draw(st.lists(WORDS, min_size=depth, max_size=depth, unique=True))
    sizes = sorted(draw(st.lists(st.integers(1, 6), min_size=depth, max_size=depth)), reverse=True)
    levels: list[Level] = []
    above: Level | None = None
    for level_name, size in reversed(list(zip(level_names, sizes, strict=True))):
        words = draw(st.lists(WORDS, min_size=2 * size, max_size=2 * size, unique_by=fold))
        names, aliases = words[:size], words[size:]
        parents = [None] * size if above is None else draw(_surjection(size, above.names))
        nodes = [
            ClassNode(
                id=k, name=names[k], color=draw(COLORS), parent=parents[k], kind=draw(st.none() | st.sampled_from(KINDS)),
                aliases=(aliases[k],) if draw(st.booleans()) else (), doc=draw(st.just("") | WORDS),
            )
            for k in range(size)
        ]  # fmt: skip
        pairs = [(a, b) for a in range(size) for b in range(a + 1, size) if parents[a] == parents[b]]
        if pairs and level_name == level_names[0] and draw(st.booleans()):  # an upper pair would need lower ones
            a, b = draw(st.sampled_from(pairs))
            nodes[a], nodes[b] = replace(nodes[a], mirror=names[b]), replace(nodes[b], mirror=names[a])
        above = Level(level_name, tuple(nodes))
        levels.insert(0, above)
    tree = Hierarchy(name=draw(WORDS), levels=tuple(levels), doc=draw(st.just("") | WORDS).strip())
    fill = st.sampled_from(["ignore", "background"] if tree.background is not None else ["ignore"])
    coarse = st.builds(lambda name: {"coarse": name}, st.sampled_from(tree.coarse.names))
    target = st.sampled_from(tree.fine.names) | st.just("ignore") | coarse
    targets = target | st.dictionaries(st.integers(0, 9) | WORDS, target, min_size=2, max_size=3)  # parts of an object
    table = SourceTable(
        map=draw(st.dictionaries(st.integers(-3, 300) | WORDS, targets, min_size=1, max_size=4)),
        ignore=tuple(draw(st.lists(st.integers(-3, 300), max_size=2))), uncovered=draw(fill | st.just("object-only")),
        unlabelled=draw(fill),
    )  # fmt: skip
    return replace(tree, sources={"masks": table} if draw(st.booleans()) else {})


@st.composite
def _surjection(draw: st.DrawFn, size: int, onto: list[str]) -> list[str]:
    extra = draw(st.lists(st.sampled_from(onto), min_size=size - len(onto), max_size=size - len(onto)))
    return draw(st.permutations([*onto, *extra]))
