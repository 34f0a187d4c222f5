"""What may be wrong with label ids that the hierarchy does not know: another numbering, where that can be shown."""

from __future__ import annotations

from collections.abc import Collection

from hiposeg_cli.hierarchy import Hierarchy, SourceTable

_VOID = 255


def explain_ids(found: Collection[int], name: str, table: SourceTable, hierarchy: Hierarchy) -> str:
    """A numbering that all ids of a file fit, in words; empty when none does.

    Args:
        found: the ids of the file, of which `table` does not know all.
        name: the source that `table` is.
    """
    ids = set(found)
    for other, source in hierarchy.sources.items():
        known = {key for key in source.map if isinstance(key, int)} | set(source.ignore)
        if other != name and ids <= known:
            return f"its ids are all known to the source {other!r}: is it data for the format {other}?"
    labels = ids - set(table.ignore) - {_VOID}
    mapped = {key for key in table.map if isinstance(key, int)}
    if labels <= mapped or not mapped:
        return ""
    lowest, highest, last = min(labels), max(labels), max(mapped)
    if mapped == set(range(last + 1)) and highest == last + 1 and lowest > 0:
        return f"its ids end at {highest} and leave 0 out, the map's run from 0 to {last}: does it count from 1?"
    if mapped == set(range(1, last + 1)) and lowest == 0 and highest < last:
        return f"its ids start at 0 and end before {last}, the map's run from 1: does it count from 0, or is 0 unlabelled?"
    unmapped_void = _VOID in ids and _VOID not in mapped | set(table.ignore)
    if highest < hierarchy.n_fine and (unmapped_void or labels.isdisjoint(mapped)):
        void = " and 255" if unmapped_void else ""
        return (
            f"its ids fit the classes of the hierarchy (0..{hierarchy.n_fine - 1}{void}): are they train ids, not raw ids?"
        )
    return ""
