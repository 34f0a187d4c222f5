"""`hiposeg eval RUN_OR_PREDICTIONS DATA`: score a run, or any model's label PNGs, on every level."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hiposeg_cli.commands import console

if TYPE_CHECKING:
    from hiposeg_cli.commands.sides import LabelMaps, Network
    from hiposeg_cli.evaluation.comparison import ResultComparison
    from hiposeg_cli.evaluation.counting import Wanted
    from hiposeg_cli.evaluation.result import EvalResult
    from hiposeg_cli.evaluation.truth import Truth
    from hiposeg_cli.hierarchy import Hierarchy
    from hiposeg_cli.metrics import Protocol

_SHOWN_PROBLEMS = 20
_SHOWN_CLASSES = 12  # of a confusion matrix on the terminal


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(metavar="RUN_OR_PREDICTIONS", help="Run, .safetensors, .onnx, label PNGs or panoptic JSON.")
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Prepared dataset; with --format raw annotations.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    against: Annotated[
        Path | None, typer.Option(help="Another run or folder: what differs, and do the images decide it.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="Rules to score by: hiposeg, cityscapes, coco-stuff, voc, mmseg or pascal-part.")
    ] = "hiposeg",
    absent: Annotated[
        str | None, typer.Option(help="Class predicted but not in the truth: zero (Cityscapes) or skip (COCO-Stuff).")
    ] = None,
    level: Annotated[list[str] | None, typer.Option(help="Show this level only; repeatable.")] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="One row per class, on every level.")] = False,
    worst: Annotated[int, typer.Option(min=0, help="Name this many images of lowest mIoU.")] = 0,
    boundary: Annotated[bool, typer.Option("--boundary", help="Also Boundary IoU.")] = False,
    boundary_ratio: Annotated[
        float | None, typer.Option(help="Width of its bands, share of the diagonal; 0.02, for cityscapes 0.005.")
    ] = None,
    panoptic: Annotated[
        bool, typer.Option("--panoptic", help="Also PQ, and PartPQ of parts: truth and predictions have object numbers.")
    ] = False,
    calibration: Annotated[bool, typer.Option("--calibration", help="Runs: also calibration errors (ECE, cwECE).")] = False,
    bootstrap: Annotated[int, typer.Option(min=0, help="Draws of the images for 95 % intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of these draws.")] = 0,
    fail_under: Annotated[
        list[str] | None, typer.Option(metavar="SCORE=SHARE", help="Exit 1 below it, such as fine.miou=0.6; repeatable.")
    ] = None,
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write the per-class table (and the curve) here.")] = None,
    confusion: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Show small confusion matrices, and write all of them as CSV here.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write a page with tables and pictures; report.html in a folder.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of --csv, --confusion, --html.")] = False,
    pred_ids: Annotated[
        str | None, typer.Option(help="PNGs hold official ids: cityscapes, cityscapes-train-ids, coco-stuff, ...")
    ] = None,
    pred_suffix: Annotated[str, typer.Option(help="PNGs: what follows the image's name, such as _pred.")] = "",
    format_name: Annotated[str | None, typer.Option("--format", help="DATA is raw; `hiposeg formats` lists them.")] = None,
    hierarchy: Annotated[str | None, typer.Option(help="With --format: a shipped taxonomy or a YAML file.")] = None,
    variant: Annotated[str | None, typer.Option(help="With --format: release or encoding.")] = None,
    images: Annotated[Path | None, typer.Option(help="With --format: folder of the photos, where it is not found.")] = None,
    instances: Annotated[bool, typer.Option("--instances", help="With --format: object numbers too, for iIoU.")] = False,
    weights: Annotated[str, typer.Option(help="Runs: best or last weights.")] = "best",
    size: Annotated[
        int | None, typer.Option(min=32, help="Runs: long side the network sees, px; default as trained.")
    ] = None,
    decode: Annotated[str, typer.Option(metavar="RULE", help="Runs: leaf, sum, top-down, path-sum or back-off.")] = "leaf",
    confidence: Annotated[
        float | None, typer.Option(help="With --decode back-off: its threshold, 0 to 1; without it a curve over several.")
    ] = None,
    device: Annotated[str, typer.Option(help="Runs: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="PNGs: processes; 0 takes one per core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with everything.")] = False,
) -> None:
    """Score predictions on a split: every level from integer confusion matrices over the whole set.

    What cannot be scored (a missing, extra, doubled, broken or mis-sized file, an unknown id) is named; exit code 1 then.
    """
    from hiposeg_cli.commands.sides import LabelMaps, Network, Raw, is_run, open_truth
    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.evaluation.comparison import compare_results
    from hiposeg_cli.evaluation.files import Outputs
    from hiposeg_cli.evaluation.gates import Gate

    if against is not None and not bootstrap:
        raise ConfigError("--bootstrap 0", "leaves --against nothing to decide by", "name a number of draws")
    gates = [Gate.parse(text) for text in fail_under or ()]
    rules = _rules(protocol, absent)
    network = Network(weights, size, decode, confidence, device, calibration)
    png = LabelMaps(pred_ids, pred_suffix, panoptic, workers)
    sides = [predictions, *([against] if against else [])]
    network.check(sides)
    png.check(sides)
    outputs = Outputs(csv_path, confusion, html / "report.html" if html is not None and html.is_dir() else html)
    outputs.check(overwrite=overwrite)
    truth = open_truth(data, split, Raw(format_name, hierarchy, variant, images, instances, panoptic))
    names = _level_names(truth.hierarchy, level)
    wanted = _wanted(rules, truth, _boundary_ratio(rules, boundary, boundary_ratio), panoptic=panoptic)
    for gate in gates:
        gate.require_known(truth.hierarchy)
        gate.require_measured(wanted.parts(truth.hierarchy))
    options = {"draws": bootstrap, "seed": seed, "workers": workers or os.cpu_count() or 1}
    # Label maps first: their worker processes are forked before torch has threads.
    scored = {path: _scored(path, truth, network, png, wanted, **options) for path in sorted(sides, key=is_run)}
    results = [scored[path] for path in sides]
    comparison = compare_results(*results, draws=bootstrap, seed=seed) if against else None
    result = results[0]
    outputs.write(result)
    failures = [failure for gate in gates if (failure := gate.failure(result.summary))]
    problems = failures or any(found.problems for found in results)
    if outputs.page is not None:
        _write_page(outputs.page, results, comparison, failures, worst, seed)
    if as_json:
        _print_json(results, comparison, failures, worst, outputs.page)
    else:
        show(result.summary, names, per_class=per_class)
        _show_details(result, names, worst, with_confusion=confusion is not None)
        _show_comparison(results, comparison, names, per_class=per_class)
        for text in (*_warnings(results), *_problem_lines(results, failures)):
            console.warn(text)
    if problems:
        raise typer.Exit(1)


def _scored(
    path: Path, truth: Truth, network: Network, png: LabelMaps, wanted: Wanted, **options: Any
) -> EvalResult:  # fmt: skip
    from hiposeg_cli.commands.sides import open_side, score_side

    side = open_side(path, truth, network, png)
    with console.progress(f"eval {path.name}") as progress:
        return score_side(side, truth, wanted, progress=progress, **options)


def _write_page(
    path: Path, results: Sequence[EvalResult], comparison: ResultComparison | None, failures: Sequence[str], worst: int,
    seed: int,
) -> None:  # fmt: skip
    from hiposeg_cli.labelmap import write_bytes_atomic
    from hiposeg_cli.report.eval_page import SAMPLES, Report, evaluation_page

    other = results[1] if comparison is not None else None
    report = Report(results[0], other, comparison, tuple(failures), worst or SAMPLES, seed)
    write_bytes_atomic(path, evaluation_page(report).encode(errors="backslashreplace"))  # names of files may be no text
    console.say(f"wrote {path}")


def score_run(
    run: Path, data: Path, *, split: str = "val", which: str = "best", absent: Any = "zero", size: int | None = None,
    device: str = "auto", decode: str = "leaf", confidence: float | None = None,
    progress: Any = lambda done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """The summary of one run on a prepared dataset. Raises HiposegError when an image cannot be scored."""
    from hiposeg_cli.commands.sides import LabelMaps, Network, Raw, open_side, open_truth, score_side

    network = Network(which, size, decode, confidence, device)
    truth = open_truth(data, split, Raw())
    side = open_side(run, truth, network, LabelMaps())
    result = score_side(side, truth, _wanted(_rules("hiposeg", absent), truth, None), progress=progress)
    if result.problems:
        raise result.problems[0].error
    return result.summary


def _rules(protocol: str, absent: str | None) -> Protocol:
    """The protocol; `absent` changes that of hiposeg, which is no official evaluator."""
    from hiposeg_cli.errors import ConfigError, require_choice
    from hiposeg_cli.metrics import find_protocol

    rules = find_protocol(protocol)
    if absent is None:
        return rules
    require_choice("--absent", absent, ("zero", "skip"))
    if protocol != "hiposeg":
        raise ConfigError("--absent", f"is settled by --protocol {protocol} ({rules.absent})", "leave one of them out")
    return replace(rules, absent=absent)  # type: ignore[arg-type]


def _boundary_ratio(rules: Protocol, boundary: bool, ratio: float | None) -> float | None:
    """Width of the bands; None where they are not asked for."""
    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.metrics.boundary import RATIO

    if ratio is not None and not 0 < ratio < 1:
        raise ConfigError(f"--boundary-ratio {ratio:g}", "is no share of the diagonal", "choose for example 0.02")
    if not boundary and ratio is None:
        return None
    return ratio or (0.005 if rules.name == "cityscapes" else RATIO)


def _wanted(rules: Protocol, truth: Truth, boundary_ratio: float | None, *, panoptic: bool = False) -> Wanted:
    from hiposeg_cli.evaluation.counting import Wanted

    return Wanted(rules, boundary_ratio, instances=rules.name == "cityscapes" and truth.has_instances, objects=panoptic)


def _level_names(hierarchy: Hierarchy, chosen: Sequence[str] | None) -> list[str]:
    from hiposeg_cli.errors import ConfigError, did_you_mean

    known = [level.name for level in hierarchy.levels]
    for name in chosen or ():
        if name not in known:
            raise ConfigError(f"--level {name}", "is no level of the hierarchy", did_you_mean(name, known))
    return [name for name in known if not chosen or name in chosen]


# -- what is printed ---------------------------------------------------------------------------------------------------


def show(summary: dict[str, Any], names: Sequence[str] | None = None, *, per_class: bool) -> None:
    """Print the levels, and the tables if asked."""
    from hiposeg_cli.report.tables import beside_lines, curve_table, level_line, per_class_table, protocol_line

    merged, sure = summary.get("merged", {}), summary.get("intervals", {})
    names = list(summary["levels"]) if names is None else names
    for name in names:
        columns = [("own", summary), ("merged", {"levels": merged})] if name in merged else [("", summary)]
        if per_class:
            console.out_table(per_class_table(columns, name))
        console.out(level_line(f"{name} own" if name in merged else name, summary["levels"][name], sure.get(name)))
        if name in merged:
            console.out(level_line(f"{name} merged", merged[name]))
    for line in beside_lines(summary, names):
        console.out(line)
    if "curve" in summary:
        console.out_table(curve_table(summary["curve"]))
    console.out(protocol_line(summary))


def _show_details(result: EvalResult, names: Sequence[str], worst: int, *, with_confusion: bool) -> None:
    from hiposeg_cli.evaluation.files import confusion_tables
    from hiposeg_cli.report.tables import confusion_table, worst_table

    for name in names if worst else ():
        console.out_table(worst_table(result.worst(name, worst), name))
    for table in confusion_tables(result) if with_confusion else ():
        if len(table.rows) <= _SHOWN_CLASSES and table.level in names:
            console.out_table(confusion_table(table))


def _show_comparison(
    results: Sequence[EvalResult], comparison: ResultComparison | None, names: Sequence[str], *, per_class: bool
) -> None:
    from hiposeg_cli.report.tables import comparison_tables, protocol_line

    if comparison is None:
        return
    console.out(f"against: {protocol_line(results[1].summary)}")
    for part in comparison_tables(comparison, names, per_class=per_class):
        console.out_table(part)


def _warnings(results: Sequence[EvalResult]) -> list[str]:
    """What is odd about what was scored."""
    lines = []
    for result in results:
        share = result.summary["ignored_share"]
        if share is not None and share > 0.2:
            what = "an ignore id that is a background hides its mistakes"
            lines.append(f"{100 * share:.0f} % of all pixels are ignored: {what}")
        if unnumbered := result.summary.get("images_with_unnumbered_things"):
            what = "have predicted things without an object number, which count as one object a class"
            lines.append(f"{unnumbered} of {len(result.images)} images {what}")
        lines += result.remark_lines()
    return list(dict.fromkeys(lines))


def _problem_lines(results: Sequence[EvalResult], failures: Sequence[str]) -> Iterator[str]:
    """What was not scored, and which gates did not hold."""
    from hiposeg_cli.evaluation.result import KINDS

    for result in results:
        yield from map(str, result.problems[:_SHOWN_PROBLEMS])
        if len(result.problems) > _SHOWN_PROBLEMS:
            yield f"and {len(result.problems) - _SHOWN_PROBLEMS} more (--json lists all)"
        if result.problems:
            counts = ", ".join(f"{number} {KINDS[kind]}" for kind, number in result.problem_counts().items())
            yield f"not scored: {counts}; {len(result.images)} of {len(result.truth.images)} images are"
    for failure in failures:
        yield f"--fail-under: {failure}"


def _print_json(
    results: Sequence[EvalResult], comparison: ResultComparison | None, failures: Sequence[str], worst: int,
    page: Path | None,
) -> None:  # fmt: skip
    result = results[0]
    answer = result.as_json() | {"gates_failed": list(failures), "html": str(page) if page else None}
    if worst:
        names = [level.name for level in result.hierarchy.levels]
        answer["worst"] = {name: [image.key for image in result.worst(name, worst)] for name in names}
    if comparison is not None:
        answer |= {"against": results[1].as_json(), "comparison": comparison.summary()}
    problems = bool(failures) or any(found.problems for found in results)
    status = "problems" if problems else "ok"
    console.out(console.envelope("eval", answer, status=status, warnings=_warnings(results)))
