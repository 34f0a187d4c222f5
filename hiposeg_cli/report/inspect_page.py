"""The inspection page: one HTML file with everything in it, which asks the network for nothing.

Every text from the dataset is escaped; the page's own policy forbids loading anything but the data URIs it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import log10

from hiposeg_cli.hierarchy import ClassNode
from hiposeg_cli.image_file import read_rgb
from hiposeg_cli.inspection.leaks import Leak
from hiposeg_cli.inspection.overview import Overview
from hiposeg_cli.inspection.statistics import PIXEL_KINDS, ClassStatistics, Statistics
from hiposeg_cli.labelmap import TwoLevelMap, read_label_png
from hiposeg_cli.report.html import chip, document, fold_mark, nav, percent_of, short, swatch, tile
from hiposeg_cli.report.inspect_assets import CSS, SCRIPT
from hiposeg_cli.report.inspect_pictures import Picture, picture
from hiposeg_cli.store import label_path

_MAX_HEAT = 60
_MAX_LISTED = 50
_MAX_CHIPS = 16
_OPEN_CLASSES = 250  # larger taxonomies start folded
_FAINTEST = -6  # the bars span 10^-6 .. 1


def inspection_page(overview: Overview) -> str:
    """The page as text; equal datasets give equal pages. Raises DataError when a sample's files cannot be read."""
    numbers, title = overview.statistics, escape(overview.name)
    body = "".join(
        [
            _head(overview, title), _tiles(overview), _classes(numbers), _imbalance(numbers), _heat(overview),
            _sizes(numbers), _leaks(overview), _samples(overview),
        ]
    )  # fmt: skip
    return document(f"{overview.name}: inspection", body, style=CSS, script=SCRIPT)


def _head(overview: Overview, title: str) -> str:
    links = {"classes": "Classes", "imbalance": "Imbalance", "together": "Together", "sizes": "Image sizes",
             "leaks": "Leakage", "samples": "Samples"}  # fmt: skip
    levels = ", ".join(f"{len(level)} {escape(level.name)}" for level in overview.hierarchy.levels)
    return (
        f'<header><h1>{title}</h1><p class="soft">hierarchy {escape(overview.hierarchy.name)} ({levels} classes)</p>'
        f"{nav(links)}</header>\n"
    )


def _tiles(overview: Overview) -> str:
    numbers = overview.statistics
    total = sum(counts["total"] for counts in numbers.pixels.values())
    splits = ", ".join(f"{escape(split)} {count:,}" for split, count in numbers.images.items())
    tiles = [tile(f"{sum(numbers.images.values()):,}", f"images: {splits or 'none'}"), tile(short(total), "pixels")]
    if numbers.objects:
        tiles.append(tile(f"{numbers.objects:,}", "annotated objects"))
    for name, classes in numbers.levels.items():
        seen = sum(entry.total_px > 0 for entry in classes)
        tiles.append(tile(f"{seen} / {len(classes)}", f"{escape(name)} classes seen"))
    for key, word in PIXEL_KINDS.items():
        pixels = sum(counts[key] for counts in numbers.pixels.values())
        if pixels or key == "ignore_px":
            tiles.append(tile(percent_of(pixels, total), word))
    if numbers.warnings:
        tiles.append(tile(f"{numbers.warnings:,}", "oddities handled when it was prepared"))
    return f'<div class="tiles">{"".join(tiles)}</div>\n'


# -- classes -----------------------------------------------------------------------------------------------------------


def _classes(numbers: Statistics) -> str:
    splits = list(numbers.images)
    heads = ["class", "share of pixels"]
    heads += [f"{escape(split)} {what}" for split in splits for what in ("pixels", "images")]
    heads += ["median region px", "smallest", "largest"]
    rows: list[str] = []
    levels = list(numbers.levels.values())
    folded = sum(map(len, levels)) > _OPEN_CLASSES
    total = max(1, sum(counts["total"] for counts in numbers.pixels.values()))
    for entry in levels[-1]:
        _grow(rows, entry, levels, len(levels) - 1, splits, total, folded)
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        '<h2 id="classes">Classes</h2><p class="soft">Click a column to sort inside each group, a group to fold it. '
        "The bars are logarithmic, from a millionth to all. A region is what a class covers in one image. "
        '<button data-fold="1">fold all</button> <button data-fold="0">unfold all</button></p>'
        f'<div class="card scroll"><table class="tree"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div>\n"
    )


def _grow(
    rows: list[str], entry: ClassStatistics, levels: Sequence[Sequence[ClassStatistics]], depth: int, splits: list[str],
    total: int, folded: bool,
) -> None:  # fmt: skip
    """Append the row of a class and, indented below it, those of its children."""
    children = [child for child in levels[depth - 1] if child.parent == entry.id] if depth else []
    top = depth == len(levels) - 1
    classes = [
        name for name, on in (("group", children), ("absent", not entry.total_px), ("folded", children and folded)) if on
    ]
    parent = "" if top else f' data-parent="{depth + 1}-{entry.parent}"'
    hidden = " hidden" if folded and not top else ""
    rows.append(f'<tr data-id="{depth}-{entry.id}"{parent} class="{" ".join(classes)}"{hidden}>')
    fold = fold_mark(entry.name, is_open=not folded) if children else '<span class="fold"></span>'
    indent = 18 * (len(levels) - 1 - depth)
    rows.append(
        f'<td data-v="{escape(entry.name)}" style="padding-left:{10 + indent}px">{fold}{swatch(entry.color)}'
        f'{escape(entry.name)}<span class="id">{entry.id}</span></td>'
    )
    share = entry.total_px / total
    width = 100 * max(0.0, 1 + log10(share) / -_FAINTEST) if share else 0
    rows.append(
        f'<td data-v="{entry.total_px}"><span class="bar"><i style="width:{width:.0f}%"></i></span>'
        f'<span class="share">{percent_of(entry.total_px, total)}</span></td>'
    )
    for split in splits:
        rows += [_number(entry.pixels.get(split, 0)), _number(entry.images.get(split, 0), exact=True)]
    smallest, median, largest = entry.region or (None, None, None)
    rows += [_number(median), _number(smallest), _number(largest), "</tr>"]
    for child in children:
        _grow(rows, child, levels, depth - 1, splits, total, folded)


def _number(value: float | None, *, exact: bool = False) -> str:
    if not value:
        return '<td data-v="0" class="soft">\u2013</td>'
    return f'<td data-v="{value}" title="{value:,.0f}">{f"{value:,.0f}" if exact else short(value)}</td>'


def _imbalance(numbers: Statistics) -> str:
    cards = []
    for name, imbalance in numbers.imbalance.items():
        nodes = {entry.name: entry for entry in numbers.levels[name]}
        split = "all splits" if imbalance.split == "all" else escape(imbalance.split)
        rarest = "".join(chip(nodes[rare].color, rare) for rare in imbalance.rarest)
        absent = f"{len(imbalance.absent)} classes do not occur there. " if imbalance.absent else ""
        ratio = "\u2013" if imbalance.ratio is None else f"{imbalance.ratio:,.0f} : 1"
        cards.append(
            f'<div class="card"><h3>{escape(name)}: commonest to rarest {ratio}</h3><p class="soft">In {split}. {absent}The '
            f"rarest third of the classes holds {100 * imbalance.rarest_share:.3g} % of the labelled pixels:</p>"
            f'<div class="chips">{rarest}</div></div>'
        )
    return f'<h2 id="imbalance">Imbalance</h2><div class="cards">{"".join(cards)}</div>\n'


# -- co-occurrence, sizes, leakage -------------------------------------------------------------------------------------


def _heat(overview: Overview) -> str:
    together, level = overview.statistics.cooccurrence, overview.hierarchy.coarse
    alone = together.diagonal()
    shown = sorted((k for k in range(len(level)) if alone[k]), key=lambda k: (-int(alone[k]), k))
    left_out = len(shown) - _MAX_HEAT
    shown = shown[:_MAX_HEAT]
    names = [escape(level.names[k]) for k in shown]
    head = "".join(f"<th><div>{name}</div></th>" for name in names)
    rows = []
    for row, name in zip(shown, names, strict=True):
        cells = []
        for column, other in zip(shown, names, strict=True):
            count = int(together[row, column])
            share = count / int(alone[row])
            text = (
                f"{name}: {count:,} images"
                if row == column
                else f"{count:,} of {alone[row]:,} images with {name} show {other}"
            )
            shade = f' style="background:rgba(var(--heat),{share:.2f})"' if row != column and count else ""
            cells.append(f'<td title="{text}"{shade}>{"" if row != column else short(count)}</td>')
        rows.append(f"<tr><th>{swatch(level.nodes[row].color)}{name}</th>{''.join(cells)}</tr>")
    more = f" The {_MAX_HEAT} commonest of {_MAX_HEAT + left_out} classes." if left_out > 0 else ""
    return (
        f'<h2 id="together">Seen together</h2><p class="soft">How often an image with the {escape(level.name)} class of the '
        f"row also shows that of the column (strong colour = always); on the diagonal, images of each class.{more}</p>"
        f'<div class="card"><table class="heat"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>\n"
    )


def _sizes(numbers: Statistics) -> str:
    sizes = numbers.sizes
    if sizes is None:
        return ""
    most = max(count for _, count in sizes.commonest)
    rows = "".join(
        f"<tr><td>{width} \u00d7 {height}</td><td>{count:,}</td>"
        f'<td><span class="bar" style="width:260px"><i style="width:{100 * count / most:.0f}%"></i></span></td></tr>'
        for (width, height), count in sizes.commonest
    )
    more = f" The {len(sizes.commonest)} most frequent:" if sizes.distinct > len(sizes.commonest) else ""
    spread = " ".join(
        f"{name.capitalize()} {low} to {high} px, median {median:g}."
        for name, (low, median, high) in (("width", sizes.width), ("height", sizes.height))
    )
    noun = "size" if sizes.distinct == 1 else "different sizes"
    return (
        f'<h2 id="sizes">Image sizes</h2><p class="soft">{sizes.distinct:,} {noun}. {spread}{more}</p>'
        f'<div class="card"><table class="sizes">{rows}</table></div>\n'
    )


def _leaks(overview: Overview) -> str:
    numbers, near = overview.statistics, overview.near
    parts = ['<h2 id="leaks">Leakage across splits</h2><div class="card">']
    pairs = [f"{n:,} of {escape(a)} are also in {escape(b)}" for (a, b), n in sorted(numbers.leaked.items())]
    same = f'<span class="warn">{"; ".join(pairs)}</span>' if pairs else "none"
    parts.append(f"<p>The same file in two splits: {same}.</p>")
    if numbers.repeated:
        repeated = ", ".join(f"{escape(split)} {count:,}" for split, count in numbers.repeated.items())
        parts.append(f"<p>More than once in one split: {repeated}.</p>")
    if near is None:
        parts.append('<p class="soft">Near-duplicates were not looked for (--near-duplicates).</p>')
    else:
        parts.append(f"<p>Photos that look like one of an earlier split: {len(near):,}.</p>")
    if overview.unreadable:
        parts.append(f'<p class="warn">{len(overview.unreadable):,} photos could not be read.</p>')
    parts += [_leak_table(numbers.leaks, near or ()), "</div>\n"]
    return "".join(parts)


def _leak_table(same: Sequence[Leak], near: Sequence[Leak]) -> str:
    listed = [*same[:_MAX_LISTED], *near[:_MAX_LISTED]]
    if not listed:
        return ""
    rows = "".join(
        f"<tr><td>{escape(leak.split)}/{escape(leak.key)}</td><td>{escape(leak.other_split)}/{escape(leak.other_key)}</td>"
        f"<td>{'the same file' if number < len(same[:_MAX_LISTED]) else f'{leak.distance} of 64 hash bits differ'}</td></tr>"
        for number, leak in enumerate(listed)
    )
    more = len(same) + len(near) - len(listed)
    rest = f'<p class="soft">and {more:,} more</p>' if more > 0 else ""
    return f'<table class="list"><tr><th>photo</th><th>looks like</th><th></th></tr>{rows}</table>{rest}'


# -- samples -----------------------------------------------------------------------------------------------------------


def _samples(overview: Overview) -> str:
    if not overview.samples:
        return ""
    figures = "".join(_sample(overview, number) for number in range(len(overview.samples)))
    return (
        '<h2 id="samples">Samples</h2><p class="soft">Chosen so that every coarse class is shown where possible. '
        "Background and ignored pixels stay clear.</p>"
        '<label class="control">strength of the colours <input type="range" id="opacity" min="0" max="100" value="65">'
        f"</label>{figures}\n"
    )


def _sample(overview: Overview, number: int) -> str:
    row, folder, hierarchy = overview.samples[number], overview.folder, overview.hierarchy
    with row.allowed():
        fine, coarse = (read_label_png(label_path(folder.root, level, row.split, row.key)) for level in ("fine", "coarse"))
        photo = read_rgb(folder.image_path(row))
    labels = TwoLevelMap(fine, coarse)
    labels.check_ids(hierarchy, label_path(folder.root, "fine", row.split, row.key))
    shown = picture(photo, labels, hierarchy.fine, hierarchy.coarse)
    panels = [
        _panel(number, shown, "", "photo", ()), _panel(number, shown, shown.fine, hierarchy.fine.name, shown.fine_classes),
        _panel(number, shown, shown.coarse, hierarchy.coarse.name, shown.coarse_classes),
    ]  # fmt: skip
    return (
        f"<style>.p{number}{{background-image:url({shown.photo})}}</style>"
        f'<figure class="card sample"><figcaption>{escape(row.split)}/{escape(row.key)} '
        f"<small>{row.width} \u00d7 {row.height}</small></figcaption>"
        f'<div class="panels">{"".join(panels)}</div></figure>\n'
    )


def _panel(number: int, shown: Picture, tint: str, word: str, classes: Iterable[ClassNode]) -> str:
    nodes = list(classes)
    chips = "".join(chip(node.color, node.name) for node in nodes[:_MAX_CHIPS])
    more = f'<span class="soft">and {len(nodes) - _MAX_CHIPS} more</span>' if len(nodes) > _MAX_CHIPS else ""
    image = f'<img alt="" src="{tint}">' if tint else ""
    return (
        f'<div><div class="panel p{number}" role="img" aria-label="{escape(word)}" '
        f'style="aspect-ratio:{shown.width}/{shown.height}">{image}</div>'
        f'<div class="chips"><b>{escape(word)}</b> {chips}{more}</div></div>'
    )
