"""What all HTML pages share: the document around the body, and small pieces inside it.

A page holds everything it shows: its own policy forbids loading anything but data URIs. Texts are escaped here where an
argument is said to be a name or a text, and by the caller where it is said to be HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from importlib.metadata import version

from rich.table import Column, Table
from rich.text import Text

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def document(title: str, body: str, *, style: str, script: str) -> str:
    """The whole page: a text as title, HTML as body."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>{body}"
        f'<p class="soft">hiposeg {escape(version("hiposeg-cli"))}</p><script>{script}</script></body></html>\n'
    )


def nav(links: Mapping[str, str]) -> str:
    """Links to the page's own sections: id -> word."""
    return "<nav>" + "".join(f'<a href="#{key}">{escape(word)}</a>' for key, word in links.items()) + "</nav>"


def tile(number: str, words: str) -> str:
    """A number, as HTML, with what it is below."""
    return f'<div class="card tile"><b>{number}</b><span>{words}</span></div>'


def swatch(color: tuple[int, int, int]) -> str:
    """A small square of a class's colour."""
    return f'<span class="swatch" style="background:rgb({color[0]},{color[1]},{color[2]})"></span>'


def chip(color: tuple[int, int, int], name: str) -> str:
    """A class of a legend."""
    return f'<span class="chip">{swatch(color)}{escape(name)}</span>'


def fold_mark(name: str, *, is_open: bool) -> str:
    """The button that folds what is below a class of a tree."""
    expanded = "true" if is_open else "false"
    return f'<button type="button" class="fold" aria-expanded="{expanded}" aria-label="{escape(name)}">\u25be</button>'


def rich_table(table: Table) -> str:
    """A table of the terminal as one whose columns sort, numbers by value."""
    head = "".join(f'<th scope="col"{_words(column)}>{escape(_plain(column.header))}</th>' for column in table.columns)
    rows = []
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        texts = [_plain(cell) for cell in cells]
        row = (
            f'<td data-v="{escape(_value(text))}"{_words(column)}>{escape(text)}</td>'
            for column, text in zip(table.columns, texts, strict=True)
        )
        rows.append(f"<tr>{''.join(row)}</tr>")
    caption = f"<caption>{escape(_plain(table.caption))}</caption>" if table.caption else ""
    body = f'<table class="tree">{caption}<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="card scroll">{body}</div>\n'


def _words(column: Column) -> str:
    return "" if column.justify == "right" else ' class="words"'


def rich_text(text: str) -> str:
    """A line for the terminal, with rich's markup, as HTML."""
    return escape(_plain(text))


def _plain(cell: object) -> str:
    return Text.from_markup(str(cell)).plain


def _value(text: str) -> str:
    """What a cell is sorted by; nothing for the dash of an undefined value."""
    return "" if text == "-" else text


def percent_of(part: int, whole: int) -> str:
    """A share with three significant digits, as percent."""
    return f"{100 * part / whole:.3g} %" if part and whole else "0 %"


def short(value: float) -> str:
    """A count in three digits: 950, 13.6 k, 2.13 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"
