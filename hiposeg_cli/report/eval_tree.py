"""The classes of an evaluation as a tree: parents with their children below, and one column a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from hiposeg_cli.evaluation.comparison import ResultComparison
from hiposeg_cli.evaluation.result import EvalResult
from hiposeg_cli.hierarchy import ClassNode, Hierarchy
from hiposeg_cli.report.html import fold_mark, short, swatch

_OPEN_CLASSES = 250  # larger taxonomies start folded
_BARS = ("IoU", "own IoU")
Place = tuple[int, int]  # depth of a level, id of a class


@dataclass(frozen=True)
class _Column:
    """One score of the classes by their place; None or nothing where it is undefined."""

    title: str
    values: Mapping[Place, float | None]
    text: Callable[[float], str]
    hint: str = ""


def class_tree(result: EvalResult, comparison: ResultComparison | None) -> str:
    """The table of all levels. With the protocol own, upper levels have an IoU under either protocol."""
    hierarchy, columns = result.hierarchy, _columns(result.summary, comparison)
    folded = sum(map(len, hierarchy.levels)) > _OPEN_CLASSES
    rows: list[str] = []
    for node in hierarchy.levels[-1].nodes:
        _grow(rows, hierarchy, columns, len(hierarchy.levels) - 1, node, folded)
    head = '<th scope="col">class</th>' + "".join(
        f'<th scope="col"{_title(column.hint)}>{escape(column.title)}</th>' for column in columns
    )
    return (
        '<p class="soft">Click a column to sort inside each group, a group to fold it. In percent, a dash where a score '
        'is undefined. <button type="button" data-fold="1">fold all</button> '
        '<button type="button" data-fold="0">unfold all</button></p>'
        f'<div class="card scroll"><table class="tree"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</div>\n"
    )


def _columns(summary: dict[str, Any], comparison: ResultComparison | None) -> list[_Column]:
    scores = {name: level["classes"] for name, level in summary["levels"].items()}
    squares = {name: level["classes"] for name, level in summary["sqiou"].items()}
    columns = [_Column("own IoU" if "merged" in summary else "IoU", _by_place(scores, "iou", summary), _percent)]
    if "merged" in summary:
        merged = {name: level["classes"] for name, level in summary["merged"].items()}
        columns.append(_Column("merged IoU", _by_place(merged, "iou", summary), _percent, "from the predicted fine class"))
    if comparison is not None:
        values = {
            (depth, number): entry.difference
            for depth, level in enumerate(comparison.levels)
            for number, entry in enumerate(level.classes)
        }
        columns.append(_Column("difference", values, _signed, "IoU less that of the other side"))
    columns += [
        _Column("accuracy", _by_place(scores, "accuracy", summary), _percent, "recall"),
        _Column("precision", _by_place(scores, "precision", summary), _percent),
        _Column("sqIoU", _by_place(squares, "sqiou", summary), _percent, "mean over the images that hold the class"),
    ]
    if "boundary" in summary:
        bands = {name: level["classes"] for name, level in summary["boundary"].items()}
        columns.append(_Column("boundary IoU", _by_place(bands, "boundary_iou", summary), _percent))
    if "iiou" in summary:
        instances = {
            name: [{"name": key, "iiou": value} for key, value in level["classes"].items()]
            for name, level in summary["iiou"].items()
        }
        columns.append(_Column("iIoU", _by_place(instances, "iiou", summary), _percent, "instances weigh alike"))
    if "pq" in summary:
        quality = {name: level["classes"] for name, level in summary["pq"].items()}
        columns.append(_Column("PQ", _by_place(quality, "pq", summary), _percent, "objects matched"))
    return [
        *columns, _Column("true pixels", _by_place(scores, "pixels", summary), short),
        _Column("predicted", _by_place(scores, "predicted", summary), short, "pixels"),
        _Column("images", _by_place(squares, "images", summary), "{:,.0f}".format, "whose truth holds the class"),
    ]  # fmt: skip


def _by_place(levels: Mapping[str, Any], key: str, summary: dict[str, Any]) -> dict[Place, float | None]:
    """The value of each class; `levels` holds, by level name, rows with a `name`."""
    values: dict[Place, float | None] = {}
    for depth, (level, scores) in enumerate(summary["levels"].items()):
        ids = {entry["name"]: entry["id"] for entry in scores["classes"]}
        values |= {(depth, ids[entry["name"]]): entry[key] for entry in levels.get(level, ())}
    return values


def _grow(
    rows: list[str], hierarchy: Hierarchy, columns: list[_Column], depth: int, node: ClassNode, folded: bool
) -> None:  # fmt: skip
    """Append the row of a class and, indented below it, those of its children."""
    children = [child for child in hierarchy.levels[depth - 1].nodes if child.parent == node.name] if depth else []
    top = depth == len(hierarchy.levels) - 1
    parent = "" if top else f' data-parent="{depth + 1}-{hierarchy.levels[depth + 1].find(node.parent or "")}"'
    absent = columns[0].values.get((depth, node.id)) is None
    names = [name for name, on in (("group", children), ("absent", absent), ("folded", children and folded)) if on]
    hidden = " hidden" if folded and not top else ""
    fold = fold_mark(node.name, is_open=not folded) if children else '<span class="fold"></span>'
    indent = 10 + 18 * (len(hierarchy.levels) - 1 - depth)
    rows.append(
        f'<tr data-id="{depth}-{node.id}"{parent} class="{" ".join(names)}"{hidden}>'
        f'<td data-v="{escape(node.name)}" style="padding-left:{indent}px">{fold}{swatch(node.color)}{escape(node.name)}'
        f'<span class="id">{node.id}</span></td>'
    )
    rows += [_cell(column, column.values.get((depth, node.id))) for column in columns]
    rows.append("</tr>")
    for child in children:
        _grow(rows, hierarchy, columns, depth - 1, child, folded)


def _cell(column: _Column, value: float | None) -> str:
    if value is None:
        return '<td data-v="" class="soft">\u2013</td>'
    bar = f'<span class="bar"><i style="width:{100 * value:.0f}%"></i></span>' if column.title in _BARS else ""
    number = f'<span class="share">{column.text(value)}</span>' if bar else column.text(value)
    return f'<td data-v="{value:.6g}"{_title(f"{value:,}") if column.text is short else ""}>{bar}{number}</td>'


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}"


def _title(words: str) -> str:
    return f' title="{escape(words)}"' if words else ""
