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
    csv_path: Annotated[Path | None, typer.Option("--csv", help="Write the per-class table here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the --csv file.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score a run on a split: every level from one leaf confusion matrix over the whole set."""
    from hiposeg_cli.errors import ConfigError, DataError, did_you_mean

    for flag, value, allowed in (("--absent", absent, ("zero", "skip")), ("--weights", weights, ("best", "last"))):
        if value not in allowed:
            raise ConfigError(f"{flag} {value}", "is not a choice", did_you_mean(value, allowed))
    if csv_path is not None and csv_path.exists() and not overwrite:
        raise DataError(csv_path, "exists", "pass --overwrite or another --csv")
    with console.progress("eval") as progress:
        summary = score_run(
            run, data, split=split, which=weights, absent=absent, size=size, device=device, progress=progress
        )
    if csv_path is not None:
        _write_csv(csv_path, summary)
    if as_json:
        console.out(console.envelope("eval", summary))
        return
    show(summary, per_class=per_class)


def score_run(
    run: Path, data: Path, *, split: str = "val", which: str = "best", absent: Any = "zero", size: int | None = None,
    device: str = "auto", progress: Any = lambda done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate one run; see `metrics.summarize` for what comes back."""
    import torch

    from hiposeg_cli.learn.evaluate import evaluate as count
    from hiposeg_cli.metrics import summarize
    from hiposeg_cli.run import load_model, with_size
    from hiposeg_cli.store import open_dataset

    dataset = open_dataset(data)
    rows = dataset.split(split)
    model = with_size(load_model(run, which=which, device=device), size)
    dataset.hierarchy.require_same(model.hierarchy, mine=data, theirs=run)
    confusion = count(dataset, rows, model.segment, progress)
    about = {
        "run": str(run), "weights": which if run.is_dir() else str(run), "data": str(data), "split": split,
        "size": model.checkpoint.about["size"], "precision": str(model.amp or torch.float32).removeprefix("torch."),
    }  # fmt: skip
    return {**about, **summarize(confusion, absent)}


def show(summary: dict[str, Any], *, per_class: bool) -> None:
    """Print the levels, and the tables if asked."""
    from hiposeg_cli.report.tables import level_line, per_class_table, protocol_line

    for name, level in summary["levels"].items():
        if per_class:
            console.out_table(per_class_table([("", summary)], name))
        console.out(level_line(name, level))
    console.out(protocol_line(summary))


def _write_csv(path: Path, summary: dict[str, Any]) -> None:
    import csv
    import io

    from hiposeg_cli.labelmap import write_bytes_atomic

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["level", "id", "name", "iou", "accuracy", "precision", "true_pixels", "predicted_pixels"])
    for level, scores in summary["levels"].items():
        for entry in scores["classes"]:
            values = [entry[key] for key in ("id", "name", "iou", "accuracy", "precision", "pixels", "predicted")]
            writer.writerow([level, *("" if value is None else value for value in values)])
    write_bytes_atomic(path, text.getvalue().encode())
