"""`hiposeg eval RUN DATA`: score a trained run on every level."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hiposeg_cli.commands import console


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder or .safetensors weights.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Prepared dataset.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    per_class: Annotated[bool, typer.Option("--per-class", help="One row per class, on every level.")] = False,
    weights: Annotated[str, typer.Option(help="best or last weights of the run.")] = "best",
    absent: Annotated[
        str, typer.Option(help="Class predicted but not in the truth: zero (Cityscapes) or skip (COCO-Stuff).")
    ] = "zero",
    size: Annotated[int | None, typer.Option(min=32, help="Long side the network sees, in px; default as trained.")] = None,
    decode: Annotated[
        str, typer.Option(metavar="RULE", help="leaf, sum, top-down, path-sum or back-off: how levels follow from scores.")
    ] = "leaf",
    confidence: Annotated[
        float | None, typer.Option(help="With --decode back-off: its threshold, 0 to 1; without it a curve over several.")
    ] = None,
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write the per-class table (and the curve) here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --csv file.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a run on a split: every level from integer confusion matrices over the whole set."""
    from hiposeg_cli.errors import ConfigError, DataError, did_you_mean

    for flag, value, allowed in (("--absent", absent, ("zero", "skip")), ("--weights", weights, ("best", "last"))):
        if value not in allowed:
            raise ConfigError(f"{flag} {value}", "is not a choice", did_you_mean(value, allowed))
    if csv_path is not None and csv_path.exists() and not overwrite:
        raise DataError(csv_path, "exists", "pass --overwrite or another --csv")
    with console.progress("eval") as progress:
        summary = score_run(
            run, data, split=split, which=weights, absent=absent, size=size, device=device, decode=decode,
            confidence=confidence, progress=progress,
        )  # fmt: skip
    if csv_path is not None:
        _write_csv(csv_path, summary)
    if as_json:
        console.out(console.envelope("eval", summary))
        return
    show(summary, per_class=per_class)


def score_run(
    run: Path, data: Path, *, split: str = "val", which: str = "best", absent: Any = "zero", size: int | None = None,
    device: str = "auto", decode: str = "leaf", confidence: float | None = None,
    progress: Any = lambda done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate one run. Returns `metrics.summarize` with what was evaluated; back-off adds `metrics.BackOffCurve.points`."""
    import torch

    from hiposeg_cli.infer.model import load_model, with_decode, with_size
    from hiposeg_cli.learn.decode import THRESHOLDS, Decode
    from hiposeg_cli.learn.evaluate import evaluate_back_off, evaluate_levels
    from hiposeg_cli.metrics import summarize
    from hiposeg_cli.store import open_dataset

    thresholds = THRESHOLDS if confidence is None else (confidence,)
    rule = Decode(decode, thresholds[0] if decode == "back-off" else confidence)
    dataset = open_dataset(data)
    rows = dataset.split(split)
    model = with_decode(with_size(load_model(run, which=which, device=device), size), rule)
    dataset.hierarchy.require_same(model.hierarchy, mine=data, theirs=run)
    curve = {}
    if decode == "back-off":
        found = evaluate_back_off(dataset, rows, model.chain, thresholds, progress)
        confusion, curve = found.confusion, {"curve": found.curve.points()}
    else:
        confusion = evaluate_levels(dataset, rows, model.label_maps, progress)
    about = {
        "run": str(run), "weights": which if run.is_dir() else str(run), "data": str(data), "split": split,
        "size": model.checkpoint.about["size"], "precision": str(model.amp or torch.float32).removeprefix("torch."),
        "decode": decode, "confidence": confidence,
    }  # fmt: skip
    return {**about, **summarize(confusion, absent), **curve}


def show(summary: dict[str, Any], *, per_class: bool) -> None:
    """Print the levels, and the tables if asked."""
    from hiposeg_cli.report.tables import curve_table, level_line, per_class_table, protocol_line

    merged = summary.get("merged", {})
    for name, level in summary["levels"].items():
        columns = [("own", summary), ("merged", {"levels": merged})] if name in merged else [("", summary)]
        if per_class:
            console.out_table(per_class_table(columns, name))
        console.out(level_line(f"{name} own" if name in merged else name, level))
        if name in merged:
            console.out(level_line(f"{name} merged", merged[name]))
    if "curve" in summary:
        console.out_table(curve_table(summary["curve"]))
    console.out(protocol_line(summary))


def _write_csv(path: Path, summary: dict[str, Any]) -> None:
    """One row a class; with the protocol own, upper levels under both protocols; then the curve of back-off, one row a
    threshold and level, where `level` any holds the accuracy of all that is said and the share of pixels it is said on."""
    import csv
    import io

    from hiposeg_cli.labelmap import write_bytes_atomic

    rows = []
    for protocol, levels in ((summary["protocol"], summary["levels"]), ("merged", summary.get("merged", {}))):
        for level, scores in levels.items():
            rows += [_class_row(level, entry) | {"protocol": protocol} for entry in scores["classes"]]
    for point in summary.get("curve", ()):
        said = {**point["levels"], "any": {"accuracy": point["accuracy"], "share": point["coverage"]}}
        rows += [{"level": level, "threshold": point["threshold"], **values} for level, values in said.items()]
    names = ["level", "id", "name", "iou", "accuracy", "precision", "true_pixels", "predicted_pixels"]
    names += ["protocol"] if "merged" in summary else []
    names += ["threshold", "share"] if "curve" in summary else []
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes_atomic(path, text.getvalue().encode())


def _class_row(level: str, entry: dict[str, Any]) -> dict[str, Any]:
    counts = {"true_pixels": entry["pixels"], "predicted_pixels": entry["predicted"]}
    return {"level": level, **{key: entry[key] for key in ("id", "name", "iou", "accuracy", "precision")}, **counts}
