"""`hiposeg export DATA OUT --as FORMAT`: a prepared dataset in the layout another tool reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hiposeg_cli.commands import console


def export(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Prepared dataset.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for the export.")],
    layout: Annotated[
        str,
        typer.Option(
            "--as", metavar="FORMAT", help="coco-panoptic, coco-rle, cvat, hf (Hugging Face), mmseg, nnunet or yolo-seg."
        ),
    ],
    level: Annotated[str | None, typer.Option(help="fine or coarse; the default depends on the format.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Split to export, repeatable; all without it.")] = None,
    images: Annotated[str | None, typer.Option(help="Photos: copy, hardlink, link, or reference where possible.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 takes one per core.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export hiposeg wrote in OUT.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a prepared dataset for mmsegmentation, Hugging Face, COCO tools, ultralytics, CVAT or nnU-Net."""
    from dataclasses import asdict

    from hiposeg_cli.exports.base import ExportOptions
    from hiposeg_cli.exports.export import export as write
    from hiposeg_cli.registry import EXPORTS
    from hiposeg_cli.store import open_dataset

    EXPORTS.load(layout)  # an unknown name is said before the dataset is looked at
    dataset = open_dataset(data)
    options = ExportOptions(level, tuple(split or ()), images, workers or os.cpu_count() or 1)
    with console.progress("export") as progress:
        exported = write(dataset, layout, out, options, overwrite=overwrite, progress=progress)
    if as_json:
        record = {"out": str(out), **asdict(exported)}
        warnings = record.pop("warnings")
        console.out(console.envelope("export", record, warnings=warnings))
        return
    for text in exported.warnings:
        console.warn(text)
    counts = ", ".join(f"{name} {number}" for name, number in exported.splits.items())
    console.say(f"wrote {out}: {layout}, {exported.level} level, images {counts}")
