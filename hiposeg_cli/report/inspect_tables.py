"""rich renderables of an inspection: summary, classes of every level, co-occurrence, sizes, leakage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from hiposeg_cli.inspection.overview import Overview
from hiposeg_cli.inspection.statistics import PIXEL_KINDS, ClassStatistics, Statistics

_MAX_TOGETHER = 12
_MAX_LEAKS = 10
_MAX_NAMES = 12


def inspection_tables(overview: Overview) -> list[Any]:
    """Everything the terminal shows, coarse classes before fine ones."""
    numbers = overview.statistics
    levels = reversed(list(numbers.levels.items()))
    return [
        _summary(overview), *(_classes(name, classes, numbers) for name, classes in levels), _together(overview),
        *_leaks(overview),
    ]  # fmt: skip


def _summary(overview: Overview) -> Table:
    numbers = overview.statistics
    total = sum(counts["total"] for counts in numbers.pixels.values())
    table = Table(box=None, show_header=False, pad_edge=False)
    images = ", ".join(f"{escape(split)} {count}" for split, count in numbers.images.items()) or "none"
    table.add_row("images", images)
    table.add_row("hierarchy", escape(overview.hierarchy.name))
    if numbers.sizes is not None:
        (width, height), count = numbers.sizes.commonest[0]
        ranges = [f"{low}..{high}" for low, _, high in (numbers.sizes.width, numbers.sizes.height)]
        sizes = f"{ranges[0]} x {ranges[1]} px, {numbers.sizes.distinct} different, most often {width}x{height} ({count})"
        table.add_row("image sizes", sizes)
    if numbers.objects:
        table.add_row("objects", str(numbers.objects))
    for key, words in PIXEL_KINDS.items():
        pixels = sum(counts[key] for counts in numbers.pixels.values())
        if pixels or key == "ignore_px":
            shares = [f"{escape(split)} {100 * counts[key] / max(1, counts['total']):.2f} %"
                      for split, counts in numbers.pixels.items()]  # fmt: skip
            table.add_row(words, f"{pixels} ({100 * pixels / max(1, total):.2f} %; {', '.join(shares)})")
    for name, entry in numbers.imbalance.items():
        if entry.ratio is not None:
            where = "all splits" if entry.split == "all" else escape(entry.split)
            text = (f"commonest to rarest {entry.ratio:.0f} : 1 in {where}; rarest third, {100 * entry.rarest_share:.3g} % "
                    f"of the pixels: {_some(entry.rarest)}")  # fmt: skip
            table.add_row(f"imbalance, {escape(name)}", text)
    if numbers.warnings:
        table.add_row("oddities", f"{numbers.warnings} handled when it was prepared; see report.json")
    return table


def _classes(level: str, classes: Sequence[ClassStatistics], numbers: Statistics) -> Table:
    total = max(1, sum(counts["total"] for counts in numbers.pixels.values()))
    table = Table("id", escape(level), box=None, pad_edge=False)
    splits = list(numbers.images)
    heads = ["pixels %", *(f"{escape(split)} {what}" for split in splits for what in ("px", "images"))]
    for head in (*heads, "region px: min", "median", "max"):
        table.add_column(head, justify="right")
    for entry in classes:
        if entry.region is None:
            continue
        cells = [f"{100 * entry.total_px / total:.3f}"]
        cells += [str(counts.get(split, 0)) for split in splits for counts in (entry.pixels, entry.images)]
        cells += [str(entry.region[0]), f"{entry.region[1]:g}", str(entry.region[2])]
        table.add_row(str(entry.id), escape(entry.name), *cells)
    absent = [entry.name for entry in classes if entry.region is None]
    if absent:
        table.caption = f"never seen ({len(absent)}): {_some(absent)}"
        table.caption_justify = "left"
    return table


def _together(overview: Overview) -> Table:
    """Images in which two coarse classes occur, for the commonest classes."""
    level, together = overview.hierarchy.coarse, overview.statistics.cooccurrence
    alone = together.diagonal()
    shown = sorted((k for k in range(len(level)) if alone[k]), key=lambda k: (-int(alone[k]), k))
    table = Table("images with both", box=None, pad_edge=False)
    for k in shown[:_MAX_TOGETHER]:
        table.add_column(escape(level.names[k]), justify="right", max_width=10, overflow="ellipsis", no_wrap=True)
    for k in shown[:_MAX_TOGETHER]:
        table.add_row(escape(level.names[k]), *(str(together[k, other]) for other in shown[:_MAX_TOGETHER]))
    if len(shown) > _MAX_TOGETHER:
        table.caption = (
            f"the {_MAX_TOGETHER} commonest of {len(shown)} {escape(level.name)} classes; --json and --html have all"
        )
        table.caption_justify = "left"
    return table


def _leaks(overview: Overview) -> list[Any]:
    numbers, near = overview.statistics, overview.near
    lines = [f"the same photo in {escape(a)} and {escape(b)}: {n}" for (a, b), n in sorted(numbers.leaked.items())]
    lines += [f"more than once in {escape(split)}: {count}" for split, count in numbers.repeated.items()]
    if near:
        lines.append(f"photos that look like one of an earlier split: {len(near)}")
    examples = [*numbers.leaks[:_MAX_LEAKS], *(near or ())[:_MAX_LEAKS]]
    lines += [
        f"  {escape(leak.split)}/{escape(leak.key)} = {escape(leak.other_split)}/{escape(leak.other_key)}"
        + (f" ({leak.distance} of 64 hash bits differ)" if number >= len(numbers.leaks[:_MAX_LEAKS]) else "")
        for number, leak in enumerate(examples)
    ]
    if near is None:
        lines.append("near-duplicates were not looked for (--near-duplicates)")
    if overview.unreadable:
        lines.append(f"photos that could not be read: {len(overview.unreadable)}, first: {escape(overview.unreadable[0])}")
    found = numbers.leaked or numbers.repeated or near
    return ["leakage across splits:" if found else "leakage across splits: none found", *lines]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return escape(", ".join(names[:_MAX_NAMES])) + more
