"""Confusion matrices and reliability diagrams on the page of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from hiposeg_cli.evaluation.files import ConfusionTable, confusion_tables
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.metrics.values import ratio
from hiposeg_cli.report.html import short
from hiposeg_cli.report.tables import percent

_MAX_CLASSES = 60
_NUMBERED_CLASSES = 24  # larger matrices have no numbers in their cells
_MAX_LISTED = {True: 50, False: 10}  # largest confusions: without a matrix, and below one
_SIDE = 300  # of a reliability diagram


def confusion_section(result: EvalResult) -> str:
    """One matrix at a time: of each level, and inside each parent."""
    tables = confusion_tables(result)
    options = "".join(f'<option value="{number}">{escape(table.title)}</option>' for number, table in enumerate(tables))
    cards = "".join(_card(table, number) for number, table in enumerate(tables))
    return (
        f'<p><label>of <select id="matrix" autocomplete="off">{options}</select></label> <span class="soft">Each row in '
        "percent of its true pixels, coloured by the root of the share: right on the diagonal, mistakes beside it. Point at "
        f"a cell for its pixels.</span></p>{cards}\n"
    )


def _card(table: ConfusionTable, number: int) -> str:
    large = len(table.rows) > _MAX_CLASSES
    heat = f"<p>{len(table.rows)} classes: the largest confusions.</p>" if large else _heat(table)
    hidden = " hidden" if number else ""
    return f'<div class="card matrix" data-matrix="{number}"{hidden}>{heat}{_largest(table, _MAX_LISTED[large])}</div>'


def _heat(table: ConfusionTable) -> str:
    shares = ratio(table.counts, table.counts.sum(axis=1, keepdims=True))
    head = "".join(f'<th scope="col"><div>{escape(name)}</div></th>' for name in table.columns)
    rows = []
    for row, name in enumerate(table.rows):
        cells = (
            _heat_cell(name, other, int(table.counts[row, column]), float(shares[row, column]), row == column)
            for column, other in enumerate(table.columns)
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    size = " large" if len(table.rows) > _NUMBERED_CLASSES else ""
    return (
        f'<table class="heat{size}"><caption>true {escape(table.title)} down, predicted across, % of the row</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _heat_cell(name: str, other: str, count: int, share: float, hit: bool) -> str:
    kind = "hit" if hit else "miss"
    if not count:
        return f'<td class="{kind}"></td>'
    title = escape(f"{name} as {other}: {count:,} px, {100 * share:.3g} %")
    return f'<td class="{kind}" style="--s:{share**0.5:.2f}" title="{title}">{_whole(share)}</td>'


def _whole(share: float) -> str:
    return "&lt;1" if share < 0.005 else f"{100 * share:.0f}"


def _largest(table: ConfusionTable, n: int) -> str:
    """The n largest entries off the diagonal."""
    wrong, totals = table.counts.copy(), table.counts.sum(axis=1)
    diagonal = np.arange(len(table.rows))
    wrong[diagonal, diagonal] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:n]
    places = [divmod(int(place), wrong.shape[1]) for place in order if wrong.flat[place]]
    if not places:
        return '<p class="soft">No pixel is confused.</p>'
    rows = "".join(
        f"<tr><td>{escape(table.rows[row])}</td><td>{escape(table.columns[column])}</td>"
        f"<td>{short(wrong[row, column])}</td><td>{percent(wrong[row, column] / totals[row])}</td></tr>"
        for row, column in places
    )
    heads = ("true class", "predicted as", "pixels", "% of the true class")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return f'<table class="list"><caption>largest confusions</caption><tr>{head}</tr>{rows}</table>'


# -- calibration -------------------------------------------------------------------------------------------------------


def calibration_section(summary: dict[str, Any]) -> str:
    """A reliability diagram for each level; empty where calibration was not measured."""
    cards = "".join(_diagram_card(name, level) for name, level in summary.get("calibration", {}).items())
    if not cards:
        return ""
    return (
        '<p class="soft">Accuracy of the pixels of each confidence: on the dashed line, confidence means what it says. Bars '
        "are the level's own most probable class, dots the ancestors of the best leaf.</p>"
        f'<div class="cards">{cards}</div>\n'
    )


def _diagram_card(name: str, level: dict[str, Any]) -> str:
    errors = f"ECE {percent(level['ece'])}, of the best leaf's ancestors {percent(level['ece_merged'])}, cwECE "
    errors += percent(level["cwece"])
    return (
        f'<div class="card"><h3>{escape(name)}</h3><p class="soft">{escape(errors)} %</p>'
        f"{_diagram(name, level['diagram'], level['diagram_merged'])}</div>"
    )


def _diagram(name: str, own: Sequence[dict[str, Any]], merged: Sequence[dict[str, Any]]) -> str:
    """An SVG of accuracy by confidence, both 0 to 1."""
    bars = "".join(
        f'<rect x="{_x(entry["low"]):.1f}" y="{_y(entry["accuracy"]):.1f}" '
        f'width="{_SIDE * (entry["high"] - entry["low"]) - 1:.1f}" height="{_SIDE * entry["accuracy"]:.1f}">'
        f"<title>{_bin_words(entry)}</title></rect>"
        for entry in _filled(own)
    )
    dots = "".join(
        f'<circle cx="{_x(entry["confidence"]):.1f}" cy="{_y(entry["accuracy"]):.1f}" r="3">'
        f"<title>{_bin_words(entry)}</title></circle>"
        for entry in _filled(merged)
    )
    return (
        f'<svg class="bins" viewBox="0 0 {_SIDE + 50} {_SIDE + 45}" role="img" '
        f'aria-label="reliability diagram, {escape(name)}">'
        f'<rect class="frame" x="40" y="5" width="{_SIDE}" height="{_SIDE}"/>{bars}'
        f'<line x1="40" y1="{_SIDE + 5}" x2="{_SIDE + 40}" y2="5"/>{dots}'
        f'<text x="36" y="{_SIDE + 5}" text-anchor="end">0</text><text x="36" y="14" text-anchor="end">100</text>'
        f'<text x="{_SIDE + 40}" y="{_SIDE + 20}" text-anchor="end">100</text>'
        f'<text x="{_SIDE // 2 + 40}" y="{_SIDE + 35}" text-anchor="middle">confidence, %</text>'
        f'<text transform="translate(12 {_SIDE // 2}) rotate(-90)" text-anchor="middle">accuracy, %</text></svg>'
    )


def _filled(diagram: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in diagram if entry["pixels"]]


def _x(share: float) -> float:
    return 40 + _SIDE * share


def _y(share: float) -> float:
    return 5 + _SIDE * (1 - share)


def _bin_words(entry: dict[str, Any]) -> str:
    return (
        f"confidence {percent(entry['confidence'])} %, accuracy {percent(entry['accuracy'])} %, {entry['pixels']:,} pixels"
    )
