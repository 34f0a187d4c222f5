"""`hiposeg export DATA_OR_RUN [OUT] --as FORMAT`: a dataset for another tool, or a network as a file of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from hiposeg_cli.commands import console

_NETWORKS = {"onnx": ".onnx", "torch": ".pt2"}
_N_PHOTOS = 4  # to check a network's file on


def export(
    source: Annotated[
        Path, typer.Argument(metavar="DATA_OR_RUN", help="Prepared dataset; for onnx and torch a run or its weights.")
    ],
    layout: Annotated[
        str,
        typer.Option(
            "--as", metavar="FORMAT",
            help="Data: coco-panoptic, coco-rle, cvat, hf (Hugging Face), mmseg, nnunet, yolo-seg. Networks: onnx, torch.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="New folder; for a network a file, by default beside its weights.")
    ] = None,
    level: Annotated[str | None, typer.Option(help="Data: fine or coarse; the default depends on the format.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Data: split to export, repeatable; all without it.")] = None,
    images: Annotated[
        str | None, typer.Option(help="Data: photos by copy, hardlink, link, or reference where possible.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Data: processes; 0, the default, takes one per core.")] = None,
    weights: Annotated[str | None, typer.Option(help="Networks: best, the default, or last weights of the run.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export hiposeg wrote in OUT, or a network's file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Write a prepared dataset for mmsegmentation, Hugging Face, COCO tools, ultralytics, CVAT or nnU-Net; or a network.

    A network's file (ONNX, or torch.export's .pt2) takes uint8 RGB pictures of any number and size; classes, hierarchy,
    palette and preprocessing are inside. It is kept only when it agrees with torch, on photos of the run's own data where
    they are still there. `hiposeg predict` runs an .onnx file as it runs a run.
    """
    _check_format(source, layout)
    if layout in _NETWORKS:
        _refuse(layout, {"--level": level, "--split": split, "--images": images, "--workers": workers}, "data")
        _export_network(source, out, layout, weights or "best", overwrite=overwrite, as_json=as_json)
    else:
        _refuse(layout, {"--weights": weights}, "networks")
        options = {"level": level, "splits": tuple(split or ()), "images": images, "workers": workers or os.cpu_count() or 1}
        _export_data(source, out, layout, options, overwrite=overwrite, as_json=as_json)


def _check_format(source: Path, layout: str) -> None:
    """Refuse an unknown format, and one that is not for what is named. Raises ConfigError."""
    from hiposeg_cli.commands.sides import is_run
    from hiposeg_cli.errors import ConfigError, did_you_mean
    from hiposeg_cli.registry import EXPORTS

    known = [*EXPORTS.names(), *_NETWORKS]
    if layout not in known:
        raise ConfigError(f"export format {layout!r}", "is unknown", did_you_mean(layout, known))
    if layout not in _NETWORKS:
        if is_run(source):
            raise ConfigError(
                source, f"is a run, and --as {layout} exports data", "pass --as onnx or torch, or name a dataset"
            )
        EXPORTS.load(layout)  # a missing package is said before the dataset is looked at
    elif (source / "dataset.json").is_file():
        raise ConfigError(
            source, f"is a prepared dataset, and --as {layout} exports a network", "name a run or a .safetensors file"
        )


def _refuse(layout: str, options: dict[str, Any], kind: str) -> None:
    """Raises ConfigError for an option that has a value and no meaning."""
    from hiposeg_cli.errors import ConfigError

    for name, value in options.items():
        if value is not None:
            raise ConfigError(name, f"is for {kind} only, and has no meaning for --as {layout}", "leave it out")


def _export_data(
    data: Path, out: Path | None, layout: str, options: dict[str, Any], *, overwrite: bool, as_json: bool
) -> None:  # fmt: skip
    from dataclasses import asdict

    from hiposeg_cli.errors import ConfigError
    from hiposeg_cli.exports.base import ExportOptions
    from hiposeg_cli.exports.export import export as write
    from hiposeg_cli.store import open_dataset

    if out is None:
        raise ConfigError("OUT", "is missing", "name a new folder for the export")
    dataset = open_dataset(data)
    with console.progress("export") as progress:
        exported = write(dataset, layout, out, ExportOptions(**options), overwrite=overwrite, progress=progress)
    if as_json:
        record = {"out": str(out), **asdict(exported)}
        warnings = record.pop("warnings")
        console.out(console.envelope("export", record, warnings=warnings))
        return
    for text in exported.warnings:
        console.warn(text)
    counts = ", ".join(f"{name} {number}" for name, number in exported.splits.items())
    console.say(f"wrote {out}: {layout}, {exported.level} level, images {counts}")


def _export_network(run: Path, out: Path | None, kind: str, which: str, *, overwrite: bool, as_json: bool) -> None:
    import tempfile
    from dataclasses import asdict

    from hiposeg_cli.commands.samples import sample_photos
    from hiposeg_cli.errors import ConfigError, require_choice
    from hiposeg_cli.image_file import read_rgb
    from hiposeg_cli.infer.model import load_model
    from hiposeg_cli.infer.portable import export_network

    require_choice("--weights", which, ("best", "last"))
    model = load_model(run, which=which, device="cpu")
    target = out or model.checkpoint.path.with_suffix(_NETWORKS[kind])
    if target.suffix != _NETWORKS[kind]:
        raise ConfigError(target, f"is no name for --as {kind}", f"name a file that ends in {_NETWORKS[kind]}")
    with tempfile.TemporaryDirectory() as folder:
        sample = sample_photos(run, _N_PHOTOS, Path(folder))
        console.say(f"exporting {model.checkpoint.path} takes about a minute")
        found = export_network(model, kind, target, [read_rgb(path) for path in sample.paths], overwrite=overwrite)
    if as_json:
        record = {"out": str(target), "format": kind, "bytes": target.stat().st_size, "checked_on": sample.name}
        console.out(console.envelope("export", record | asdict(found)))
        return
    console.say(f"checked on {sample.name}: {found}")
    console.say(f"wrote {target}: {kind}, {target.stat().st_size / 2**20:.1f} MiB")
