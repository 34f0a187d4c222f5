"""rich renderables of taxonomies, preparation reports and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from hiposeg_cli.hierarchy import ClassNode, Dag, Taxonomy


def hierarchy_tree(taxonomy: Taxonomy) -> Tree:
    """The taxonomy from its coarsest level down: each class with id, colour and number of children; a DAG axis by axis."""
    counts = ", ".join(f"{len(level)} {escape(level.name)}" for level in taxonomy.levels)
    root = Tree(f"[bold]{escape(taxonomy.name)}[/bold] ({counts})")
    children: dict[tuple[int, str], list[ClassNode]] = {}
    for depth, level in enumerate(taxonomy.levels):
        for node in level.nodes:
            for parent in node.parents:
                children.setdefault((depth + 1, parent), []).append(node)

    def grow(branch: Tree, node: ClassNode, depth: int) -> None:
        red, green, blue = node.color
        below = children.get((depth, node.name), [])
        mark = f"[rgb({red},{green},{blue})]\u25a0[/]"
        notes = [f"{len(below)} {escape(taxonomy.levels[depth - 1].name)}" if below else "", node.kind or ""]
        notes += [f"mirror {escape(node.mirror)}" if node.mirror else "", "added" if node.implicit else ""]
        shown = ", ".join(note for note in notes if note)
        child_branch = branch.add(f"{mark} {node.id} {escape(node.name)}" + (f" [dim]({shown})[/dim]" if shown else ""))
        for child in below:
            grow(child_branch, child, depth - 1)

    top = len(taxonomy.levels) - 1
    branches: dict[str | None, Tree] = {None: root}
    if isinstance(taxonomy, Dag):
        chosen = {taxonomy.projection: " (the tree of the label maps)"}
        branches = {axis: root.add(f"axis [bold]{escape(axis)}[/bold]{chosen.get(axis, '')}") for axis in taxonomy.axes}
    for node in taxonomy.levels[top].nodes:
        grow(branches[node.axis], node, top)
    return root


def prepare_report(report: dict[str, Any]) -> list[Any]:
    """What a preparation found: totals, decisions, and pixels per class."""
    pixels, total = report["pixels"], max(1, report["pixels"]["total"])
    images = ", ".join(f"{split} {count}" for split, count in sorted(report["images"].items())) or "none"
    summary = Table(box=None, show_header=False, pad_edge=False)
    summary.add_row("images", images)
    summary.add_row("hierarchy", report["hierarchy"])
    if report["objects"]:
        summary.add_row("objects", str(report["objects"]))
    summary.add_row("overlap rule", report["overlap_rule"])
    labels = {
        "overlap_px": "resolved between objects", "part_overlap_px": "resolved between parts of one object",
        "uncovered_px": "object pixels outside all parts", "coarse_only_px": "coarse class but no fine one",
        "ignore_px": "ignore on both levels",
    }  # fmt: skip
    for key, label in labels.items():
        if pixels[key]:
            summary.add_row(label, f"{pixels[key]} px ({100 * pixels[key] / total:.2f} %)")
    if report["warnings"]:
        summary.add_row("warnings", f"{len(report['warnings'])}, first: {escape(report['warnings'][0])}")
    return [summary, *(_class_counts(level, report[level], total) for level in ("coarse", "fine"))]


def _class_counts(level: str, classes: list[dict[str, Any]], total: int) -> Table:
    absent = [entry["name"] for entry in classes if not sum(entry["pixels"].values())]
    table = Table("id", level, "pixels %", "images", box=None, pad_edge=False)
    for entry in classes:
        count = sum(entry["pixels"].values())
        if count:
            images = sum(entry["images"].values())
            table.add_row(str(entry["id"]), escape(entry["name"]), f"{100 * count / total:.3f}", str(images))
    if absent:
        table.caption = escape(f"never seen ({len(absent)}): {', '.join(absent)}")
        table.caption_justify = "left"
    return table


def percent(value: float | None) -> str:
    """A share as percent with two digits; a dash where it is undefined."""
    return "-" if value is None else f"{100 * value:.2f}"


def level_line(name: str, level: dict[str, Any]) -> str:
    """One line for one level, with everything a bare mIoU hides."""
    left_out = f"; left out: {', '.join(level['left_out'])}" if level["left_out"] else ""
    single = f", {level['single_child_classes']} of them with a single child" if level["single_child_classes"] else ""
    others = {
        "without background": "miou_without_background", "pixel acc": "pixel_accuracy", "mean acc": "mean_accuracy",
        "fwIoU": "frequency_weighted_iou",
    }  # fmt: skip
    rest = " | ".join(f"{title} {percent(level[key])}" for title, key in others.items())
    return f"{name}: mIoU {percent(level['miou'])} over {level['classes_averaged']} classes{single}{left_out} | {rest}"


def protocol_line(summary: dict[str, Any]) -> str:
    """How the numbers were made."""
    severity = summary["mistake_severity"]
    shown = "-" if severity is None else f"{severity:.3f}"
    return (
        f"protocol {summary['protocol']} (coarse = parent of the predicted fine class), "
        f"absent classes: {summary['absent_rule']}, {summary['scale']} scale, at the size of the truth, "
        f"{summary['images']} images of {summary['split']}, {summary['weights']} weights, network input "
        f"{summary['size'] or 'unscaled'} px, {summary['precision']}; mistake severity {shown}"
    )


def per_class_table(columns: Sequence[tuple[str, dict[str, Any]]], level: str) -> Table:
    """IoU per class of one level, one column per evaluated run; absent classes are shown as absent."""
    first = columns[0][1]["levels"][level]["classes"]
    table = Table("id", escape(level), box=None, pad_edge=False)
    for title, _ in columns:
        table.add_column(escape(f"{title} IoU" if title else "IoU"), justify="right")
    if len(columns) == 1:
        table.add_column("accuracy", justify="right")
        table.add_column("precision", justify="right")
    table.add_column("true pixels", justify="right")
    for entry in first:
        cells = [_iou(summary["levels"][level]["classes"][entry["id"]]) for _, summary in columns]
        if len(columns) == 1:
            cells += [percent(entry["accuracy"]), percent(entry["precision"])]
        table.add_row(str(entry["id"]), escape(entry["name"]), *cells, str(entry["pixels"]))
    means = [percent(summary["levels"][level]["miou"]) for _, summary in columns]
    table.add_row("", "[bold]mean[/bold]", *means, end_section=True)
    return table


def _iou(entry: dict[str, Any]) -> str:
    return "absent" if entry["iou"] is None else percent(entry["iou"])
