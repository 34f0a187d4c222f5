"""rich renderables of taxonomies, preparation reports and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from hiposeg_cli.hierarchy import ClassNode, Dag, Taxonomy

if TYPE_CHECKING:
    from hiposeg_cli.evaluation.comparison import Difference, ResultComparison
    from hiposeg_cli.evaluation.files import ConfusionTable
    from hiposeg_cli.evaluation.result import ImageResult
    from hiposeg_cli.runs import Comparison, Group


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


def level_line(name: str, level: dict[str, Any], interval: dict[str, Any] | None = None) -> str:
    """One line for one level, with everything a bare mIoU hides; `interval` is that of `EvalResult.summary`."""
    left_out = f"; left out: {', '.join(level['left_out'])}" if level["left_out"] else ""
    n_single, others = level.get("single_leaf_classes", 0), level.get("miou_of_classes_with_several_leaves")
    single = f", {n_single} of them of a single leaf ({percent(others)} without these)" if n_single else ""
    sure = f" (95 % over images: {percent(interval['low'])} to {percent(interval['high'])})" if interval else ""
    shown = {"pixel acc": "pixel_accuracy", "mean acc": "mean_accuracy", "fwIoU": "frequency_weighted_iou"}
    if level["miou_without_background"] != level["miou"]:
        shown = {"without background": "miou_without_background", **shown}
    if "miou_avg" in level:
        shown = {"Avg over objects": "miou_avg", **shown}
    rest = " | ".join(f"{title} {percent(level[key])}" for title, key in shown.items())
    return f"{name}: mIoU {percent(level['miou'])}{sure} over {level['classes_averaged']} classes{single}{left_out} | {rest}"


def beside_lines(summary: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Measures beside mIoU, one line a kind: each for some levels; errors on the tree last, next to the pixel accuracy."""
    lines = [_of_levels("sqIoU (mean over the images that hold a class)", summary["sqiou"], names, "sqiou")]
    finest = next(iter(summary["levels"]))
    if finest in names and "miou_avg" in summary["levels"][finest]:
        lines[0] += f", Avg over objects {percent(summary['sqiou'][finest]['sqiou_avg'])}"
    if "boundary" in summary:
        title = f"Boundary IoU ({100 * summary['boundary_ratio']:g} % of the diagonal)"
        lines.append(_of_levels(title, summary["boundary"], names, "boundary_iou"))
    if "iiou" in summary:
        lines.append(_of_levels("iIoU (Cityscapes instance sizes)", summary["iiou"], names, "iiou"))
    for name in names if "pq" in summary else ():
        lines.append(_of_objects(f"PQ {name}", summary["pq"][name], {"things": "things", "stuff": "stuff"}))
    for name in names if "part_pq" in summary else ():
        if name in summary["part_pq"]:
            groups = {"with_parts": "with parts", "without_parts": "without"}
            lines.append(_of_objects(f"PartPQ {name}", summary["part_pq"][name], groups))
    if "calibration" in summary:
        for key, title in (("ece", "ECE"), ("ece_merged", "ECE of the best leaf's ancestors"), ("cwece", "cwECE")):
            lines.append(_of_levels(f"{title} (20 bins)", summary["calibration"], names, key))
    if "chains" in summary:
        spatial = ", ".join(f"{name} {percent(value)}" for name, value in summary["chains"]["spcs"].items())
        lines.append(f"chains: SeCS {percent(summary['chains']['secs'])}, SpCS {spatial} (won by tiny parts: mind the mIoU)")
    tree, finest = summary["tree"], next(iter(summary["levels"].items()))
    if tree is not None:
        shown = {key: "-" if tree[key] is None else f"{tree[key]:.3f}" for key in ("distance", "severity")}
        lines.append(
            f"tree: sibling mIoU {percent(tree['sibling_miou'])}, hF {percent(tree['h_f_score'])}, distance "
            f"{shown['distance']}, severity of mistakes {shown['severity']} beside {finest[0]} pixel acc "
            f"{percent(finest[1]['pixel_accuracy'])}"
        )
    return lines


def _of_objects(title: str, scores: dict[str, Any], groups: dict[str, str]) -> str:
    """PQ, SQ and RQ of all classes, and PQ of groups of them."""
    both = scores["all"]
    beside = ", ".join(f"{word} {percent(scores[key]['pq'])} ({scores[key]['classes']})" for key, word in groups.items())
    quality = f"SQ {percent(both['sq'])}, RQ {percent(both['rq'])}"
    return f"{title} {percent(both['pq'])} over {both['classes']} classes ({quality}); {beside}"


def _of_levels(title: str, levels: dict[str, Any], names: Sequence[str], key: str) -> str:
    return f"{title}: " + ", ".join(f"{name} {percent(levels[name][key])}" for name in names)


def protocol_line(summary: dict[str, Any]) -> str:
    """How the numbers were made."""
    severity = summary["mistake_severity"]
    shown = "-" if severity is None else f"{severity:.3f}"
    return (
        f"protocol {_protocol(summary)}, {_rule(summary)}rules {_rules(summary)}, "
        f"absent classes: {summary['absent_rule']}, {summary['scale']} scale, at the size of the truth, "
        f"{summary['images']} images of {summary['split']}, {_made_by(summary)}; mistake severity {shown}"
    )


def _rules(summary: dict[str, Any]) -> str:
    coarse = "" if summary["coarse_pixels"] == "labelled" else ", pixels with only a coarse label dropped"
    uncovered = ", object pixels without a part are background" if summary["uncovered"] == "background" else ""
    background = {"none": "no background class"}.get(summary["background"], f"background {summary['background']}")
    return f"{summary['rules']} ({background}{coarse}{uncovered})"


def _made_by(summary: dict[str, Any]) -> str:
    """The weights of a run, or the label maps."""
    if summary["kind"] == "label maps":
        ids = f", ids of {summary['ids']}" if summary["ids"] else ""
        return f"label maps of {summary['predictions']}{ids}"
    side = f"{summary['size']} px" if summary["size"] else "as large as the photo"
    return f"{summary['weights']} weights, network input {side}, {summary['precision']}"


def _protocol(summary: dict[str, Any]) -> str:
    if summary["protocol"] == "merged":
        return "merged (coarse = parent of the predicted fine class)"
    agreement = ", ".join(f"{name} {percent(share)} %" for name, share in summary["consistency"].items())
    return f"own (each level has its own prediction; consistency with the predicted fine class: {agreement})"


def _rule(summary: dict[str, Any]) -> str:
    """How levels were decoded from the scores of a network; empty for label maps."""
    if summary["kind"] == "label maps":
        return ""
    threshold = summary["confidence"]
    if summary["decode"] != "back-off":
        return f"decode {summary['decode']}, "
    return f"decode back-off {'(levels as at confidence 0)' if threshold is None else f'at confidence {threshold:g}'}, "


def worst_table(images: Sequence[ImageResult], level: str) -> Table:
    """The images of lowest mean IoU on a level."""
    table = Table("worst images", f"{escape(level)} mIoU", "wrong %", "file", box=None, pad_edge=False)
    for image in images:
        file = next(iter(image.predicted.values()), image.photo)
        table.add_row(escape(image.key), percent(image.miou[level]), percent(image.wrong_share), escape(file))
    return table


def confusion_table(found: ConfusionTable) -> Table:
    """A small confusion matrix, each row in percent of its true pixels."""
    table = Table(f"true {escape(found.title)} \\ predicted, %", box=None, pad_edge=False)
    for name in found.columns:
        table.add_column(escape(name), justify="right")
    table.add_column("pixels", justify="right")
    for name, counts in zip(found.rows, found.counts.tolist(), strict=True):
        total = sum(counts)
        table.add_row(escape(name), *(f"{100 * count / total:.1f}" if total else "-" for count in counts), str(total))
    return table


def comparison_tables(comparison: ResultComparison, names: Sequence[str], *, per_class: bool) -> list[Any]:
    """Differences in mIoU with their intervals, of the classes too if asked or where they are beyond what images decide."""
    table = Table("level", "class", box=None, pad_edge=False)
    for title in ("IoU", "against", "difference", "95 % over images", "p"):
        table.add_column(title, justify="right")
    table.add_column("")
    for level in (level for level in comparison.levels if level.level in names):
        classes = [entry for entry in level.classes if per_class or entry.verdict.startswith("beyond")]
        for entry in (level.mean, *classes):
            table.add_row(escape(level.level), escape(entry.name), *_difference_cells(entry), entry.verdict)
    n_classes = sum(len(level.classes) for level in comparison.levels if level.level in names)
    left_out = f", {len(comparison.left_out)} scored by one only are left out" if comparison.left_out else ""
    shown = "all classes" if per_class else "of the classes those beyond it (--per-class shows all)"
    note = (
        f"{comparison.n_images} images{left_out}, drawn again {comparison.draws} times (seed {comparison.seed}), the same "
        f"for both; {shown}; of {n_classes} classes about {n_classes / 20:.1g} would be beyond it by chance; another seed "
        "of the training is no part of it"
    )
    return [table, escape(note)]


def _difference_cells(entry: Difference) -> list[str]:
    interval = "-" if entry.low is None or entry.high is None else f"{100 * entry.low:+.2f} to {100 * entry.high:+.2f}"
    difference = "-" if entry.difference is None else f"{100 * entry.difference:+.2f}"
    p_value = "-" if entry.p_value is None else f"{entry.p_value:.3f}"
    return [percent(entry.first), percent(entry.second), difference, interval, p_value]


def curve_table(points: Sequence[dict[str, Any]]) -> Table:
    """Back-off over its thresholds: accuracy of what is said, on how many pixels, and the share said on each level."""
    table = Table("confidence", box=None, pad_edge=False)
    for title in ("accuracy of what is said", "said on", *(f"said as {escape(name)}" for name in points[0]["levels"])):
        table.add_column(title, justify="right")
    for point in points:
        shares = [point["accuracy"], point["coverage"], *(level["share"] for level in point["levels"].values())]
        table.add_row(f"{point['threshold']:g}", *(percent(share) for share in shares))
    table.caption, table.caption_justify = "percent of the pixels with a fine label", "left"
    return table


def per_class_table(columns: Sequence[tuple[str, dict[str, Any]]], level: str) -> Table:
    """IoU per class of one level, one column per evaluated run; absent classes are shown as absent."""
    first = columns[0][1]["levels"][level]["classes"]
    table = Table("id", escape(level), box=None, pad_edge=False)
    for title, _ in columns:
        table.add_column(escape(f"{title} IoU" if title else "IoU"), justify="right")
    if len(columns) == 1:
        table.add_column("accuracy", justify="right")
        table.add_column("precision", justify="right")
    quality = columns[0][1].get("pq", {}).get(level, {}).get("classes", ())
    for title in ("PQ", "SQ", "RQ") if quality else ():
        table.add_column(title, justify="right")
    table.add_column("true pixels", justify="right")
    squares = columns[0][1].get("sqiou")
    n_images = {entry["name"]: str(entry["images"]) for entry in squares[level]["classes"]} if squares else {}
    if n_images:
        table.add_column("images", justify="right")
    for entry in first:
        cells = [_iou(summary["levels"][level]["classes"][entry["id"]]) for _, summary in columns]
        if len(columns) == 1:
            cells += [percent(entry["accuracy"]), percent(entry["precision"])]
        cells += [percent(quality[entry["id"]][key]) for key in ("pq", "sq", "rq")] if quality else []
        counts = [str(entry["pixels"]), *([n_images[entry["name"]]] if n_images else [])]
        table.add_row(str(entry["id"]), escape(entry["name"]), *cells, *counts)
    means = [percent(summary["levels"][level]["miou"]) for _, summary in columns]
    table.add_row("", "[bold]mean[/bold]", *means, end_section=True)
    return table


def _iou(entry: dict[str, Any]) -> str:
    return "absent" if entry["iou"] is None else percent(entry["iou"])


def runs_list(rows: Sequence[dict[str, Any]]) -> Table:
    """Runs below a folder, one line each, with their last validation."""
    table = Table("run", "method", "seed", "net", "data", "step", "last validation", box=None, pad_edge=False)
    for row in rows:
        steps = "/".join("-" if row[key] is None else str(row[key]) for key in ("step", "total_steps"))
        scores = ", ".join(f"{name} {percent(value)}" for name, value in row["scores"].items()) or "none"
        data, net = str(row["data.path"]).rsplit("/", 1)[-1], f"{row['net.architecture']}, {row['net.backbone']}"
        table.add_row(*map(escape, (row["run"], row["method"], str(row["seed"]), net, data, steps, scores)))
    return table


def runs_comparison(comparison: Comparison) -> list[Any]:
    """One row a configuration: mean and spread over seeds, and the difference to the first row; then what the words mean."""
    table = Table(*map(escape, comparison.differing), "seeds", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for measure in comparison.measures:
        table.add_column(escape(measure))
    for group in comparison.groups:
        label = ["-" if group.settings[key] is None else str(group.settings[key]) for key in comparison.differing]
        cells = [_measure(comparison.groups[0], group, name) for name in comparison.measures]
        table.add_row(*map(escape, label), str(len(group.seeds)), *map(escape, cells), end_section=True)
    notes = [
        f"{comparison.source}; mIoU in percent, lower severity is better",
        "mean +- standard deviation over seeds (n - 1), smallest..largest, difference to the first row; `beyond the "
        "spread`: by more than both standard deviations together (both in brackets), which is no significance test",
    ]
    if comparison.rarest:
        notes.append(f"rarest third (fewest training pixels): {', '.join(comparison.rarest)}")
    return [table, *map(escape, notes)]


def _measure(first: Group, group: Group, name: str) -> str:
    """One cell of the comparison."""
    from hiposeg_cli.runs import SEVERITY

    values, base = group.measures[name], first.measures[name]
    if values is None:
        return "-"
    digits, factor = (3, 1) if name == SEVERITY else (2, 100)

    def shown(value: float, sign: str = "") -> str:
        return f"{factor * value:{sign}.{digits}f}"

    lines = [shown(values.mean) + ("" if values.deviation is None else f" +- {shown(values.deviation)}")]
    if values.deviation is not None:
        lines.append(f"{shown(values.low)}..{shown(values.high)}")
    change = group.differences.get(name)
    if change is not None and base is not None:
        known = [shown(spread.deviation) for spread in (base, values) if spread.deviation is not None]
        lines += [shown(change.value, "+"), change.verdict + (f" ({', '.join(known)})" if len(known) == 2 else "")]
    return "\n".join(lines)
